"""Training state on disk. In: trainable weights, optimizer moments, the step, the retrieval in flight. Out: safetensors and JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from ragray.artifact.files import write_json
from ragray.errors import CorruptArtifactError
from ragray.index.search.result import SearchResult
from ragray.train.components import Components
from ragray.train.schedule import Progress
from ragray.types import Hit, Passage

STATE_FILE = "state.safetensors"
STEP_FILE = "state.json"
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class StepFile:
    """What the step file of a checkpoint holds; ``world_size`` ranks wrote it."""

    step: int
    examples_seen: int
    world_size: int

    @property
    def progress(self) -> Progress:
        """How far the run was."""
        return Progress(self.step, self.examples_seen)


def save_model(
    folder: Path, model: Components, optimizer: torch.optim.Optimizer, progress: Progress, world_size: int
) -> None:
    """Write what is the same on all ranks: weights that train, their AdamW moments, the progress. The progress is written last."""
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in model.trainable():
        tensors[f"weight.{name}"] = parameter.detach().contiguous()
        state = optimizer.state.get(parameter, {})
        tensors.update({f"{moment}.{name}": state[moment].contiguous() for moment in MOMENTS if moment in state})
    save_file(tensors, folder / STATE_FILE)
    write_json(folder / STEP_FILE, asdict(StepFile(progress.step, progress.examples_seen, world_size)))


def load_model(folder: Path, model: Components, optimizer: torch.optim.Optimizer) -> StepFile:
    """Put a saved state back, on any rank of any number of ranks; the inverse of `save_model`.

    Raises:
        CorruptArtifactError: the checkpoint was made with other trainable weights.
    """
    saved = read_step(folder)
    tensors = load_file(folder / STATE_FILE)
    for name, parameter in model.trainable():
        weight = tensors.get(f"weight.{name}")
        if weight is None or weight.shape != parameter.shape:
            raise CorruptArtifactError(f"{folder}: has no weights for '{name}'; it was made with other train settings")
        with torch.no_grad():
            parameter.copy_(weight)
        # AdamW makes its state at the first step that a parameter takes. `load_state_dict` would go by the parameters'
        # numbers, and its files are pickles; so the state is made here, by name. The fused AdamW expects its step as a float32
        # where the weights are.
        optimizer.state[parameter] = {
            "step": torch.tensor(float(saved.step), device=parameter.device),
            **{moment: tensors[f"{moment}.{name}"].to(parameter.device) for moment in MOMENTS},
        }
    return saved


def read_step(folder: Path) -> StepFile:
    """Read the step file of a checkpoint."""
    return StepFile(**json.loads((folder / STEP_FILE).read_text(encoding="utf-8")))


def whole_progress(folder: Path) -> Progress | None:
    """Return the progress of a checkpoint, None where one of its files is missing or was cut off."""
    try:
        saved = read_step(folder)
        files = {STATE_FILE}
        if any(folder.glob("pending-*")):  # the last checkpoint of a run holds none
            files |= {f"pending-{rank}.{kind}" for rank in range(saved.world_size) for kind in ("safetensors", "json")}
        for path in (folder / name for name in files):
            if path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
            else:
                with safe_open(path, "numpy"):
                    pass  # opening compares the size with what the header promises
    except (OSError, ValueError, TypeError, SafetensorError):
        return None
    return saved.progress


def save_pending(folder: Path, rank: int, found: SearchResult) -> None:
    """Write a rank's retrieval for the next step: it was made before this step's update and would now come out differently."""
    arrays = {"rows": found.rows_NK, "scores": found.scores_NK, "vectors": found.vectors_NKD}
    save_arrays(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / f"pending-{rank}.safetensors"
    )
    hits = [[{"score": hit.score, "passage": _as_json(hit.passage)} for hit in row] for row in found.hits]
    write_json(folder / f"pending-{rank}.json", hits)


def load_pending(folder: Path, rank: int) -> SearchResult | None:
    """Read a rank's retrieval for the next step, if it was saved."""
    path = folder / f"pending-{rank}.json"
    if not path.is_file():
        return None
    arrays = load_arrays(folder / f"pending-{rank}.safetensors")
    hits = [
        [Hit(_passage(entry["passage"]), entry["score"]) for entry in row]
        for row in json.loads(path.read_text(encoding="utf-8"))
    ]
    return SearchResult(arrays["rows"], arrays["scores"], arrays["vectors"], hits)


def _passage(fields: dict[str, Any]) -> Passage:
    metadata = {key: value if isinstance(value, str) else tuple(value) for key, value in fields["metadata"].items()}
    return Passage(**{**fields, "metadata": metadata})


def _as_json(passage: Passage) -> dict[str, object]:
    return {**asdict(passage), "metadata": dict(passage.metadata)}

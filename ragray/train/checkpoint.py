"""Training state on disk. In: trainable weights, optimizer moments, the step, the retrieval in flight. Out: safetensors and JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from ragray.artifact.files import write_json
from ragray.errors import CorruptArtifactError
from ragray.index.search.result import SearchResult
from ragray.train.model import RagModel
from ragray.types import Hit, Passage

STATE_FILE = "state.safetensors"
STEP_FILE = "state.json"
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: steps done, and the losses summed since the last line of metrics."""

    step: int
    world_size: int


def save_model(folder: Path, model: RagModel, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Write what is the same on all workers: weights that train, their AdamW moments, the step. The step is written last."""
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in model.trainable():
        tensors[f"weight.{name}"] = parameter.detach().contiguous()
        state = optimizer.state.get(parameter, {})
        tensors.update({f"{moment}.{name}": state[moment].contiguous() for moment in MOMENTS if moment in state})
    save_file(tensors, folder / STATE_FILE)
    write_json(folder / STEP_FILE, asdict(progress))


def load_model(folder: Path, model: RagModel, optimizer: torch.optim.Optimizer) -> Progress:
    """Put a saved state back; the inverse of `save_model`.

    Raises:
        CorruptArtifactError: the checkpoint was made with other trainable weights.
    """
    progress = Progress(**json.loads((folder / STEP_FILE).read_text(encoding="utf-8")))
    tensors = load_file(folder / STATE_FILE)
    for name, parameter in model.trainable():
        saved = tensors.get(f"weight.{name}")
        if saved is None or saved.shape != parameter.shape:
            raise CorruptArtifactError(f"{folder}: has no weights for '{name}'; it was made with other train settings")
        with torch.no_grad():
            parameter.copy_(saved)
        optimizer.state[parameter] = {
            "step": torch.tensor(float(progress.step)),
            **{moment: tensors[f"{moment}.{name}"].to(parameter.device) for moment in MOMENTS},
        }
    return progress


def whole_step(folder: Path) -> int | None:
    """Return the step of a checkpoint, None where one of its files is missing or was cut off."""
    try:
        progress = Progress(**json.loads((folder / STEP_FILE).read_text(encoding="utf-8")))
        files = {STATE_FILE}
        if any(folder.glob("pending-*")):  # the last checkpoint of a run holds none
            files |= {
                f"pending-{rank}.{kind}" for rank in range(progress.world_size) for kind in ("safetensors", "json")
            }
        for path in (folder / name for name in files):
            if path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
            else:
                with safe_open(path, "numpy"):
                    pass  # opening compares the size with what the header promises
    except (OSError, ValueError, TypeError, SafetensorError):
        return None
    return progress.step


def save_pending(folder: Path, rank: int, found: SearchResult) -> None:
    """Write a worker's retrieval for the next step: it was made before this step's update and would now come out differently."""
    arrays = {"rows": found.rows_NK, "scores": found.scores_NK, "vectors": found.vectors_NKD}
    save_arrays(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / f"pending-{rank}.safetensors"
    )
    hits = [[{"score": hit.score, "passage": _as_json(hit.passage)} for hit in row] for row in found.hits]
    write_json(folder / f"pending-{rank}.json", hits)


def load_pending(folder: Path, rank: int) -> SearchResult | None:
    """Read a worker's retrieval for the next step, if it was saved."""
    path = folder / f"pending-{rank}.json"
    if not path.is_file():
        return None
    arrays = load_arrays(folder / f"pending-{rank}.safetensors")
    hits = [
        [Hit(Passage(**entry["passage"]), entry["score"]) for entry in row]
        for row in json.loads(path.read_text(encoding="utf-8"))
    ]
    return SearchResult(arrays["rows"], arrays["scores"], arrays["vectors"], hits)


def _as_json(passage: Passage) -> dict[str, object]:
    return {**asdict(passage), "metadata": dict(passage.metadata)}

"""Generator on OpenVINO. In: questions with their passages. Out: answers that `openvino-genai` writes side by side on the CPU.

Token ids go in and come out; prompts and texts are ragray's own. The model is a GGUF in float16 that is written once from the model
folder, of a run or not, and kept in ragray's cache under the fingerprint of the weights. The GGUF that a package ships is not read
directly: openvino-genai 2026.4 wrote other tokens from SmolLM2's Q4_1 than torch from the same weights (28 % were equal).
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ragray.artifact.files import atomic_path
from ragray.artifact.lock import exclusive
from ragray.config import GenerateConfig
from ragray.convert.to_gguf import write_gguf
from ragray.errors import InputError, ModelError, first_line
from ragray.generate.answer.writing import Writing
from ragray.generate.engine import Generation, Piece, Sampling, Submission
from ragray.generate.generator import Generator
from ragray.generate.strategy import make_strategy
from ragray.generate.template import make_template
from ragray.models import (
    cache_dir,
    load_model_config,
    load_tokenizer,
    resolve_part,
    weights_fingerprint,
)
from ragray.openvino import import_openvino
from ragray.types import FinishReason

SETTING = "generate.engine=openvino"
PROPERTIES = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",  # activations stay as they are: the tokens are those of float32
    "ENABLE_CPU_PINNING": False,  # every process of a machine would pin its threads to the same first cores
}

REQUEST_IDS = itertools.count()
"""A pipeline's requests have numbers, none of them twice."""

MAX_BATCHED_TOKENS = 384
"""Tokens that one step computes at most: of a long prompt so many are read between two tokens of the other answers.

Two prompts of 200 tokens fit. With half as many, 16 clients wait for a place; with more, all wait for longer steps.
"""


class OpenVinoGenerator(Generator):
    """Writes answers with a model that OpenVINO compiled."""

    def __init__(self, model: Path, folder: Path, config: GenerateConfig, *, threads: int = 0) -> None:
        """Compile a GGUF for so many threads (0: all); ``folder`` holds the configuration and the tokenizer of its model.

        Raises:
            MissingPackageError: the package openvino-genai is not installed.
            ModelError: it cannot read the model.
        """
        tokenizer = load_tokenizer(folder)
        self.config = config
        self.template = make_template(tokenizer, load_model_config(folder), config)
        self.strategy = make_strategy(self.template, config)
        self.stop_ids = load_stop_ids(folder, tokenizer)
        self._model = model
        self._threads = threads
        self.pipeline = open_pipeline(model, config.batch_size, threads)
        self._runner: OpenVinoRunner | None = None

    @classmethod
    def load(cls, config: GenerateConfig, *, weights: Path | None = None, threads: int = 0) -> OpenVinoGenerator:
        """Load the configured model, or fine-tuned ``weights`` of it; raises as `OpenVinoGenerator` and `resolve_part` do."""
        import_openvino(SETTING, "openvino_genai")
        folder = weights or resolve_part(config.model, "generator")
        return cls(written_gguf(folder), folder, config, threads=threads)

    @classmethod
    def load_alone(cls, config: GenerateConfig, *, weights: Path | None = None, threads: int = 0) -> OpenVinoGenerator:
        """Load as `load` does, in a process that does nothing else: it imports no torch, which would take most of the time."""
        written_gguf(weights or resolve_part(config.model, "generator"))  # needs torch, where it is not there yet
        sys.modules.setdefault("torch", None)  # type: ignore[arg-type] # Python's way to have `import torch` fail
        return cls.load(config, weights=weights, threads=threads)

    def check(self, question: str, instruction: str = "") -> None:
        """Raise `InputError`, which names the limit, where a question with its instruction is too long for the model."""
        self.template.check(question, instruction)

    def open_runner(self) -> OpenVinoRunner:
        """Begin an empty batch; where another was not finished, the model is compiled anew, as it would go on with that one."""
        if self._runner is not None and len(self._runner):
            self.pipeline = open_pipeline(self._model, self.config.batch_size, self._threads)
        self._runner = OpenVinoRunner(self)
        return self._runner


@dataclass(slots=True)
class _Answer:
    """An answer in the pipeline, with what it is written to."""

    handle: Any
    writing: Writing
    token_ids: list[int] = field(default_factory=list)
    log_prob: float = 0.0
    finish_reason: FinishReason | None = None

    def read(self, stop_ids: frozenset[int]) -> bool:
        """Take the tokens that came; return whether there were any."""
        came = False
        while self.handle.can_read():
            for output in self.handle.read().values():
                came = True
                self.token_ids += [token for token in output.generated_ids if token not in stop_ids]
                self.log_prob += sum(output.generated_log_probs)
                if output.finish_reason.name != "NONE":
                    self.finish_reason = "length" if output.finish_reason.name == "LENGTH" else "stop"
        return came


class OpenVinoRunner:
    """The batch of answers that a pipeline of `openvino-genai` is writing."""

    gives_logits = False
    joinable = True

    def __init__(self, generator: OpenVinoGenerator) -> None:
        self.max_running = generator.config.batch_size
        self._generator = generator
        self._answers: dict[int, _Answer] = {}

    def __len__(self) -> int:
        """Return the number of answers that are being written."""
        return len(self._answers)

    def add(self, requests: Mapping[int, Submission]) -> Mapping[int, InputError]:
        """Let requests join; return why those were refused whose question is too long, or that name a seed."""
        refused: dict[int, InputError] = {}
        for key, submission in requests.items():
            try:
                self._answers[key] = self._begin(submission)
            except InputError as err:
                refused[key] = err
        return refused

    def remove(self, key: int) -> None:
        """Let a request leave before its answer is finished."""
        if answer := self._answers.pop(key, None):
            answer.handle.cancel()

    def step(self) -> list[tuple[int, Piece]]:
        """Write a token of every answer whose prompt has been read; a long prompt takes several steps.

        Raises:
            ModelError: the pipeline failed.
        """
        if not self._answers:
            return []
        try:
            self._generator.pipeline.step()
        except RuntimeError as err:
            raise ModelError(f"{SETTING}: {first_line(err)}; try again, or set generate.engine=torch") from err
        written: list[tuple[int, Piece]] = []
        for key, answer in self._answers.items():
            if answer.read(self._generator.stop_ids):
                pieces = answer.writing.pieces(answer.token_ids, [1.0], answer.log_prob, answer.finish_reason)
                written += [(key, piece) for piece in pieces]
        for key in [key for key, piece in written if isinstance(piece, Generation)]:
            self.remove(key)
        if self._answers and not written and not self._generator.pipeline.has_non_finished_requests():
            raise ModelError("generate.engine=openvino: the pipeline dropped a request; lower generate.batch_size")
        return written

    def _begin(self, submission: Submission) -> _Answer:
        generator, sampling = self._generator, submission.sampling
        if sampling.temperature and sampling.seed is not None:
            raise InputError("seed: answers drawn with generate.engine=openvino cannot be repeated; leave seed out")
        weighted = generator.strategy.prompts(submission.request)
        [row] = weighted.prompts
        handle = pipeline_request(generator, row, sampling)
        return _Answer(handle, Writing(submission, weighted, generator.strategy, generator.template.codec))


def pipeline_request(generator: OpenVinoGenerator, row: Sequence[int], sampling: Sampling) -> Any:
    """Let a prompt join the pipeline; return its handle."""
    ids = import_openvino(SETTING).Tensor(np.array([row], dtype=np.int64))
    config = _generation_config(sampling, generator.config.max_new_tokens, generator.stop_ids)
    return generator.pipeline.add_request(next(REQUEST_IDS), ids, config)


def open_pipeline(model: Path, batch_size: int, threads: int) -> Any:
    """Compile a GGUF; raises `ModelError` where it cannot be read."""
    genai = import_openvino(SETTING, "openvino_genai")
    scheduler = genai.SchedulerConfig()
    scheduler.max_num_seqs = batch_size
    scheduler.max_num_batched_tokens = MAX_BATCHED_TOKENS
    scheduler.dynamic_split_fuse = True
    scheduler.cache_size = 0  # the cache of keys and values grows as it is needed
    scheduler.enable_prefix_caching = True
    properties = dict(PROPERTIES) | ({"INFERENCE_NUM_THREADS": str(threads)} if threads else {})
    try:
        return genai.ContinuousBatchingPipeline(str(model), scheduler, "CPU", properties)
    except RuntimeError as err:
        raise ModelError(
            f"{model}: openvino-genai cannot load it ({first_line(err)}); set generate.engine=torch"
        ) from err


def written_gguf(folder: Path) -> Path:
    """Return the GGUF of a model folder. Of processes that start together, one writes it and the others wait.

    Raises:
        ModelError, ModelNotFoundError: as `write_gguf` and `weights_fingerprint` do.
    """
    target = cache_dir() / "openvino" / f"{weights_fingerprint(folder)}-f16.gguf"
    if not target.is_file():
        with exclusive(target.parent, wait=True):
            if not target.is_file():
                with atomic_path(target) as path:
                    write_gguf(folder, path, model=load_model_config(folder), tokenizer=load_tokenizer(folder))
    return target


def load_stop_ids(folder: Path, tokenizer: Any) -> frozenset[int]:
    """Return the ids that end an answer: those of ``generation_config.json`` where there is one, and the tokenizer's end token."""
    from transformers import GenerationConfig

    has_own = (folder / "generation_config.json").is_file()
    found = GenerationConfig.from_pretrained(folder).eos_token_id if has_own else None
    ids = found if isinstance(found, list) else [found]
    return frozenset(int(token) for token in [*ids, tokenizer.eos_token_id] if token is not None)


def _generation_config(sampling: Sampling, most: int, stop_ids: frozenset[int]) -> Any:
    config = import_openvino(SETTING, "openvino_genai").GenerationConfig()
    config.max_new_tokens = min(sampling.max_new_tokens or most, most)
    config.eos_token_id = min(stop_ids)
    config.stop_token_ids = set(stop_ids)
    config.logprobs = 1
    config.do_sample = bool(sampling.temperature)
    if sampling.temperature:
        config.temperature, config.top_p = sampling.temperature, sampling.top_p
    return config

"""A finished training run. In: its folder. Out: where its weights lie, and with what prompt, retrieval and index they were trained."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError, field_validator

from ragray.artifact.manifest import open_artifact
from ragray.config import FROM_MINED, Config, GenerateConfig, RetrieveConfig, with_present_names
from ragray.config.usage import FIXED_BY_RUN, FROM_RUN
from ragray.embed.encoder import MIXED_ADVICE, EncoderFingerprint
from ragray.errors import CorruptArtifactError, first_line

MODEL_FOLDER = "model"
GENERATOR_FOLDER = "generator"
ENCODER_FOLDER = "question_encoder"
PASSAGE_ENCODER_FOLDER = "passage_encoder"
INDEX_FOLDER = "index"
"""The index that belongs to a run whose passage encoder was trained too."""


logger = logging.getLogger("ragray")

S = TypeVar("S", GenerateConfig, RetrieveConfig)


class DevRecall(BaseModel):
    """Recall at ``k`` of the gold passages of held-out questions, in percent, with the encoder before and after training.

    ``interval`` holds the gain with 95%. ``among``: what was searched, the index, or the held-out questions' own passages where the
    passage encoder trained too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: int
    num_questions: int
    before: float
    after: float
    interval: tuple[float, float]
    among: Literal["index", "pool"] = "index"

    @property
    def gained(self) -> bool:
        """Whether more gold passages are found than before."""
        return self.after > self.before


class BestValidation(BaseModel):
    """The validation whose weights a run has: its step, the figure that made it the best of ``num_scored``, by what name.

    ``loss`` is better the lower, the others, in percent, the higher.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    metric: Literal["exact_match", "f1", "recall", "loss"]
    value: FiniteFloat
    num_scored: int
    num_failed: int = 0

    @property
    def in_words(self) -> str:
        """Which weights the run has, and why."""
        failed = f"; {self.num_failed} gave no score" if self.num_failed else ""
        figure = f"{self.metric.replace('_', ' ')} {self.value:.4g}{'' if self.metric == 'loss' else ' %'}"
        return f"weights of step {self.step}: {figure}, the best of {self.num_scored} validations{failed}"


class RunFacts(BaseModel):
    """What a run's manifest records beside its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generate: GenerateConfig
    """Prompt, marginalisation and passage temperature of training."""
    k: int
    mode: Literal["dense", "lexical", "hybrid"] = "dense"
    where: str = ""
    rerank_model: str = ""
    """How the passages of training were found. Runs that do not record it searched all passages by vectors."""
    encoder: EncoderFingerprint
    """The passage encoder of the index it was trained with: it answers from no other."""
    snapshot: str
    num_steps: int
    num_examples: int
    final_loss: FiniteFloat | None = None
    """None for a run that was not trained here."""
    objective: str = "rag"
    kept: Literal["trained", "base"] = "trained"
    """Of a retriever run: whose weights it answers with. `base`: the trained encoder found no more on held-out questions."""
    dev: DevRecall | None = None
    best: BestValidation | None = None
    """None where the weights are those of the last step: nothing was validated, or no validation gave a figure."""
    rebuild_index: bool = False
    """Whether the passage encoder was trained too: the run fits an index that is built with it, and no other."""
    own_index: bool = False
    """Whether the passage encoder was trained too and the index that is built with it lies in the run."""

    @field_validator("generate", mode="before")
    @classmethod
    def _earlier_names(cls, recorded: Any) -> Any:
        """Read what versions before recorded."""
        return with_present_names("generate", recorded)


@dataclass(frozen=True, slots=True)
class Run:
    """An opened run."""

    folder: Path
    name: str
    facts: RunFacts

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open and verify a run.

        Raises:
            NotAnArtifactError: the folder holds no finished run.
            CorruptArtifactError: a file differs from the manifest.
        """
        manifest = open_artifact(folder, "run")
        try:
            facts = RunFacts.model_validate(manifest.facts)
        except ValidationError as err:
            reason = first_line(err)
            raise CorruptArtifactError(f"{folder}/manifest.json: facts are malformed ({reason}); train again") from err
        return cls(folder, f"{folder.resolve().name}-{manifest.fingerprint[:8]}", facts)

    @property
    def generator(self) -> Path:
        """Folder of the generator's weights."""
        return self.folder / MODEL_FOLDER / GENERATOR_FOLDER

    @property
    def question_encoder(self) -> Path:
        """Folder of the question encoder's weights."""
        return self.folder / MODEL_FOLDER / ENCODER_FOLDER

    def require_index(self, encoder: EncoderFingerprint, *, here: str, there: str) -> None:
        """Raise `EncoderMismatchError`, which names the index that fits, unless ``encoder`` made the vectors that this run searches."""
        fitting = f"use the index of this run: {self.folder / INDEX_FOLDER}" if self.facts.own_index else MIXED_ADVICE
        encoder.require(self.facts.encoder, here=here, there=there, advice=fitting)

    @property
    def has_generator(self) -> bool:
        """Whether the run decides how answers are written; one that trained a retriever alone leaves that to the settings."""
        return self.facts.objective not in FROM_MINED

    def settings(self, config: Config) -> Config:
        """Return the settings that are in force with this run; the log names those given that differ from the run's.

        Prompt and marginalisation are the run's. Answer strategy, passage temperature, number of passages, retrieval mode, filter
        and reranker are the run's unless they were given. Everything else is that of ``config``; all of it for a run without generator.
        """
        if not self.has_generator:
            return config
        for dotted in (*FIXED_BY_RUN, *FROM_RUN):
            section, _, key = dotted.partition(".")
            given, trained = getattr(getattr(config, section), key), self._trained(section, key)
            if given == trained or key not in getattr(config, section).model_fields_set:
                continue
            if dotted in FIXED_BY_RUN:
                message = "%s=%s has no effect: run %s answers with %s, as it was trained"
                logger.warning(message, dotted, given, self.name, trained)
            else:
                message = "%s=%s is used, though run %s was trained with %s=%s"
                logger.warning(message, dotted, given, self.name, key, trained)
        generate, retrieve = self.generate_settings(config.generate), self._in_force("retrieve", config.retrieve)
        return config.model_copy(update={"generate": generate, "retrieve": retrieve})

    def generate_settings(self, config: GenerateConfig) -> GenerateConfig:
        """Return the section `generate` that is in force with this run, as `settings` does."""
        return self._in_force("generate", config) if self.has_generator else config

    def _in_force(self, section: str, config: S) -> S:
        """Return a section with the run's values of the keys that the run decides."""
        keys = _keys_of(section, FIXED_BY_RUN)
        keys += [key for key in _keys_of(section, FROM_RUN) if key not in config.model_fields_set]
        return config.model_copy(update={key: self._trained(section, key) for key in keys})

    def _trained(self, section: str, key: str) -> Any:
        return getattr(self.facts.generate if section == "generate" else self.facts, key)


def _keys_of(section: str, dotted: Sequence[str]) -> list[str]:
    return [key.removeprefix(f"{section}.") for key in dotted if key.startswith(f"{section}.")]

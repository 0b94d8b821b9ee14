"""A finished training run. In: its folder. Out: where its weights lie, and with what prompt, retrieval and index they were trained."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError, field_validator

from ragray.artifact.manifest import open_artifact
from ragray.config import Config, GenerateConfig, RetrieveConfig, with_present_names
from ragray.embed.encoder import EncoderFingerprint
from ragray.errors import CorruptArtifactError, first_line

MODEL_FOLDER = "model"
GENERATOR_FOLDER = "generator"
ENCODER_FOLDER = "question_encoder"


logger = logging.getLogger("ragray")

FIXED = ("model", "instruction", "marginalize", "max_prompt_tokens")
"""Keys of `GenerateConfig` that are those of the run, whatever is given: the weights were trained with them."""

UNLESS_GIVEN = "passage_temperature"
"""Key of `GenerateConfig` that is the run's unless it is given."""

RETRIEVAL = ("k", "mode", "where", "rerank_model")
"""Keys of `RetrieveConfig` that are the run's unless they are given."""


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
    final_loss: FiniteFloat

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

    def settings(self, config: Config) -> Config:
        """Return the settings that are in force with this run; the log names those given that differ from the run's.

        Prompt and marginalisation are the run's. Passage temperature, number of passages, retrieval mode, filter and reranker are
        the run's unless they were given. Everything else is that of ``config``.
        """
        for key in FIXED:
            given, trained = getattr(config.generate, key), getattr(self.facts.generate, key)
            if key in config.generate.model_fields_set and given != trained:
                logger.warning(
                    "generate.%s=%s has no effect: run %s answers with %s, as it was trained",
                    *(key, given, self.name, trained),
                )
        self._compare(UNLESS_GIVEN, config.generate, self.facts.generate)
        for key in RETRIEVAL:
            self._compare(key, config.retrieve, self.facts)
        return config.model_copy(
            update={
                "generate": self.generate_settings(config.generate),
                "retrieve": self.retrieve_settings(config.retrieve),
            }
        )

    def generate_settings(self, config: GenerateConfig) -> GenerateConfig:
        """Return the section `generate` that is in force with this run."""
        keys = (*FIXED, *_not_given((UNLESS_GIVEN,), config))
        return config.model_copy(update={key: getattr(self.facts.generate, key) for key in keys})

    def retrieve_settings(self, config: RetrieveConfig) -> RetrieveConfig:
        """Return the section `retrieve` that is in force with this run."""
        return config.model_copy(update={key: getattr(self.facts, key) for key in _not_given(RETRIEVAL, config)})

    def _compare(self, key: str, config: GenerateConfig | RetrieveConfig, facts: GenerateConfig | RunFacts) -> None:
        """Log a setting that was given and differs from the run's."""
        given, trained = getattr(config, key), getattr(facts, key)
        if key in config.model_fields_set and given != trained:
            section = "generate" if isinstance(config, GenerateConfig) else "retrieve"
            logger.warning(
                "%s.%s=%s is used, though run %s was trained with %s=%s",
                *(section, key, given, self.name, key, trained),
            )


def _not_given(keys: tuple[str, ...], config: GenerateConfig | RetrieveConfig) -> tuple[str, ...]:
    return tuple(key for key in keys if key not in config.model_fields_set)

"""A finished training run. In: its folder. Out: where its weights lie, and with what prompt and index they were trained."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from ragray.artifact.manifest import open_artifact
from ragray.config import Config, GenerateConfig
from ragray.embed.encoder import EncoderFingerprint
from ragray.errors import CorruptArtifactError, first_line

MODEL_FOLDER = "model"
GENERATOR_FOLDER = "generator"
ENCODER_FOLDER = "question_encoder"


logger = logging.getLogger("ragray")

OF_THE_RUN = ("model", "instruction", "marginalize", "temperature", "max_prompt_tokens")
"""Keys of `GenerateConfig` that a run brings along."""


class RunFacts(BaseModel):
    """What a run's manifest records beside its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generate: GenerateConfig
    """Prompt, marginalisation and temperature of training; answers of this run are made with the same."""
    k: int
    encoder: EncoderFingerprint
    """The passage encoder of the index it was trained with: it answers from no other."""
    snapshot: str
    num_steps: int
    num_examples: int
    final_loss: FiniteFloat


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
        """Return the settings that are in force with this run, and say in the log which of those given are not.

        The run brings its prompt, marginalisation, temperature and, unless ``retrieve.k`` was given, the number of passages
        that it was trained with; lengths and batch size are those of ``config``.
        """
        trained = self.facts.generate
        for key in OF_THE_RUN:
            given, used = getattr(config.generate, key), getattr(trained, key)
            if key in config.generate.model_fields_set and given != used:
                logger.warning(
                    "generate.%s=%s has no effect: run %s answers with %s, as it was trained",
                    key,
                    given,
                    self.name,
                    used,
                )
        generate = config.generate.model_copy(update={key: getattr(trained, key) for key in OF_THE_RUN})
        retrieve = config.retrieve
        if "k" not in retrieve.model_fields_set:
            retrieve = retrieve.model_copy(update={"k": self.facts.k})
        elif retrieve.k != self.facts.k:
            logger.warning(
                "retrieve.k=%d is used, though run %s was trained with k=%d", retrieve.k, self.name, self.facts.k
            )
        return config.model_copy(update={"generate": generate, "retrieve": retrieve})

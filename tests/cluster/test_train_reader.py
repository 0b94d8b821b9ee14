"""Training a reader of single passages, as far as it needs no Ray."""

from pathlib import Path

import pytest

from ragray.cluster.train import train_rag
from ragray.cluster.train_worker import WorkerSetup, make_objective
from ragray.config import Config
from ragray.errors import ConfigError
from ragray.index.search.reader import IndexReader
from ragray.train.objectives.objective import LocalSearcher
from ragray.train.objectives.reader import ReaderObjective
from ragray.types import Example

EXAMPLES = [Example("0", "what is the colour?", ("red",))]


def settings(generator: Path, strategy: str = "marginal") -> Config:
    generate = {"model": str(generator), "strategy": strategy}
    return Config.model_validate({"generate": generate, "train": {"objective": "reader"}})


def test_the_reader_trains_the_generator_and_leaves_the_encoder(tiny_decoder: Path, tiny_encoder_index: Path) -> None:
    reader = IndexReader.open(tiny_encoder_index)
    components, objective = make_objective(
        WorkerSetup(
            "", str(tiny_decoder), reader.snapshot.encoder_config, EXAMPLES, LocalSearcher(reader), settings(tiny_decoder)
        )
    )  # fmt: skip
    assert isinstance(objective, ReaderObjective)
    assert {name.partition(".")[0] for name, _ in components.trainable()} == {"generator"}


def test_prompts_of_several_passages_are_refused(tiny_decoder: Path, tiny_encoder_index: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"reads each passage alone.*set generate\.strategy=marginal"):
        train_rag(tiny_encoder_index, EXAMPLES, tmp_path / "run", settings(tiny_decoder, "together"))

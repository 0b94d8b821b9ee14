"""Which settings make another run: what `train` compares before it goes on with one. No Ray."""

import pytest

from ragray.cluster.train import _decisive
from ragray.config import load_config

TOGETHER = "generate.strategy=together"


def decisive(*overrides: str) -> object:
    return _decisive(load_config(None, overrides))


@pytest.mark.parametrize(
    "override",
    ["train.gold_share=0.1", "train.min_k=2", "train.shuffle=false", "train.cite=false", "train.unanswerable=no"],
)
def test_what_is_for_together_decides_there_alone(override: str) -> None:
    """So runs that were begun before there was such a thing go on."""
    assert decisive(override) == decisive()
    assert decisive(TOGETHER, override) != decisive(TOGETHER)


def test_the_strategy_decides() -> None:
    assert decisive(TOGETHER) != decisive()


def test_the_rate_of_the_encoder_decides_where_the_encoder_is_trained() -> None:
    assert decisive("train.encoder_lr=0") != decisive()
    assert decisive(TOGETHER, "train.encoder_lr=0") == decisive(TOGETHER)


def test_how_often_a_run_logs_and_what_will_write_its_answers_do_not_decide() -> None:
    assert decisive("train.logging_steps=1", "generate.engine=auto", "train.num_workers=2") == decisive()


def test_when_an_index_is_refreshed_decides_and_on_what_it_is_computed_does_not() -> None:
    both = "train.passage_encoder=true"
    assert decisive(both) != decisive()
    assert decisive(both, "train.refresh_steps=5") != decisive(both) != decisive(both, "train.refresh_candidates=9")
    assert decisive(both, "train.refresh_cpus=3", "train.refresh_gpus=1", "train.refresh_wait=true") == decisive(both)

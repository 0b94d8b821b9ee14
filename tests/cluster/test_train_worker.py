"""A training worker, as far as it needs no Ray."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from ragray.cluster.train_worker import WorkerSetup, make_objective, num_threads
from ragray.config import EncoderConfig, load_config
from ragray.index.search.reader import IndexReader
from ragray.train.objectives.objective import LocalSearcher
from ragray.types import Example


@dataclass(frozen=True)
class Place:
    """A worker's place, as Ray Train describes it."""

    world_size: int
    local_world_size: int

    def get_world_rank(self) -> int:
        return 0

    def get_world_size(self) -> int:
        return self.world_size

    def get_local_world_size(self) -> int:
        return self.local_world_size


@pytest.mark.parametrize(
    ("setting", "num_cpus", "place", "threads"),
    [
        (0, 16, Place(8, 2), 8),
        (0, 16, Place(1, 1), 16),
        (0, 2, Place(8, 4), 1),
        (3, 16, Place(8, 2), 3),
    ],
)
def test_the_workers_of_a_node_share_its_cpus(setting: int, num_cpus: int, place: Place, threads: int) -> None:
    assert num_threads(setting, num_cpus, place) == threads


@pytest.mark.parametrize("objective", ["rag", "perplexity"])
@pytest.mark.parametrize("apart", [False, True])
def test_the_passage_encoder_that_trains_is_the_question_encoder_where_the_index_has_one_for_both(
    objective: str, apart: bool, tiny_decoder: Path, tiny_encoder: Path, tiny_encoder_index: Path
) -> None:
    config = load_config(None, [f"train.objective={objective}", "train.passage_encoder=true", "retrieve.k=2"])
    encoder = EncoderConfig(model=str(tiny_encoder), question_model=str(tiny_encoder) if apart else "", max_length=64)
    searcher = LocalSearcher(IndexReader.open(tiny_encoder_index))
    components, made = make_objective(WorkerSetup("out", str(tiny_decoder), encoder, [], searcher, config))
    assert (components.question_encoder is components.passage_encoder) != apart
    trained = {name.partition(".")[0] for name, _ in components.trainable()}
    assert trained >= {"question_encoder", *(["passage_encoder"] if apart else [])}
    found = made.retrieve([Example("a", "who?", ("me",))]).result()
    assert found.rows_NK.shape == (1, 4)

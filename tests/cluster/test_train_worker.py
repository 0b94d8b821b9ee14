"""A training worker, as far as it needs no Ray."""

from dataclasses import dataclass

import pytest

from ragray.cluster.train_worker import num_threads


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

"""From rows and settings to an index, as a table."""

import pytest

from ragray.config import IndexConfig
from ragray.errors import ConfigError
from ragray.index.plan import MIN_POINTS_PER_LIST, plan_index


@pytest.mark.parametrize(
    ("rows", "factory", "nprobe"),
    [
        (1, "Flat", 0),
        (1_000, "Flat", 0),
        (50_000, "Flat", 0),
        (51_000, "IVF512,Flat", 64),
        (1_000_000, "IVF2048,Flat", 256),
        (100_000_000, "IVF4096,Flat", 512),
    ],
)
def test_small_segments_are_searched_exactly_and_large_ones_by_lists(rows: int, factory: str, nprobe: int) -> None:
    plan = plan_index(rows, IndexConfig())
    assert (plan.factory, plan.nprobe, plan.exact) == (factory, nprobe, factory == "Flat")
    assert f"{rows:,} rows" in plan.reason


@pytest.mark.parametrize("rows", [1, 2, 100, 1_000, 51_000, 1_000_000, 100_000_000])
def test_every_list_gets_the_training_points_that_faiss_asks_for(rows: int) -> None:
    config = IndexConfig(type="ivf")
    plan = plan_index(rows, config)
    nlist = int(plan.factory.removeprefix("IVF").removesuffix(",Flat"))
    assert nlist == 1 or nlist * MIN_POINTS_PER_LIST <= min(rows, config.train_rows)
    assert 1 <= plan.nprobe <= nlist


def test_the_border_of_exact_search_can_be_moved() -> None:
    assert plan_index(1000, IndexConfig(exact_up_to_rows=999)).factory.startswith("IVF")
    assert plan_index(1000, IndexConfig(exact_up_to_rows=1000)).exact


def test_a_type_that_is_asked_for_is_taken() -> None:
    assert plan_index(10_000_000, IndexConfig(type="flat")).exact
    assert not plan_index(1000, IndexConfig(type="ivf")).exact


def test_lists_and_probes_that_are_asked_for_are_taken() -> None:
    plan = plan_index(1000, IndexConfig(type="ivf", nlist=100, nprobe=7))
    assert (plan.factory, plan.nprobe) == ("IVF100,Flat", 7)


def test_no_more_lists_are_searched_than_there_are() -> None:
    assert plan_index(1000, IndexConfig(type="ivf", nlist=10, nprobe=100)).nprobe == 10


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (IndexConfig(type="ivf", nlist=1001), r"index\.nlist=1001 is more than the 1000 rows"),
        (IndexConfig(type="ivf", nlist=501, train_rows=500), r"nlist=501 is more than index\.train_rows=500"),
    ],
)
def test_more_lists_than_can_be_trained_are_refused(config: IndexConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_index(1000, config)

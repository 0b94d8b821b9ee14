"""From rows, dimensions and budgets to an index, as a table; what the arithmetic says of bytes is what FAISS writes."""

import faiss
import numpy as np
import pytest

from ragray.config import IndexConfig, IndexType, load_config
from ragray.errors import ConfigError, IndexBudgetError
from ragray.index.plan.choose import MIN_POINTS_PER_LIST, Budget, IndexPlan, cost, parse_budget, plan, plan_index
from ragray.index.store.search_params import SearchParams

GIB = 2**30
FINEST_FIRST = ["flat", "ivf", "ivf_sq", "ivf_rabitq", "ivf_pq"]
SIZES = [10**3, 10**5, 10**7, 10**9]


@pytest.mark.parametrize(
    ("rows", "memory", "p95", "factory", "num_segments", "num_shards"),
    [
        ("1k", "", "", "Flat", 1, 1),
        ("1k", "1MiB", "", "IVF16,SQ8", 1, 1),
        ("100k", "", "", "IVF1024,Flat", 1, 1),
        ("100k", "100MiB", "", "IVF1024,SQ8", 1, 1),
        ("100k", "20MiB", "20ms", "RR768,IVF1024,RaBitQ", 1, 1),
        ("10M", "64GiB", "500ms", "IVF2048,Flat", 10, 1),
        ("10M", "8GiB", "", "IVF2048,SQ8", 10, 1),
        ("100M", "64GiB", "20ms", "RR768,IVF8192,RaBitQ", 16, 8),
        ("1B", "1TiB", "", "IVF8192,SQ8", 91, 1),
        ("1B", "128GiB", "1s", "RR768,IVF16384,RaBitQ", 16, 1),
        ("1B", "64GiB", "20ms", "RR768,IVF16384,PQ96x4fs", 16, 16),
    ],
)
def test_a_budget_decides_the_index(
    rows: str, memory: str, p95: str, factory: str, num_segments: int, num_shards: int
) -> None:
    found = plan(parse_budget(rows, 768, memory=memory, p95=p95))
    assert (found.factory, found.num_segments, found.num_shards) == (factory, num_segments, num_shards)


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("p95_ms", [0, 5, 20, 100, 1000])
def test_more_memory_never_gives_coarser_codes_or_an_index_beyond_it(rows: int, p95_ms: float) -> None:
    rungs: list[int] = []
    for power in range(20, 48):
        try:
            found = plan(Budget(rows, 768, 2**power, p95_ms))
        except IndexBudgetError:
            assert not rungs
            continue
        assert found.memory_bytes <= 2**power
        assert not p95_ms or found.p95_ms <= p95_ms
        rungs.append(FINEST_FIRST.index(found.type))
    assert rungs == sorted(rungs, reverse=True)
    assert rungs or p95_ms


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize(
    ("memory_bytes", "p95_ms"), [(GIB // 2**12, 0), (0, 0.15), (GIB // 64, 1), (8 * GIB, 2), (80 * GIB, 20)]
)
def test_a_budget_that_nothing_fits_names_the_one_that_does(rows: int, memory_bytes: int, p95_ms: float) -> None:
    memory_gib, limit = memory_bytes / GIB, p95_ms
    for _ in range(3):
        try:
            plan(Budget(rows, 768, int(memory_gib * GIB), limit))
            return
        except IndexBudgetError as err:
            words = str(err).rstrip().split()
            if "p95 to" in str(err):
                limit = float(str(err).split("raise p95 to ")[1].split()[0])
            else:
                memory_gib = float(words[words.index("needs") + 1])
    raise AssertionError(f"{memory_gib} GiB and {limit} ms do not suffice either")


@pytest.mark.parametrize("rows", [1, 40, 1000, 51_000, 1_000_000, 10**8, 10**9])
@pytest.mark.parametrize("memory_bytes", [0, 60 * GIB])
def test_an_index_is_built_as_it_was_planned(rows: int, memory_bytes: int) -> None:
    planned = plan(Budget(rows, 384, memory_bytes, 200))
    built = plan_index(rows, 384, load_config(None, planned.settings).index)
    assert {**facts(built), "num_shards": 0} == {**facts(planned), "num_shards": 0}
    assert built.num_shards == planned.num_shards


def facts(found: IndexPlan) -> dict[str, object]:
    return {name: getattr(found, name) for name in IndexPlan.__slots__ if name not in ("choices", "settings")}


def test_a_plan_names_every_choice_with_its_reason() -> None:
    found = plan(parse_budget("100M", 768, memory="64GiB", p95="20ms", recall=0.95))
    names = [choice.name for choice in found.choices]
    assert names == [
        "type", "segments", "nlist", "nprobe", "training", "over_retrieve", "memory", "disk", "build", "shards", "p95",
    ]  # fmt: skip
    assert all(choice.value and choice.reason for choice in found.choices)
    assert found.reason == ("finer codes do not fit the memory: IVF4096,Flat needs 287 GiB, IVF8192,SQ8 needs 72.6 GiB")
    assert found.lines()[-1].startswith("build it with: index.type=ivf_rabitq index.segment_rows=6250000 ")


@pytest.mark.parametrize(
    ("type_", "rows", "dim"),
    [
        ("flat", 3000, 24), ("ivf", 20_000, 32), ("ivf_sq", 20_000, 64), ("ivf_rabitq", 9000, 96),
     ("ivf_pq", 9000, 64), ("hnsw", 3000, 48)],
)  # fmt: skip
def test_the_bytes_planned_are_those_that_faiss_writes(type_: IndexType, rows: int, dim: int) -> None:
    found = plan_index(rows, dim, IndexConfig(type=type_))
    vectors_ND = np.random.default_rng(0).normal(size=(rows, dim)).astype(np.float32)
    index = faiss.index_factory(dim, found.factory, faiss.METRIC_INNER_PRODUCT)
    if found.nlist:
        faiss.extract_index_ivf(index).cp.niter = 1
    index.train(vectors_ND[:5000])
    index.add(vectors_ND)
    assert faiss.serialize_index(index).nbytes == pytest.approx(found.memory_bytes, rel=0.08)


@pytest.mark.parametrize("dim", [1, 2, 7, 8, 12, 97, 100, 384, 768, 1000])
def test_a_product_quantizer_cuts_every_dimension_evenly(dim: int) -> None:
    parts = cost.subquantizers(dim)
    assert dim % parts == 0
    assert 1 <= parts <= max(dim // 8, 1)
    assert faiss.index_factory(dim, f"IVF4,PQ{parts}x4fs", faiss.METRIC_INNER_PRODUCT).d == dim


@pytest.mark.parametrize(
    ("rows", "factory"),
    [
        (1, "Flat"),
        (50_000, "Flat"),
        (51_000, "IVF512,Flat"),
        (1_000_000, "IVF2048,Flat"),
        (100_000_000, "IVF2048,Flat"),
    ],
)
def test_without_budgets_small_segments_are_searched_exactly_and_large_ones_by_lists(rows: int, factory: str) -> None:
    found = plan_index(rows, 384, IndexConfig())
    assert (found.factory, found.exact) == (factory, factory == "Flat")
    assert f"{found.segment_rows:,} rows" in found.reason


@pytest.mark.parametrize("rows", [1, 2, 100, 1_000, 51_000, 1_000_000, 100_000_000])
def test_every_list_gets_the_training_points_that_faiss_asks_for(rows: int) -> None:
    found = plan_index(rows, 384, IndexConfig(type="ivf"))
    assert found.nlist == 1 or found.nlist * MIN_POINTS_PER_LIST <= found.train_rows <= rows
    assert 1 <= found.search_params.nprobe <= found.nlist


def test_the_border_of_exact_search_can_be_moved() -> None:
    assert plan_index(1000, 64, IndexConfig(exact_up_to_rows=999)).factory.startswith("IVF")
    assert plan_index(1000, 64, IndexConfig(exact_up_to_rows=1000)).exact


@pytest.mark.parametrize("type_", ["flat", "ivf", "ivf_sq", "ivf_rabitq", "ivf_pq", "hnsw"])
def test_a_type_that_is_asked_for_is_taken_unless_the_memory_is_too_small(type_: IndexType) -> None:
    found = plan_index(100_000, 384, IndexConfig(type=type_, p95_ms=0.001))
    assert (found.type, found.reason) == (type_, "index.type asks for it")
    with pytest.raises(IndexBudgetError, match=r"do not fit index\.memory_gib=0\.001"):
        plan_index(100_000, 384, IndexConfig(type=type_, memory_gib=0.001))


def test_what_is_asked_for_is_taken() -> None:
    found = plan_index(1000, 64, IndexConfig(type="ivf", nlist=100, nprobe=7, over_retrieve=5))
    assert (found.factory, found.search_params) == ("IVF100,Flat", SearchParams(nprobe=7, over_retrieve=5))


def test_no_more_lists_are_searched_than_there_are() -> None:
    assert plan_index(1000, 64, IndexConfig(type="ivf", nlist=10, nprobe=100)).search_params.nprobe == 10
    assert plan_index(1000, 64, IndexConfig(type="ivf", min_recall=1)).search_params.nprobe == 16


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (IndexConfig(type="ivf", nlist=1001), r"index\.nlist=1001 is more than the 1000 rows"),
        (IndexConfig(type="ivf", nlist=501, train_rows=500), r"nlist=501 is more than index\.train_rows=500"),
    ],
)
def test_more_lists_than_can_be_trained_are_refused(config: IndexConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_index(1000, 64, config)


def test_product_codes_need_as_many_training_rows_as_they_have_values() -> None:
    with pytest.raises(ConfigError, match=r"15 rows cannot train ivf_pq, it needs 16"):
        plan_index(15, 64, IndexConfig(type="ivf_pq"))
    assert plan_index(16, 64, IndexConfig(type="ivf_pq")).type == "ivf_pq"


@pytest.mark.parametrize(
    ("rows", "memory", "p95", "budget"),
    [
        ("1k", "512MiB", "20ms", (1000, 2**29, 20)),
        ("100K", "1.5 TiB", "0.5s", (100_000, 3 * 2**39, 500)),
        ("10M", "64gib", "", (10_000_000, 2**36, 0)),
        ("1B", "", "1.5ms", (10**9, 0, 1.5)),
        ("252_303", "2GB", "", (252_303, 2 * 10**9, 0)),
        ("0.5k", "", "", (500, 0, 0)),
    ],
)
def test_budgets_are_read_with_their_units(rows: str, memory: str, p95: str, budget: tuple[int, int, float]) -> None:
    found = parse_budget(rows, 384, memory=memory, p95=p95)
    assert (found.rows, found.memory_bytes, found.p95_ms) == budget


@pytest.mark.parametrize("rows", ["", "many", "-1", "0", "1e9", "5G", "1k5", "9" * 30, "0.1", "\u0661"])
def test_rows_that_are_no_number_are_refused(rows: str) -> None:
    with pytest.raises(ConfigError, match=r"^rows .*such as 1000, 100k, 10M or 1B$"):
        parse_budget(rows, 384)


@pytest.mark.parametrize(
    ("memory", "p95"), [("64", ""), ("0GiB", ""), ("64 GiB RAM", ""), ("", "20"), ("", "0ms"), ("", "2min")]
)
def test_limits_without_a_unit_or_of_nothing_are_refused(memory: str, p95: str) -> None:
    with pytest.raises(ConfigError, match=r"^(memory|p95) '.*such as"):
        parse_budget("1k", 384, memory=memory, p95=p95)


@pytest.mark.parametrize(
    "budget",
    [
        Budget(0, 768),
        Budget(10, 0),
        Budget(10, 10**12),
        Budget(10, 8, -1),
        Budget(10, 8, min_recall=1.5),
        Budget(10, 8, min_recall=float("nan")),
    ],
)
def test_an_impossible_budget_is_refused(budget: Budget) -> None:
    with pytest.raises(ConfigError, match="expected"):
        plan(budget)

"""`inspect` tells what lies in an index, in text and in JSON, and plots what was measured."""

import json
import sys
from pathlib import Path

import pytest

from ragray.artifact.files import write_json
from ragray.errors import ArtifactError, CorruptArtifactError, MissingPackageError
from ragray.index.check.inspect import ListSizes, inspect_index
from ragray.index.check.plots import write_plots
from ragray.index.plan.tune import curve_path
from ragray.index.store.search_params import SearchParams
from tests.helpers import some_passages
from tests.index.made import copy_of, make_index

PASSAGES = some_passages(120)
PARTS = (PASSAGES[:50], PASSAGES[50:])
CURVE = [
    {
        "nprobe": nprobe,
        "over_retrieve": over,
        "ef_search": 0,
        "recall_at_10": round(1 - 0.4 / nprobe - 0.2 / over, 3),
        "ms_per_query": 0.02 * nprobe + 0.001 * over,
        "p95_ms": 0.03 * nprobe,
    }
    for nprobe in (1, 2, 4, 8)
    for over in (2, 10)
]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inspect") / "index"
    make_index(folder, PARTS, factory="IVF8,SQ8", nprobe=2, over_retrieve=10, deleted=(1, 2, 60))
    write_json(curve_path(folder, "000001-test"), CURVE)
    return folder


def test_segments_are_told_with_rows_bytes_lists_and_postings(index: Path) -> None:
    found = inspect_index(index)
    assert [(segment.num_rows, segment.num_live) for segment in found.segments] == [(50, 48), (70, 69)]
    for segment in found.segments:
        assert (segment.faiss_type, segment.nlist) == ("IndexIVFScalarQuantizer", 8)
        assert segment.lists is not None and sum(segment.lists.sizes) == segment.num_rows
        assert segment.lists.smallest <= segment.lists.median <= segment.lists.largest
        assert segment.num_bytes == {
            name: (index / "segments" / segment.name / name).stat().st_size for name in segment.num_bytes
        }
        assert segment.num_terms > 0 and segment.num_postings >= segment.num_rows
    total = sum(sum(segment.num_bytes.values()) for segment in found.segments)
    assert found.disk_bytes_per_vector == pytest.approx(total / 117)
    assert (found.num_rows, found.num_live) == (120, 117)
    assert found.search_params == SearchParams(nprobe=2, over_retrieve=10)


def test_imbalance_is_one_where_all_lists_are_equal_and_nlist_where_one_holds_all(tmp_path: Path) -> None:
    same = make_index(tmp_path / "index", [[PASSAGES[0]] * 40], factory="IVF1,Flat", nprobe=1, lexical="none")
    assert inspect_index(same).segments[0].lists == ListSizes((40,), 40, 40.0, 40, 1.0)


def test_text_and_json_say_the_same(index: Path) -> None:
    found = inspect_index(index)
    text = "\n".join(found.lines())
    for part in (
        "000001-test (current)",
        "117 live, 3 deleted, 2 segment(s)",
        "IVF8,SQ8, nprobe 2, over_retrieve 10",
        "8 lists",
    ):
        assert part in text
    raw = json.loads(json.dumps(found.as_json()))
    assert raw["segments"][0]["lists"].keys() == {"smallest", "median", "largest", "imbalance"}
    assert raw["tuning"][0]["nprobe"] == 1 and raw["snapshots"] == ["000001-test"]


def test_an_exact_index_has_no_lists_and_nothing_to_plot(tmp_path: Path) -> None:
    found = inspect_index(make_index(tmp_path / "index", PARTS, lexical="none"))
    assert [(segment.nlist, segment.lists, segment.num_terms) for segment in found.segments] == [(0, None, 0)] * 2
    assert "recall@10 exact" in "\n".join(found.lines())
    assert write_plots(found, tmp_path / "plots") == []


def test_plots_are_png_files(index: Path, tmp_path: Path) -> None:
    paths = write_plots(inspect_index(index), tmp_path / "plots")
    assert [path.name for path in paths] == ["list-sizes.png", "recall-latency.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_without_matplotlib_the_plots_name_the_pip_line(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'ragray\[plots\]'"):
        write_plots(inspect_index(index), tmp_path)


def test_damage_is_named(index: Path, tmp_path: Path) -> None:
    broken = copy_of(index, tmp_path / "index")
    curve_path(broken, "000001-test").write_text("[{}]")
    with pytest.raises(CorruptArtifactError, match="no list of measurements"):
        inspect_index(broken)
    curve_path(broken, "000001-test").unlink()
    (broken / "segments/000001-test-1/index.faiss").write_bytes(b"IxFI")
    with pytest.raises(CorruptArtifactError, match=r"index\.faiss: 4 bytes"):
        inspect_index(broken)
    with pytest.raises(ArtifactError, match="has no snapshot 'x'"):
        inspect_index(broken, snapshot="x")

"""`verify` finds each kind of damage, also where the checksums were made to match; nothing answers from what it can see is corrupt."""

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pytest

from ragray.artifact.digest import fingerprint
from ragray.embed.encoder import HashEncoder
from ragray.errors import CorruptArtifactError, EncoderMismatchError, NotAnArtifactError, RagrayError
from ragray.index.check.ids import IdKeys
from ragray.index.check.verify import VerifyReport, verify_index
from ragray.index.check.verify_faiss import faiss_faults
from ragray.index.search.reader import IndexReader
from ragray.index.store.columns import COLUMNS_FILE, ColumnsWriter
from ragray.index.store.segment import FAISS_FILE, PASSAGES_FILE, VECTORS_FILE
from ragray.index.store.snapshot import CHECKSUM, CURRENT, SEGMENTS, SNAPSHOTS
from ragray.index.store.tombstones import TOMBSTONES
from ragray.retrieve.retriever import LocalRetriever
from tests.helpers import some_passages
from tests.index.made import DIM, copy_of, make_index, publish_again, vectors_of

ROWS = 60
PASSAGES = some_passages(2 * ROWS)
PARTS = (PASSAGES[:ROWS], PASSAGES[ROWS:])
ENCODER = HashEncoder(DIM)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two segments of 60 rows, rows 3 and 70 deleted; an older snapshot of the first part lies beneath."""
    folder = tmp_path_factory.mktemp("sound") / "index"
    make_index(folder, PARTS[:1], name="000001-older")
    return make_index(folder, PARTS, name="000002-newer", deleted=(3, 70))


@pytest.fixture
def index(sound: Path, tmp_path: Path) -> Path:
    return copy_of(sound, tmp_path / "index")


def segment(index: Path, number: int = 0) -> Path:
    return index / SEGMENTS / f"000002-newer-{number}"


def change_snapshot(index: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Change a snapshot's file, and its checksum with it."""
    path = index / SNAPSHOTS / "000002-newer.json"
    raw = json.loads(path.read_text())
    raw.pop(CHECKSUM, None)
    change(raw)
    path.write_text(json.dumps(raw | {CHECKSUM: fingerprint(raw)}))


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0x60
    path.write_bytes(content)


def swap_passages(folder: Path) -> None:
    table = pa.ipc.open_stream(folder.joinpath(PASSAGES_FILE).read_bytes()).read_all()
    order = list(range(len(table)))
    order[5], order[9] = 9, 5
    with pa.OSFile(str(folder / PASSAGES_FILE), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.take(order))


def change_text(folder: Path) -> None:
    """Another word of the same length: only the content hash, the postings and the vector still know."""
    content = folder.joinpath(PASSAGES_FILE).read_bytes()
    text = PASSAGES[5].text.encode()
    assert content.count(text) == 1
    folder.joinpath(PASSAGES_FILE).write_bytes(content.replace(text, b"zz" + text[2:]))


def other_dimension(folder: Path) -> None:
    np.save(folder / VECTORS_FILE, np.zeros((ROWS, DIM // 2), dtype=np.float16))


def other_metric(folder: Path) -> None:
    index = faiss.IndexFlatL2(DIM)
    index.add(np.load(folder / VECTORS_FILE).astype(np.float32))
    faiss.write_index(index, str(folder / FAISS_FILE))


def faiss_of_another_segment(folder: Path) -> None:
    (folder / FAISS_FILE).write_bytes((folder.parent / "000002-newer-1" / FAISS_FILE).read_bytes())


def not_a_number(folder: Path) -> None:
    vectors = np.load(folder / VECTORS_FILE)
    vectors[7, 3] = np.nan
    np.save(folder / VECTORS_FILE, vectors)


def change_columns(folder: Path, part: str, change: Callable[[list[object]], list[object]]) -> None:
    """Change a part of the one field, `n`, that the passages have."""
    table = pa.ipc.open_stream(folder.joinpath(COLUMNS_FILE).read_bytes()).read_all()
    place, field = table.schema.get_field_index(part), table.schema.field(part)
    planted = pa.array([change(table[part][0].as_py())] if len(field.name) else [], field.type)
    with pa.OSFile(str(folder / COLUMNS_FILE), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.set_column(place, field, planted))


def columns_of_fewer_rows(folder: Path) -> None:
    writer = ColumnsWriter()
    writer.add(pa.ipc.open_stream(folder.joinpath(PASSAGES_FILE).read_bytes()).read_all()["metadata"][:-1].chunks)
    writer.write(folder / COLUMNS_FILE)


def columns_without_fields(folder: Path) -> None:
    writer = ColumnsWriter()
    writer.add(
        [
            pa.array(
                [[]] * ROWS,
                pa.ipc.open_stream(folder.joinpath(PASSAGES_FILE).read_bytes()).schema.field("metadata").type,
            )
        ]
    )
    writer.write(folder / COLUMNS_FILE)


IN_SEGMENT: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "truncated FAISS file": (
        lambda folder: os.truncate(folder / FAISS_FILE, folder.joinpath(FAISS_FILE).stat().st_size - 999),
        FAISS_FILE,
        "",
    ),
    "swapped passages": (
        swap_passages,
        "lexical",
        "postings of 2 of 60 passages are not those of their text, .* row 5",
    ),
    "changed text": (change_text, PASSAGES_FILE, "1 passages have a text .* row 5 "),
    "wrong dimension": (other_dimension, VECTORS_FILE, r"shape \(60, 32\), the snapshot says float16 of \(60, 64\)"),
    "flipped byte of a vector": (
        lambda folder: flip(folder / VECTORS_FILE, 128 + 2 * DIM * 8 + 1),
        VECTORS_FILE,
        "1 vectors are not of length one, .* row 8",
    ),
    "not a number": (not_a_number, VECTORS_FILE, "1 vectors are not finite, the first is row 7"),
    "FAISS file of another segment": (
        faiss_of_another_segment,
        FAISS_FILE,
        "60 of 60 rows have another vector than in vectors.npy",
    ),
    "another metric": (other_metric, FAISS_FILE, "measures L2"),
    "flipped byte of the posting rows": (lambda folder: flip(folder / "lexical/rows.npy", 140), "lexical", ""),
    "flipped byte of the posting counts": (
        lambda folder: flip(folder / "lexical/counts.npy", 140),
        "lexical",
        "postings of 1 of 60 passages",
    ),
    "flipped byte of the terms": (lambda folder: flip(folder / "lexical/terms.npy", 128 + 8 * 20), "lexical", ""),
    "flipped byte of the lengths": (
        lambda folder: flip(folder / "lexical/lengths.npy", 128 + 4 * 20),
        "lexical",
        "postings of 1 of 60 passages are not those of their text, the first is row 20",
    ),
    "metadata columns cut short": (
        lambda folder: os.truncate(folder / COLUMNS_FILE, folder.joinpath(COLUMNS_FILE).stat().st_size // 2),
        COLUMNS_FILE,
        "cannot be read",
    ),
    "metadata columns of fewer rows": (columns_of_fewer_rows, COLUMNS_FILE, "metadata of 59 rows, .* says 60"),
    "metadata columns without a field": (
        columns_without_fields,
        COLUMNS_FILE,
        "names 0 fields, the passages have 1; .* 'n'",
    ),
    "a row of the metadata out of range": (
        lambda folder: change_columns(folder, "rows", lambda rows: [*rows[:-1], ROWS]),
        COLUMNS_FILE,
        "field 'n' names row 60 of 60",
    ),
    "another row of a metadata value": (
        lambda folder: change_columns(folder, "rows", lambda rows: [rows[0], 2, *rows[2:]]),
        COLUMNS_FILE,
        "field 'n' has other values than the passages, the first in row 2",
    ),
    "another text of a metadata value": (
        lambda folder: change_columns(folder, "texts", lambda texts: [*texts[:4], "10", *texts[5:]]),
        COLUMNS_FILE,
        "field 'n' has numbers or instants that are not those of its texts",
    ),
    "a code of the metadata out of range": (
        lambda folder: change_columns(folder, "codes8", lambda _: [ROWS] * (ROWS // 2)),
        COLUMNS_FILE,
        "field 'n' names text 60 of 30",
    ),
}


def found(report: VerifyReport) -> list[str]:
    return [f"{problem.where}: {problem.what}" for problem in report.problems]


def test_a_sound_index_is_whole_and_every_check_says_how_much_it_looked_at(sound: Path) -> None:
    report = verify_index(sound, encoder=ENCODER, sample=40)
    assert found(report) == [] and report.whole
    checked = {check.name: check.num_checked for check in report.checks}
    assert checked["FAISS against vectors"] == checked["postings against texts"] == 2 * ROWS
    assert (checked["ids"], checked["tombstones"], checked["texts encoded again"]) == (2 * ROWS - 2, 2, 40)
    assert report.lines()[-1] == "snapshot 000002-newer: whole"


@pytest.mark.parametrize("damage", IN_SEGMENT)
def test_a_damaged_file_is_found_by_its_checksum_and_nothing_is_answered_from_it(index: Path, damage: str) -> None:
    IN_SEGMENT[damage][0](segment(index))
    problems = verify_index(index).problems
    assert all(str(segment(index)) in problem.where for problem in problems) and len(problems) == 1
    assert "ragray index promote" in problems[0].mend and "000001-older" in problems[0].mend
    with pytest.raises(CorruptArtifactError):
        IndexReader.open(index)
    with pytest.raises(CorruptArtifactError):
        LocalRetriever.open(index, ENCODER)


@pytest.mark.parametrize("damage", IN_SEGMENT)
def test_a_damaged_file_is_found_by_its_content_where_the_checksum_was_made_to_match(index: Path, damage: str) -> None:
    harm, where, what = IN_SEGMENT[damage]
    harm(segment(index))
    publish_again(segment(index))
    problems = [problem for problem in verify_index(index).problems if where in problem.where]
    assert problems
    assert any(pa.compute.match_substring_regex([problem.what], what)[0].as_py() for problem in problems)


QUANTISED = ["SQ8", "IVF4,SQ8", "IVF4,PQ16x4fs", "RR64,IVF4,SQ8", "RR64,IVF4,PQ16x4fs", "IVF4,RaBitQ"]


@pytest.mark.parametrize("factory", [*QUANTISED, "IVF4,Flat", "HNSW8"])
def test_every_type_is_compared_with_the_vectors(tmp_path: Path, factory: str) -> None:
    nprobe = 2 if "IVF" in factory else 0
    index = make_index(tmp_path / "index", PARTS, name="000002-newer", factory=factory, nprobe=nprobe, lexical="none")
    assert found(verify_index(index)) == []
    faiss_of_another_segment(segment(index))
    publish_again(segment(index))
    assert any("another vector" in line or "another list" in line for line in found(verify_index(index)))


def added(factory: str, vectors_ND: np.ndarray) -> faiss.Index:
    """An index over vectors unlike those that it was trained on, as a sync makes it."""
    index = faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors_of(some_passages(300)).astype(np.float32))
    index.add(vectors_ND.astype(np.float32))
    return index


@pytest.mark.parametrize("factory", QUANTISED)
@pytest.mark.parametrize("size", [1, 2, 5, 19, 60, 300])
def test_rows_unlike_those_trained_on_are_whole_and_one_wrong_row_among_few_is_found(factory: str, size: int) -> None:
    unlike_ND = np.random.default_rng(size).normal(size=(size, DIM)) * np.linspace(0, 3, DIM) + 1
    vectors_ND = (unlike_ND / np.linalg.norm(unlike_ND, axis=1, keepdims=True)).astype(np.float16)
    vectors_ND[size // 2 : size // 2 + 3] = vectors_ND[0]  # equal codes hide each other from a search of few results
    vectors_ND[size - 1] = 0 if size > 5 else vectors_ND[size - 1]
    rows_S = np.arange(size)
    assert [*faiss_faults(added(factory, vectors_ND), vectors_ND, rows_S)] == []
    other_ND = vectors_ND.copy()
    other_ND[: 1 + size // 19] = -vectors_ND[0]
    faults = [*faiss_faults(added(factory, other_ND), vectors_ND, rows_S)]
    assert any("another vector" in fault for fault in faults)


def test_a_truncated_ivf_is_found_where_the_checksum_was_made_to_match(tmp_path: Path) -> None:
    index = make_index(tmp_path / "index", PARTS, name="000002-newer", factory="IVF4,SQ8", nprobe=2, lexical="none")
    path = segment(index) / FAISS_FILE
    os.truncate(path, path.stat().st_size - 700)
    publish_again(segment(index))
    assert len(found(verify_index(index))) == 1


def test_a_row_that_no_list_or_two_lists_hold_is_found(tmp_path: Path) -> None:
    index = make_index(tmp_path / "index", PARTS, name="000002-newer", factory="IVF4,Flat", nprobe=4)
    path = str(segment(index) / FAISS_FILE)
    ivf = faiss.read_index(path)
    ivf.remove_ids(np.array([11]))
    ivf.ntotal = ROWS
    faiss.write_index(ivf, path)
    publish_again(segment(index))
    assert [line.rpartition(": ")[2] for line in found(verify_index(index))] == [
        "1 rows are in no list, the first is 11"
    ]


def test_a_missing_segment_is_found_and_the_other_one_is_still_looked_into(index: Path) -> None:
    flip(segment(index, 1) / VECTORS_FILE, 300)
    (segment(index) / "manifest.json").unlink()
    lines = found(verify_index(index))
    assert len(lines) == 2
    assert "no segment here" in lines[0] and "content differs" in lines[1]
    with pytest.raises(NotAnArtifactError):
        IndexReader.open(index)


def test_a_tombstone_out_of_range_is_found(index: Path) -> None:
    (name,) = {
        ref["tombstones"] for ref in json.loads((index / SNAPSHOTS / "000002-newer.json").read_text())["segments"][:1]
    }
    np.save(index / TOMBSTONES / name, np.array([ROWS], dtype=np.int64))
    assert "does not match its name" in found(verify_index(index))[0]
    from ragray.index.store.tombstones import _digest

    right = f"{_digest(np.array([ROWS], dtype=np.int64))}.npy"
    (index / TOMBSTONES / name).rename(index / TOMBSTONES / right)
    change_snapshot(index, lambda raw: raw["segments"][0].update(tombstones=right))  # type: ignore[index] # raw JSON
    assert "names row 60" in found(verify_index(index))[0]
    with pytest.raises(CorruptArtifactError, match="names row 60"):
        IndexReader.open(index)


@pytest.mark.parametrize("content", ["000009-nothing\n", "", "\x00", "../../etc"])
def test_a_current_that_names_nothing_is_found_and_the_newest_snapshot_is_verified_instead(
    index: Path, content: str
) -> None:
    (index / CURRENT).write_text(content)
    report = verify_index(index)
    assert report.snapshot == "000002-newer" and len(report.problems) == 1
    assert report.problems[0].mend == f"run: ragray index promote {index} 000002-newer"
    with pytest.raises(RagrayError):
        IndexReader.open(index)


def test_a_lost_current_is_found_and_its_mending_is_told(index: Path) -> None:
    (index / CURRENT).unlink()
    (problem,) = verify_index(index).problems
    assert problem.mend == f"write 000002-newer into {index / CURRENT}"


def test_a_snapshot_file_that_cannot_be_read_is_found_and_an_older_one_verified(index: Path) -> None:
    flip(index / SNAPSHOTS / "000002-newer.json", 40)
    report = verify_index(index)
    assert report.snapshot == "000001-older" and len(report.problems) == 1
    assert report.problems[0].where.endswith("000002-newer.json")


def test_an_index_without_any_snapshot_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotAnArtifactError):
        verify_index(tmp_path)
    with pytest.raises(NotAnArtifactError, match="has no snapshot 'x'"):
        verify_index(make_index(tmp_path / "index", PARTS), snapshot="x")


def test_a_snapshot_of_a_wrong_number_of_rows_is_found_in_all_parts(index: Path) -> None:
    change_snapshot(index, lambda raw: raw["segments"][1].update(num_rows=ROWS - 1))  # type: ignore[index] # raw JSON
    lines = found(verify_index(index))
    assert len(lines) == 5 and all("000002-newer-1" in line for line in lines)
    with pytest.raises(CorruptArtifactError, match="the snapshot says 59"):
        IndexReader.open(index)


def test_a_snapshot_that_contradicts_itself_is_found(index: Path) -> None:
    change_snapshot(index, lambda raw: raw.update(dim=32, metric="l2", segments=[raw["segments"][0]] * 2))  # type: ignore[index] # raw JSON
    lines = "\n".join(found(verify_index(index)))
    assert "has 32 dimensions, its encoder 64" in lines
    assert "names the metric 'l2'" in lines
    assert "names a segment twice" in lines


def test_an_id_that_is_live_in_two_segments_is_found_but_not_one_whose_other_row_is_deleted(tmp_path: Path) -> None:
    twice = [*PARTS[1][:-2], PASSAGES[3], PASSAGES[7]]
    index = make_index(tmp_path / "index", (PARTS[0], twice), deleted=(3,))
    (line,) = found(verify_index(index))
    assert "row 59 of segment 000001-test-1 is live and has the id of row 7 of segment 000001-test-0" in line


def test_many_doubled_ids_are_counted_rather_than_listed(tmp_path: Path) -> None:
    lines = found(verify_index(make_index(tmp_path / "index", (PARTS[0], PARTS[0]))))
    assert len(lines) == 21 and "40 further live rows" in lines[-1]


def test_a_lexical_part_that_the_snapshot_promises_and_the_segment_lacks_is_found(tmp_path: Path) -> None:
    index = make_index(tmp_path / "index", PARTS, name="000002-newer", lexical="none")
    change_snapshot(index, lambda raw: raw.update(lexical="plain"))
    assert len([line for line in found(verify_index(index)) if "lexical" in line]) == 2


def test_the_encoder_finds_vectors_of_other_texts_even_in_a_consistent_index(index: Path) -> None:
    swap_passages(segment(index))
    publish_again(segment(index))
    lines = found(verify_index(index, encoder=ENCODER, sample=2 * ROWS))
    assert any("2 of 59 passages get another vector from the encoder now, the first is row 5" in line for line in lines)


def test_another_encoder_is_refused(sound: Path) -> None:
    with pytest.raises(EncoderMismatchError):
        verify_index(sound, encoder=HashEncoder(32), sample=5)


def test_all_problems_are_reported_at_once(index: Path) -> None:
    (index / CURRENT).write_text("000009-nothing\n")
    flip(segment(index) / VECTORS_FILE, 300)
    os.truncate(segment(index, 1) / FAISS_FILE, 100)
    (index / TOMBSTONES).rename(index / "elsewhere")
    assert len(found(verify_index(index))) == 5


def test_doubled_ids_name_neighbouring_rows_in_the_order_of_the_later_one() -> None:
    keys = IdKeys()
    assert keys.duplicates() == []
    keys.add(["a", "b", "c"], np.arange(3))
    keys.add([], np.arange(0))
    keys.add(["b", "d", "a", "b"], np.arange(10, 14))
    assert keys.duplicates() == [(1, 10), (0, 12), (10, 13)]
    assert (len(keys), keys.num_distinct(), IdKeys().num_distinct()) == (7, 4, 0)


def test_ids_need_little_more_memory_to_be_compared_than_to_be_kept() -> None:
    keys, count = IdKeys(), 200_000
    tracemalloc.start()
    for start in range(0, count, 2000):
        keys.add([f"p{n}" for n in range(start, start + 2000)], np.arange(start, start + 2000))
    tracemalloc.reset_peak()
    assert keys.duplicates() == [] and keys.num_distinct() == count
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 36 * count

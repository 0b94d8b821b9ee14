"""A segment keeps vectors, FAISS index and passages in step, and whatever damage befalls it is found when it is opened."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import faiss
import numpy as np
import pyarrow as pa
import pytest

from ragray.artifact.manifest import publish, read_manifest, unpublish
from ragray.corpus.table import PASSAGE_SCHEMA, passages_to_table
from ragray.embed.encoder import HashEncoder
from ragray.embed.passage_text import passage_text
from ragray.errors import ArtifactError, CorruptArtifactError, NotAnArtifactError
from ragray.index.store.columns import COLUMNS_FILE
from ragray.index.store.postings import DTYPES, LEXICAL, LexicalWriter
from ragray.index.store.segment import FAISS_FILE, PASSAGES_FILE, VECTORS_FILE, Segment, write_segment
from ragray.types import Passage
from tests.helpers import some_passages

ROWS, DIM = 20, 32
PASSAGES = some_passages(ROWS)


def vectors_of(passages: list[Passage]) -> np.ndarray:
    return HashEncoder(DIM).encode([passage.text for passage in passages]).astype(np.float16)


def write(
    folder: Path, passages: list[Passage] = PASSAGES, index: faiss.Index | None = None, lexical: str = "none"
) -> Path:
    blocks = [
        (passages_to_table(part), vectors_of(part)) for part in (passages[start : start + 7] for start in (0, 7, 14))
    ]
    write_segment(folder, blocks, num_rows=ROWS, empty_index=index or faiss.IndexFlatIP(DIM), lexical=lexical)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "segment")


def reopened(folder: Path) -> Segment:
    return Segment.open(folder, num_rows=ROWS, dim=DIM)


def publish_again(folder: Path) -> None:
    """Let the manifest agree with the files, so that only a look into them can find what is wrong."""
    files = [folder / name for name in (FAISS_FILE, VECTORS_FILE, PASSAGES_FILE, COLUMNS_FILE)]
    publish(folder, kind="segment", fingerprint="f", facts={}, files=files)


def test_row_faiss_id_and_passage_row_are_one(folder: Path) -> None:
    segment = reopened(folder)
    assert segment.read(range(ROWS)) == PASSAGES
    np.testing.assert_array_equal(segment.vectors_ND, vectors_of(PASSAGES))
    for row in range(ROWS):
        np.testing.assert_array_equal(segment.index.reconstruct(row), segment.vectors_ND[row].astype(np.float32))


def test_rows_are_read_in_the_order_asked_for(folder: Path) -> None:
    segment = reopened(folder)
    assert [passage.id for passage in segment.read([9, 0, 9])] == ["p9", "p0", "p9"]
    assert segment.passage(3) == PASSAGES[3]
    assert segment.read([]) == []


def test_vectors_stay_on_disk(folder: Path) -> None:
    assert isinstance(reopened(folder).vectors_ND, np.memmap)


def test_reading_a_passage_does_not_bring_the_others_into_memory(tmp_path: Path) -> None:
    passages = [Passage(f"p{n}", f"{n} " * 10_000) for n in range(ROWS)]
    segment = reopened(write(tmp_path / "segment", passages))
    default = pa.default_memory_pool()
    counting = pa.proxy_memory_pool(default)
    pa.set_memory_pool(counting)
    try:
        assert segment.read([19, 0]) == [passages[19], passages[0]]
    finally:
        pa.set_memory_pool(default)
    assert counting.max_memory() < 100_000


def test_its_passages_are_a_dataset_of_the_datasets_library(folder: Path) -> None:
    dataset = datasets.Dataset.from_file(str(folder / PASSAGES_FILE))
    assert dataset.column_names == PASSAGE_SCHEMA.names
    assert dataset["text"][:] == [passage.text for passage in PASSAGES]


def test_an_ivf_segment_adds_its_rows_to_the_lists_that_were_trained_before(tmp_path: Path) -> None:
    trained = faiss.index_factory(DIM, "IVF2,Flat", faiss.METRIC_INNER_PRODUCT)
    trained.cp.min_points_per_centroid = 1
    trained.train(vectors_of(PASSAGES).astype(np.float32))
    segment = reopened(write(tmp_path / "segment", index=trained))
    lists = segment.index.invlists
    ids = [faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number)).tolist() for number in range(2)]
    assert sorted(ids[0] + ids[1]) == list(range(ROWS))


def test_other_rows_than_announced_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    blocks = [(passages_to_table(PASSAGES[:3]), vectors_of(PASSAGES[:3]))]
    with pytest.raises(CorruptArtifactError, match="3 rows came where 4 were announced"):
        write_segment(tmp_path / "segment", blocks, num_rows=4, empty_index=faiss.IndexFlatIP(DIM))
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    def blocks() -> Iterator[tuple[pa.Table, np.ndarray]]:
        yield passages_to_table(PASSAGES[:3]), vectors_of(PASSAGES[:3])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_segment(tmp_path / "segment", blocks(), num_rows=ROWS, empty_index=faiss.IndexFlatIP(DIM))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_manifest_is_no_segment(folder: Path) -> None:
    unpublish(folder)
    with pytest.raises(NotAnArtifactError):
        reopened(folder)


@pytest.mark.parametrize("name", [FAISS_FILE, VECTORS_FILE, PASSAGES_FILE, COLUMNS_FILE])
@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
def test_a_damaged_file_is_found_and_named(folder: Path, name: str, damage: str) -> None:
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(
            content[:-5] if damage == "truncated" else content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]
        )
    with pytest.raises(CorruptArtifactError, match=name):
        reopened(folder)


@pytest.mark.parametrize("name", [FAISS_FILE, VECTORS_FILE, PASSAGES_FILE, COLUMNS_FILE])
def test_a_file_cut_short_is_found_even_if_its_size_was_recorded_so(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    publish_again(folder)
    with pytest.raises(CorruptArtifactError, match="build the index again"):
        reopened(folder)


def test_a_segment_of_an_earlier_version_has_no_columns_and_opens(folder: Path) -> None:
    assert reopened(folder).columns is not None
    keys = reopened(folder).metadata_keys
    (folder / COLUMNS_FILE).unlink()
    files = [folder / name for name in (FAISS_FILE, VECTORS_FILE, PASSAGES_FILE)]
    publish(folder, kind="segment", fingerprint="f", facts={}, files=files)
    assert reopened(folder).columns is None
    assert reopened(folder).metadata_keys == keys == {"n"}


def test_the_passages_of_another_segment_are_found(folder: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", some_passages(ROWS + 1)[1:])
    shutil.copy(other / PASSAGES_FILE, folder / PASSAGES_FILE)
    with pytest.raises(CorruptArtifactError, match=PASSAGES_FILE):
        reopened(folder)


def of_other_dimension(folder: Path) -> None:
    np.save(folder / VECTORS_FILE, np.zeros((ROWS, DIM + 1), dtype=np.float16))


def of_single_bytes(folder: Path) -> None:
    np.save(folder / VECTORS_FILE, np.zeros((ROWS, DIM), dtype=np.int8))


def column_after_column(folder: Path) -> None:
    np.save(folder / VECTORS_FILE, np.zeros((ROWS, DIM), dtype=np.float16, order="F"))


def of_fewer_rows(folder: Path) -> None:
    index = faiss.IndexFlatIP(DIM)
    index.add(np.zeros((ROWS - 1, DIM), dtype=np.float32))
    faiss.write_index(index, str(folder / FAISS_FILE))


def of_l2_metric(folder: Path) -> None:
    index = faiss.IndexFlatL2(DIM)
    index.add(np.zeros((ROWS, DIM), dtype=np.float32))
    faiss.write_index(index, str(folder / FAISS_FILE))


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (of_other_dimension, "vectors hold 20 rows of 33 dimensions, the snapshot says 20 of 32"),
        (of_single_bytes, "vectors are int8, expected float16 row after row"),
        (column_after_column, "vectors are float16, expected float16 row after row"),
        (of_fewer_rows, "FAISS hold 19 rows"),
        (of_l2_metric, "measures L2, not inner product"),
    ],
)
def test_parts_that_disagree_are_found_though_the_manifest_agrees(
    folder: Path, plant: Callable[[Path], None], message: str
) -> None:
    plant(folder)
    publish_again(folder)
    with pytest.raises(CorruptArtifactError, match=message):
        reopened(folder)


@pytest.mark.parametrize(("rows", "dim"), [(ROWS + 1, DIM), (ROWS, DIM + 1)])
def test_a_segment_other_than_the_snapshot_says_is_refused(folder: Path, rows: int, dim: int) -> None:
    with pytest.raises(ArtifactError, match=f"the snapshot says {rows} of {dim}"):
        Segment.open(folder, num_rows=rows, dim=dim)


@pytest.mark.parametrize("analyzer", ["english", "plain"])
def test_its_lexical_part_holds_the_terms_of_title_and_text_of_every_row(tmp_path: Path, analyzer: str) -> None:
    folder = write(tmp_path / "segment", lexical=analyzer)
    writer = LexicalWriter(analyzer)
    writer.add([passage_text(passage) for passage in PASSAGES])
    alone = writer.write(tmp_path / "alone")
    assert {path.stem for path in alone} == set(DTYPES)
    for path in alone:
        assert (folder / LEXICAL / path.name).read_bytes() == path.read_bytes()
    reopened(folder)


def test_the_manifest_covers_the_lexical_part(tmp_path: Path) -> None:
    folder = write(tmp_path / "segment", lexical="english")
    listed = {entry.path for entry in read_manifest(folder, "segment").files}
    assert {f"{LEXICAL}/{name}.npy" for name in DTYPES} < listed
    assert listed == {
        path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.name != "manifest.json"
    }
    for name in DTYPES:
        damaged = tmp_path / name
        shutil.copytree(folder, damaged)
        path = damaged / LEXICAL / f"{name}.npy"
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        with pytest.raises(CorruptArtifactError, match=f"{name}.npy"):
            reopened(damaged)


def test_without_an_analyzer_there_is_no_lexical_part(folder: Path) -> None:
    assert not (folder / LEXICAL).exists()

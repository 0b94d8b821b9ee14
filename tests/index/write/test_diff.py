"""What a new corpus changes: every passage is kept, embedded, served by a vector that is there, or dead; nothing else."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ragray.config import IndexConfig
from ragray.corpus.table import Corpus
from ragray.errors import CorruptArtifactError
from ragray.index.search.reader import IndexReader
from ragray.index.store.snapshot import read_snapshot
from ragray.index.write.diff import DELTA_CORPUS, Comparison, Delta, reused_blocks, write_delta
from ragray.types import Passage
from tests.helpers import index_of, some_passages, write_corpus

PASSAGES = some_passages(20)
DEAD = (4, 15)
"""Rows that the index hides."""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return index_of(tmp_path_factory.mktemp("diff"), PASSAGES, IndexConfig(segment_rows=7), deleted=DEAD)


def live(*changes: Passage, without: Sequence[str] = ()) -> list[Passage]:
    """The passages of the index, some of them changed or taken away, and new ones at the end."""
    changed = {passage.id: passage for passage in changes}
    kept = [passage for row, passage in enumerate(PASSAGES) if row not in DEAD and passage.id not in without]
    known = {passage.id for passage in kept}
    return [changed.get(p.id, p) for p in kept] + [p for p in changes if p.id not in known]


def delta(index: Path, folder: Path, passages: Sequence[Passage]) -> Delta:
    corpus = Corpus.open(write_corpus(folder / "new", passages, shard_rows=6))
    return write_delta(index, read_snapshot(index), corpus, folder / "work")


def to_embed(folder: Path) -> list[Passage]:
    return list(Corpus.open(folder / "work" / DELTA_CORPUS).iter_passages())


def counts(found: Delta) -> tuple[int, int, int, int, int]:
    return found.added, found.changed, found.deleted, found.unchanged, found.num_embed


def test_the_same_corpus_changes_nothing_whatever_its_order(index: Path, tmp_path: Path) -> None:
    for number, passages in enumerate((live(), live()[::-1])):
        found = delta(index, tmp_path / str(number), passages)
        assert counts(found) == (0, 0, 0, 18, 0)
        assert len(found.reused_rows) == len(found.dead_rows) == 0
        assert (found.added, found.changed, found.deleted) == (0, 0, 0)


def test_added_changed_and_deleted_passages_are_told_apart(index: Path, tmp_path: Path) -> None:
    new, other = Passage("new", "quite another text"), replace(PASSAGES[6], text="a changed text")
    found = delta(index, tmp_path, live(new, other, without=["p2", "p19"]))
    assert counts(found) == (1, 1, 2, 15, 2)
    assert to_embed(tmp_path) == [other, new]
    assert found.dead_rows.tolist() == [2, 6, 19]
    assert found.added + found.changed + found.deleted


@pytest.mark.parametrize(
    "changed",
    [
        replace(PASSAGES[7], text=PASSAGES[7].text.upper()),
        replace(PASSAGES[7], text=PASSAGES[7].text.replace(" ", "  ")),
        replace(PASSAGES[7], title="another"),
        replace(PASSAGES[7], title=PASSAGES[7].text[:3], text=PASSAGES[7].text[3:]),
    ],
)
def test_a_text_counts_to_the_letter(index: Path, tmp_path: Path, changed: Passage) -> None:
    assert counts(delta(index, tmp_path, live(changed))) == (0, 1, 0, 17, 1)
    assert to_embed(tmp_path) == [changed]


@pytest.mark.parametrize(
    "changed",
    [
        replace(PASSAGES[9], metadata={"n": "9", "lang": "en"}),
        replace(PASSAGES[9], metadata={}),
        replace(PASSAGES[9], document_id="other"),
    ],
)
def test_other_metadata_make_a_new_row_with_the_old_vector(index: Path, tmp_path: Path, changed: Passage) -> None:
    found = delta(index, tmp_path, live(changed))
    assert counts(found) == (0, 1, 0, 17, 0)
    assert (found.reused_rows.tolist(), found.dead_rows.tolist()) == ([9], [9])


def test_a_known_text_under_another_id_takes_the_vector_that_is_there(index: Path, tmp_path: Path) -> None:
    renamed = [replace(PASSAGES[row], id=f"new{row}") for row in (16, 3, 10)]
    found = delta(index, tmp_path, live(*renamed, without=["p3", "p16"]))
    assert counts(found) == (3, 0, 2, 16, 0)
    assert (found.reused_rows.tolist(), found.dead_rows.tolist()) == ([16, 3, 10], [3, 16])
    reader = IndexReader.open(index)
    [(table, vectors)] = reused_blocks(reader, tmp_path / "work", found.reused_rows)
    assert table["id"].to_pylist() == ["new16", "new3", "new10"]
    all_vectors = np.concatenate([opened.segment.vectors_ND for opened in reader.segments])
    assert vectors.tobytes() == all_vectors[[16, 3, 10]].tobytes()


def test_a_deleted_row_is_no_longer_known(index: Path, tmp_path: Path) -> None:
    again, copy = PASSAGES[4], replace(PASSAGES[15], id="copy")
    assert counts(delta(index, tmp_path, live(again, copy))) == (2, 0, 0, 18, 2)


def test_metadata_in_another_order_are_the_same(tmp_path: Path) -> None:
    one = Passage("a", "text", metadata={"x": "1", "y": "2"})
    index = index_of(tmp_path, [one])
    assert counts(delta(index, tmp_path, [replace(one, metadata={"y": "2", "x": "1"})])) == (0, 0, 0, 1, 0)


def test_an_empty_index_and_an_empty_corpus_differ_in_everything(tmp_path: Path) -> None:
    index = index_of(tmp_path, PASSAGES, deleted=range(20))
    assert counts(delta(index, tmp_path / "a", PASSAGES)) == (20, 0, 0, 0, 20)
    index = index_of(tmp_path / "b", PASSAGES)
    found = delta(index, tmp_path / "b", [])
    assert counts(found) == (0, 0, 20, 0, 0)
    assert found.dead_rows.tolist() == list(range(20))


@pytest.mark.parametrize("twin", [PASSAGES[3], Passage("new", "one text")])
def test_an_id_that_comes_twice_is_named(index: Path, tmp_path: Path, twin: Passage) -> None:
    passages = [*live(), Passage("new", "one text"), replace(twin, text="another text")]
    with pytest.raises(CorruptArtifactError, match=f"passage id '{twin.id}' is there twice"):
        delta(index, tmp_path, passages)


def test_the_delta_has_the_same_bytes_when_it_is_written_again(index: Path, tmp_path: Path) -> None:
    changed = live(Passage("new", "text"), replace(PASSAGES[1], text="changed"))
    folder = tmp_path / "work" / DELTA_CORPUS
    contents = []
    for passages in (changed, live(Passage("x", "y")), changed):
        delta(index, tmp_path, passages)
        files = sorted(path for path in folder.rglob("*.parquet"))
        contents.append((Corpus.open(folder).fingerprint, [path.read_bytes() for path in files]))
    assert contents[0] == contents[2] != contents[1]


def test_the_state_takes_75_bytes_a_passage(index: Path) -> None:
    comparison = Comparison(index, read_snapshot(index), 18)
    assert comparison.num_bytes <= 75 * 18

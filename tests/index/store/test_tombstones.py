"""Deleted rows come back as they were written, add up, and a file that is not what its name says is refused."""

from pathlib import Path

import numpy as np
import pytest

from ragray.errors import CorruptArtifactError
from ragray.index.store.snapshot import SegmentRef
from ragray.index.store.tombstones import TOMBSTONES, deleted_rows, hide, live_mask, with_tombstones

REF = SegmentRef(name="a", num_rows=10)


def test_deleted_rows_are_sorted_and_counted_once(tmp_path: Path) -> None:
    ref = with_tombstones(tmp_path, REF, [7, 2, 7])
    assert (ref.num_deleted, deleted_rows(tmp_path, ref).tolist()) == (2, [2, 7])
    assert np.flatnonzero(~live_mask(tmp_path, ref)).tolist() == [2, 7]


def test_without_deleted_rows_there_is_no_file(tmp_path: Path) -> None:
    ref = with_tombstones(tmp_path, REF, [])
    assert ref == REF
    assert live_mask(tmp_path, ref).all()
    assert not (tmp_path / TOMBSTONES).exists()


def test_equal_tombstones_are_one_file_and_a_damaged_one_is_written_anew(tmp_path: Path) -> None:
    ref = with_tombstones(tmp_path, REF, [1])
    (tmp_path / TOMBSTONES / ref.tombstones).write_bytes(b"damaged")
    again = with_tombstones(tmp_path, SegmentRef(name="b", num_rows=5), [1])
    assert again.tombstones == ref.tombstones
    assert deleted_rows(tmp_path, ref).tolist() == [1]
    assert len(list((tmp_path / TOMBSTONES).iterdir())) == 1


def test_hidden_global_rows_join_those_that_each_segment_hides_already(tmp_path: Path) -> None:
    refs = [with_tombstones(tmp_path, REF, [3]), SegmentRef(name="b", num_rows=5), SegmentRef(name="c", num_rows=5)]
    hidden = hide(tmp_path, refs, np.array([0, 9, 3, 19]))
    assert [deleted_rows(tmp_path, ref).tolist() for ref in hidden] == [[0, 3, 9], [], [4]]
    assert hidden[1] is refs[1]


@pytest.mark.parametrize("rows", [[-1], [10], [0, 99]])
def test_a_row_that_the_segment_does_not_have_is_refused(tmp_path: Path, rows: list[int]) -> None:
    with pytest.raises(CorruptArtifactError, match=r"segment a has 10 rows"):
        with_tombstones(tmp_path, REF, rows)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"no numpy file at all"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    ref = with_tombstones(tmp_path, REF, [1, 2])
    (tmp_path / TOMBSTONES / ref.tombstones).write_bytes(content)
    with pytest.raises(CorruptArtifactError, match=r"cannot be read .* roll back"):
        deleted_rows(tmp_path, ref)


def test_a_flipped_byte_or_another_files_content_is_refused(tmp_path: Path) -> None:
    ref, other = with_tombstones(tmp_path, REF, [1, 2]), with_tombstones(tmp_path, REF, [1, 3])
    path = tmp_path / TOMBSTONES / ref.tombstones
    whole = path.read_bytes()
    for content in (whole[:-1] + b"\x01", (tmp_path / TOMBSTONES / other.tombstones).read_bytes()):
        path.write_bytes(content)
        with pytest.raises(CorruptArtifactError, match="does not match its name"):
            live_mask(tmp_path, ref)


def test_a_reference_that_counts_otherwise_than_its_file_is_refused(tmp_path: Path) -> None:
    ref = with_tombstones(tmp_path, REF, [1, 2]).model_copy(update={"num_deleted": 3})
    with pytest.raises(CorruptArtifactError, match="holds 2 tombstones, the snapshot says 3"):
        deleted_rows(tmp_path, ref)

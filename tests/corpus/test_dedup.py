"""When two passages say the same."""

import tracemalloc
from pathlib import Path

import pytest

from ragray.corpus.dedup import SeenKeys, content_hash, id_key, scratch_tables
from ragray.errors import ArtifactError


def test_case_and_white_space_make_no_difference() -> None:
    assert content_hash("A Title", "some\n text ") == content_hash("a  title", "Some TEXT")


def test_words_titles_and_where_the_title_ends_make_a_difference() -> None:
    hashes = [content_hash(*pair) for pair in (("t", "a b"), ("t", "a c"), ("", "a b"), ("u", "a b"), ("t a", "b"))]
    assert len(set(hashes)) == len(hashes)


def test_a_hash_is_128_bits_in_hex() -> None:
    assert len(bytes.fromhex(content_hash("", "text"))) == 16


@pytest.mark.parametrize("keys_in_memory", [1, 2, 100])
def test_a_key_is_new_once_whether_it_is_in_memory_or_on_disk(tmp_path: Path, keys_in_memory: int) -> None:
    with SeenKeys(tmp_path / "keys", keys_in_memory) as seen:
        assert id_key("a") not in seen
        assert [seen.add(id_key(identity)) for identity in "abacb"] == [True, True, False, True, False]
        assert id_key("a") in seen
        assert len(seen) == 3
    assert list(tmp_path.iterdir()) == []


def test_keys_take_the_same_memory_whatever_their_number(tmp_path: Path) -> None:
    def peak(num_keys: int) -> int:
        tracemalloc.start()
        with SeenKeys(tmp_path / "keys", keys_in_memory=1000) as seen:
            for number in range(num_keys):
                seen.add(id_key(str(number)))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(20_000) < 1.2 * peak(2000)


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with (
        pytest.raises(ArtifactError, match=r"keys\.sqlite: cannot be written"),
        scratch_tables(tmp_path / "keys.sqlite", "CREATE TABLE t (x); PRAGMA max_page_count = 2") as tables,
    ):
        tables.executemany("INSERT INTO t VALUES (?)", (("x" * 5000,) for _ in range(10)))


def test_what_a_killed_run_left_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b"half a file")
    with SeenKeys(tmp_path / "keys", 1) as seen:
        assert seen.add(id_key("a"))

"""How a large file is cut: the parts are the file, lines keep their numbers, and an appended line changes the last part only."""

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ragray.config import IngestConfig
from ragray.corpus.read.byte_ranges import cut_source
from ragray.corpus.read.documents import read_source
from ragray.corpus.read.find import find_sources
from ragray.corpus.read.record import Record, Refusal
from ragray.corpus.read.source import Source
from ragray.corpus.staging import plan_splits

CONFIG = IngestConfig(max_chars=1000)


def source_of(path: Path) -> Source:
    (source,) = find_sources([str(path)])
    return source


def cut(path: Path, range_bytes: int) -> list[tuple[Source, str]]:
    return list(cut_source(source_of(path), range_bytes))


def read(sources: list[Source]) -> list[Record | Refusal]:
    return [item for source in sources for item in read_source(source, CONFIG)]


def jsonl(path: Path, num_lines: int) -> Path:
    """Lines of all lengths, some of them broken, empty or too long."""
    sizes = random.Random(0)
    lines = [json.dumps({"id": str(number), "text": "x" * sizes.randrange(300)}) for number in range(num_lines)]
    lines[3], lines[7], lines[-2] = "{broken", "", "x" * 100_000
    path.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("range_bytes", [1, 100, 5000, 90_000, 1 << 30])
@pytest.mark.parametrize("read_bytes", [7, 1 << 20])
def test_the_parts_of_json_lines_hold_every_record_with_its_line(
    tmp_path: Path, range_bytes: int, read_bytes: int
) -> None:
    path = jsonl(tmp_path / "a.jsonl", 120)
    found = [source for source, _ in cut_source(source_of(path), range_bytes, read_bytes=read_bytes)]
    assert (len(found) > 1) == (range_bytes < 1 << 30)
    assert read(found) == read([source_of(path)])
    assert len(read(found)) == 119


def test_parts_are_about_as_large_as_asked_for(tmp_path: Path) -> None:
    found = [source.byte_range for source, _ in cut(jsonl(tmp_path / "a.jsonl", 1000), 10_000)]
    sizes = [part.stop - part.start for part in found if part]
    assert all(10_000 <= size < 10_400 for size in sizes[:-2])


def test_a_checksum_is_that_of_the_part_and_an_appended_line_changes_the_last_one(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", 1000)
    before = cut(path, 10_000)
    assert [source.checksum() for source, _ in before] == [checksum for _, checksum in before]
    assert len({checksum for _, checksum in before}) == len(before) > 10
    with path.open("a") as stream:
        stream.write('\n{"text": "more"}')
    after = cut(path, 10_000)
    assert after[: len(before) - 1] == before[:-1]
    assert after[len(before) - 1] != before[-1]


def test_the_parts_of_parquet_are_its_row_groups(tmp_path: Path) -> None:
    texts = [None if number % 97 == 0 else f"text {number}" for number in range(1000)]
    pq.write_table(pa.table({"id": range(1000), "text": texts}), tmp_path / "a.parquet", row_group_size=100)
    found = cut(tmp_path / "a.parquet", 2000)
    groups = [source.byte_range.row_groups for source, _ in found if source.byte_range]
    assert len(found) > 2 and groups[0][0] == 0 and groups[-1][1] == 10
    assert read([source for source, _ in found]) == read([source_of(tmp_path / "a.parquet")])
    assert [source.checksum() for source, _ in found] == [checksum for _, checksum in found]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl.gz", "a.parquet", "a.txt", "empty.jsonl"])
def test_what_cannot_be_cut_is_one_part(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"" if name.startswith("empty") else b"no such thing\n" * 10)
    source = source_of(tmp_path / name)
    assert cut(tmp_path / name, 10) == [(source, source.checksum())]


def test_after_a_line_was_appended_only_the_last_part_is_read_again(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", 1000)

    def keys() -> list[str]:
        sources, checksums = zip(*cut(path, 10_000), strict=True)
        return [split.key for split in plan_splits(sources, checksums, CONFIG, "words")]

    before = keys()
    with path.open("a") as stream:
        stream.write('\n{"text": "more"}')
    assert keys()[:-1] == before[:-1] and keys()[-1] != before[-1]
    path.write_text(f"\n{path.read_text(encoding='utf-8')}", encoding="utf-8")
    assert not set(keys()) & set(before)


def test_the_same_part_of_the_same_settings_is_staged_once_whatever_only_merging_minds() -> None:
    source = [Source("/a.jsonl", "a.jsonl")]

    def key(**settings: object) -> str:
        return plan_splits(source, ["sum"], IngestConfig.model_validate(settings), "words")[0].key

    same = ({"num_workers": 9}, {"shard_rows": 9}, {"deduplicate": False}, {"max_damaged": 9})
    assert {key(**settings) for settings in same} == {key()}
    assert key(near_duplicates=0.5) == key(near_duplicates=0.9) != key()
    assert len({key(languages=["en"]), key(max_symbol_ratio=0.5), key(min_chars=1), key()}) == 4

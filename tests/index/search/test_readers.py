"""Readers that search in a loop see neither an error nor a mixed answer while snapshots are published, rolled back and collected."""

from pathlib import Path

from ragray.index.search.reader import IndexReader
from tests.bench import readers


def test_readers_see_only_whole_snapshots_while_others_are_published_and_collected(tmp_path: Path) -> None:
    counts = readers.measure(tmp_path, seconds=3, readers=2)
    assert (counts.errors, counts.mixed) == ([], 0)
    assert min(counts.searches, counts.versions_seen, counts.rollbacks, counts.collected_snapshots) > 0


def test_the_check_would_notice_an_answer_of_another_version(tmp_path: Path) -> None:
    reader = IndexReader.open(readers.index_of(tmp_path, readers.passages_of(3), readers.IndexConfig(lexical="plain")))
    found = reader.search(readers.QUESTIONS, readers.ROWS)
    assert not readers.is_of(found, 3, readers.ROWS)  # the rows that version 3 hides are not hidden here
    assert not readers.is_of(found, 2, readers.ROWS)

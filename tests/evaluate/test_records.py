"""Records of a report: lines of present and earlier reports, passages of an index by id."""

from pathlib import Path
from typing import Any

import pytest

from ragray.errors import CorruptArtifactError
from ragray.evaluate.records import answered_from, read_answered, sources_of
from ragray.index.store.live import named_passages
from ragray.index.store.snapshot import current_name, read_snapshot
from tests.evaluate.measures.answered import answered
from tests.helpers import index_of, some_passages

LINE: dict[str, Any] = {
    "id": "q", "question": "who?", "prediction": "x", "answers": ["y"], "finish_reason": "stop", "gold_ids": ["p", "d"],
    "sources": ["p"], "weights": [1.0], "log_prob": -1.0,
}  # fmt: skip


def test_a_line_of_a_present_report_holds_the_rank_of_every_gold_id() -> None:
    one = answered_from({**LINE, "gold_ranks": [None, 3], "text": "x [1]", "numbered": True})
    assert (one.gold_ranks, one.gold_rank, one.text) == ((None, 3), 3, "x [1]")


def test_a_line_of_an_earlier_report_holds_the_first_rank() -> None:
    assert answered_from({**LINE, "gold_rank": 2}).gold_ranks == (2, None)
    assert answered_from({**LINE, "gold_ids": [], "gold_rank": None}).gold_ranks == ()


def test_a_line_of_another_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "details.jsonl"
    path.write_text('{"id": "q"}\n')
    with pytest.raises(CorruptArtifactError, match=r"details\.jsonl:1: .*evaluate again"):
        read_answered(path)


def test_passages_are_found_by_their_id_or_their_document(tmp_path: Path) -> None:
    index = index_of(tmp_path, some_passages(12), deleted=[3])
    snapshot = current_name(index)
    found = sources_of([answered("x", "y", sources=("p2", "p7", "gone"))], index, snapshot)
    assert found == {f"p{n}": some_passages(12)[n] for n in (2, 7)}
    given = named_passages([("d4",), ("p5", "d1"), ("p3",), ()], index, read_snapshot(index))
    assert [[passage.id for passage in passages] for passages in given] == [["p8", "p9"], ["p5", "p2"], [], []]

"""Gold passages: read from the snapshot by their ids or their documents' ids, whether they are retrieved or not."""

from pathlib import Path

from ragray.index.store.snapshot import read_snapshot
from ragray.train.gold import answering_passages
from ragray.types import Example, Passage
from tests.helpers import index_of

PASSAGES = [
    Passage("mill-1", "The mill was built by Anna Roke.", "Mill", "mill"),
    Passage("mill-2", "It burnt down in 1812.", "Mill", "mill"),
    Passage("mill-3", "In 1812 the miller moved to town.", "Mill", "mill"),
    Passage("well", "The well is dry.", document_id="well"),
]


def gold(tmp_path: Path, *gold_ids: str, answer: str = "1812", deleted: tuple[int, ...] = ()) -> list[str]:
    index = index_of(tmp_path, PASSAGES, deleted=deleted)
    example = Example("one", "When?", (answer,), gold_ids)
    return [passage.id for passage in answering_passages([example], index, read_snapshot(index))["one"]]


def test_a_passage_is_named_by_its_own_id(tmp_path: Path) -> None:
    assert gold(tmp_path, "well") == ["well"]


def test_of_a_document_the_passages_that_hold_an_accepted_answer_are_gold(tmp_path: Path) -> None:
    assert gold(tmp_path, "mill") == ["mill-2", "mill-3"]


def test_where_no_passage_of_a_document_holds_an_answer_all_are_gold(tmp_path: Path) -> None:
    assert gold(tmp_path, "mill", answer="long ago") == ["mill-1", "mill-2", "mill-3"]


def test_a_deleted_passage_and_an_unknown_id_are_not_gold(tmp_path: Path) -> None:
    assert gold(tmp_path, "mill-2", "nowhere", deleted=(1,)) == []


def test_an_example_without_gold_ids_has_none(tmp_path: Path) -> None:
    assert gold(tmp_path) == []

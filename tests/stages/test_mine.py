"""`ragray mine`: triples of a small index, counted, written once, the same every time."""

import json
from pathlib import Path

import pytest

from ragray.config import Config, IndexConfig, load_config
from ragray.errors import InputError
from ragray.retrieve.mining.choose import GOLD
from ragray.retrieve.mining.triples import TRIPLES_FILE, read_triples
from ragray.stages.mine import NO_POSITIVE, mine_negatives
from ragray.types import Example, Passage
from tests.helpers import Command, index_of, sentence

SETTINGS = load_config(None, ["mine.negatives=2", "mine.candidates=20", "mine.share=1"])


def passages() -> list[Passage]:
    """Documents of two passages; the second of each names its code, and passage d9#1 names that of d0 too."""
    return [
        Passage(f"d{n}#{part}", f"{sentence(3 * n + part)} {f'code{n}' * part} {'code0' * (n == 9)}", "", f"d{n}")
        for n in range(30)
        for part in (0, 1)
    ]


EXAMPLES = [
    Example("by-passage", f"{sentence(4)[:20]} code1", ("code1",), ("d1#1",)),
    Example("by-document", f"{sentence(6)} code2", ("code2",), ("d2",)),
    Example("by-answer", f"{sentence(0)} code0", ("code0",)),
    Example("lost", sentence(12), ("code99",)),
    Example("elsewhere", sentence(12), ("code98",), ("d77",)),
]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return index_of(tmp_path_factory.mktemp("mined"), passages(), IndexConfig(lexical="english"))


def test_every_question_gets_a_positive_that_answers_and_negatives_that_do_not(index: Path, tmp_path: Path) -> None:
    facts = mine_negatives(index, EXAMPLES, tmp_path / "out", SETTINGS).facts
    texts = {passage.id: passage.text for passage in passages()}
    mined = {triples[0].id: triples for triples in read_triples(tmp_path / "out" / TRIPLES_FILE)}
    assert list(mined) == ["by-passage", "by-document", "by-answer"]
    assert mined["by-passage"][0].positive_id == "d1#1"
    assert (mined["by-document"][0].positive_id, mined["by-document"][0].gold_ids) == ("d2#1", ("d2#0", "d2#1"))
    assert "code0" in mined["by-answer"][0].positive
    for example in EXAMPLES[:3]:
        for triple in mined[example.id]:
            assert (triple.positive, triple.negative) == (texts[triple.positive_id], texts[str(triple.negative_id)])
            assert example.answers[0] not in texts[str(triple.negative_id)].split()
            assert triple.negative_id not in triple.gold_ids
            assert triple.negative_score is not None
            assert triple.negative_score < triple.positive_score
    assert (facts.num_questions, facts.num_triples) == (3, sum(map(len, mined.values())))
    assert facts.left_out == {NO_POSITIVE: 2}
    assert facts.refused[GOLD] >= 3


def test_it_is_written_once_and_the_same_again_elsewhere(index: Path, tmp_path: Path) -> None:
    first = mine_negatives(index, EXAMPLES, tmp_path / "a", SETTINGS)
    again, elsewhere = (mine_negatives(index, EXAMPLES, tmp_path / name, SETTINGS) for name in ("a", "b"))
    assert (first.reused, again.reused, elsewhere.reused) == (False, True, False)
    assert again.facts == first.facts == elsewhere.facts
    assert (tmp_path / "a" / TRIPLES_FILE).read_bytes() == (tmp_path / "b" / TRIPLES_FILE).read_bytes()


def test_positives_alone_can_be_mined(index: Path, tmp_path: Path) -> None:
    config = load_config(None, ["mine.negatives=0"])
    facts = mine_negatives(index, EXAMPLES, tmp_path / "out", config).facts
    assert (facts.num_questions, facts.num_triples) == (3, 3)
    assert all(triples[0].negative is None for triples in read_triples(tmp_path / "out" / TRIPLES_FILE))


def test_nothing_that_can_be_used_is_an_error_and_leaves_no_artefact(index: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none of 1 questions can be used \(1 no positive\)"):
        mine_negatives(index, EXAMPLES[3:4], tmp_path / "out", SETTINGS)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_an_index_without_a_lexical_part_is_refused(hash_index: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lexical"):
        mine_negatives(hash_index, EXAMPLES, tmp_path / "out", Config())


def test_the_command_prints_what_was_mined_and_left_out(index: Path, tmp_path: Path, run_command: Command) -> None:
    examples = tmp_path / "examples.json"
    records = [{"id": e.id, "question": e.question, "answers": e.answers, "gold_ids": e.gold_ids} for e in EXAMPLES]
    examples.write_text(json.dumps(records), encoding="utf-8")
    ended = run_command("mine", "--index", index, "--examples", examples, "--out", tmp_path / "out", "mine.negatives=2")
    assert ended.code == 0
    assert "triples of 3 questions" in ended.output
    assert "questions left out: 2 (no positive)" in ended.output

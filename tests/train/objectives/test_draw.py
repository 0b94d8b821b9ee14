"""What stands in a training prompt: a gold passage or none, the best distractors, in which order; the same wherever it is drawn."""

import subprocess
import sys
from collections import Counter

from ragray.config import TrainConfig
from ragray.train.objectives.draw import Drawn, draw, draw_apart
from ragray.types import Example, Passage

EXAMPLE = Example("lamp", "Who lit the lamp?", ("Old Ferris",), ("gold",))
GOLD = Passage("gold", "It was Old Ferris who lit the lamp.")
FOUND = [
    Passage("far", "The lamp is oiled on Sundays."),
    Passage("told", "They say that old Ferris never slept."),
    GOLD,
    Passage("near", "A lamp hangs at the quay."),
    Passage("last", "The quay was built of oak."),
]


def drawn(
    example: Example = EXAMPLE, *, found: list[Passage] = FOUND, k: int = 3, epoch: int = 0, **changes: object
) -> Drawn:
    config = TrainConfig.model_validate({"min_k": 3, **changes})
    gold = [passage for passage in (GOLD,) if example.gold_ids]
    return draw(example, found, gold, k=k, config=config, epoch=epoch)


def ids(one: Drawn) -> list[str]:
    return [passage.id for passage in one.passages]


def test_a_prompt_with_gold_holds_the_best_distractors_in_the_order_of_retrieval_beside_it() -> None:
    one = drawn(gold_share=1, shuffle=False)
    assert ids(one) == ["far", "gold", "near"]
    assert one.gold == 1


def test_a_prompt_without_gold_holds_neither_gold_nor_what_holds_an_accepted_answer() -> None:
    one = drawn(gold_share=0, shuffle=False)
    assert ids(one) == ["far", "near", "last"]
    assert one.gold is None


def test_gold_that_was_not_retrieved_comes_behind_what_was() -> None:
    one = drawn(found=[FOUND[0], FOUND[3], FOUND[4]], gold_share=1, shuffle=False)
    assert ids(one) == ["far", "near", "gold"]
    assert one.gold == 2


def test_without_gold_ids_a_retrieved_passage_that_holds_an_answer_is_gold() -> None:
    free = Example("lamp", EXAMPLE.question, EXAMPLE.answers)
    seen = {ids(drawn(free, epoch=epoch, gold_share=1, shuffle=False))[1] for epoch in range(20)}
    assert seen == {"told", "gold"}


def test_without_any_gold_all_are_distractors() -> None:
    free = Example("lamp", EXAMPLE.question, ("nobody",))
    assert drawn(free, gold_share=1).gold is None


def test_passages_of_a_gold_document_are_no_distractors() -> None:
    part = Passage("gold-2", "It hangs by the door.", document_id="gold")
    assert "gold-2" not in ids(drawn(found=[part, *FOUND], gold_share=0))


def test_the_share_of_prompts_with_gold_and_their_lengths_are_as_set() -> None:
    many = [drawn(epoch=epoch, min_k=1, gold_share=0.8) for epoch in range(2000)]
    share = sum(one.gold is not None for one in many) / len(many)
    lengths = Counter(len(one.passages) for one in many)
    assert abs(share - 0.8) < 0.03
    assert set(lengths) == {1, 2, 3}
    assert all(abs(count / len(many) - 1 / 3) < 0.04 for count in lengths.values())


def test_a_least_number_above_k_is_k() -> None:
    assert len(drawn(k=2, min_k=9).passages) == 2


def test_shuffled_gold_stands_in_every_place() -> None:
    places = Counter(drawn(epoch=epoch, gold_share=1).gold for epoch in range(600))
    assert set(places) == {0, 1, 2}
    assert all(150 < count < 250 for count in places.values())


def test_another_epoch_example_or_seed_draws_anew() -> None:
    def many(**changes: object) -> list[Drawn]:
        return [drawn(epoch=epoch, min_k=1, **changes) for epoch in range(8)]

    other = Example("lantern", EXAMPLE.question, EXAMPLE.answers, EXAMPLE.gold_ids)
    of_another = [drawn(other, epoch=epoch, min_k=1) for epoch in range(8)]
    assert many() == many()
    assert many() != many(seed=1)
    assert many() != of_another
    assert len({tuple(ids(one)) for one in many()}) > 1


def test_every_process_draws_the_same() -> None:
    """Python's own hash of a text differs from process to process."""
    code = "from tests.train.objectives.test_draw import drawn, ids; print([ids(drawn(epoch=n, min_k=1)) for n in range(5)])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == str([ids(drawn(epoch=epoch, min_k=1)) for epoch in range(5)])


def test_a_distractor_is_left_out_and_gold_keeps_its_number() -> None:
    first, second, third = FOUND[0], GOLD, FOUND[3]
    assert Drawn((first, second, third), 1).without_last_distractor() == Drawn((first, second), 1)
    assert Drawn((first, third, second), 2).without_last_distractor() == Drawn((first, second), 1)
    assert Drawn((first, third), None).without_last_distractor() == Drawn((first,), None)


def apart(
    epoch: int = 0, *, gold: tuple[Passage, ...] = (GOLD,), distractors: int = 2
) -> tuple[Passage | None, list[str]]:
    right, wrong = draw_apart(EXAMPLE, FOUND, gold, config=TrainConfig(distractors=distractors), epoch=epoch)
    return right, [passage.id for passage in wrong]


def test_for_reading_apart_any_wrong_passage_that_was_found_may_be_drawn_beside_gold() -> None:
    many = [apart(epoch) for epoch in range(60)]
    assert {right.id for right, _ in many if right} == {"gold"}
    assert {tuple(sorted(wrong)) for _, wrong in many} == {("far", "near"), ("far", "last"), ("last", "near")}
    assert many == [apart(epoch) for epoch in range(60)]


def test_for_reading_apart_there_are_no_more_wrong_passages_than_were_found() -> None:
    assert sorted(apart(distractors=9)[1]) == ["far", "last", "near"]


def test_for_reading_apart_a_passage_that_holds_an_answer_stands_in_for_gold() -> None:
    assert {right.id for right, _ in (apart(epoch, gold=()) for epoch in range(20)) if right} == {"told", "gold"}

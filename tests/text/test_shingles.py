"""The pieces of texts of many scripts by which near duplicates are found."""

import pytest

from ragray.text.shingles import shingles


def jaccard(left: str, right: str) -> float:
    one, two = shingles(left), shingles(right)
    return len(one & two) / len(one | two)


def test_text_with_spaces_has_3_grams_of_words() -> None:
    assert shingles("The rope is NEW today") == {"the rope is", "rope is new", "is new today"}
    assert shingles("밧줄은 오늘 새 것이다") == {"밧줄은 오늘 새", "오늘 새 것이다"}


def test_text_without_spaces_has_5_grams_of_characters_and_its_words_of_other_scripts() -> None:
    assert shingles("缆绳今天\n换新。") == {"缆绳今天换", "绳今天换新"}
    assert shingles("用 Ray 2 做") == {"用做", "ray 2"}


@pytest.mark.parametrize(
    ("text", "other"),
    [
        (
            "码头将于{}进行检修，届时所有船只请停靠在北岸，装卸工作顺延一天，由此带来的不便敬请谅解。",
            "图书馆今天开门。",
        ),
        (
            "埠頭は{}に点検を行います。船はすべて北岸に停泊してください。荷役は一日延期となります。",
            "図書館は今日開きます。",
        ),
        ("ท่าเรือจะปิดซ่อมในวัน{} ขอให้เรือทุกลำจอดที่ฝั่งเหนือและเลื่อนการขนถ่ายออกไปหนึ่งวัน", "ห้องสมุดเปิดวันนี้"),
    ],
)
def test_nearly_the_same_is_similar_and_another_text_is_not(text: str, other: str) -> None:
    assert jaccard(text.format("三"), text.format("五")) > 0.7
    assert jaccard(text.format("三"), other) < 0.1

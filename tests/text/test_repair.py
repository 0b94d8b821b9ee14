"""What cleaning mends in texts of many scripts, and what it leaves as the author wrote it."""

import pytest

from ragray.text.repair import clean_text


@pytest.mark.parametrize(
    "text",
    [
        "“价格”：￥３００，含税（Ｂ类）～ｶﾅ也一样！",
        "第一章　总则",
        "ﬁrst and “second” … ½ of x²",
        "می‌روم به خانه",
        "क्‍ष और 👩‍🚒 🏳️‍🌈",
        "Straße, Ångström, Việt Nam, 한국어",
    ],
)
def test_what_the_author_wrote_stays(text: str) -> None:
    assert clean_text(text) == text


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("海港的起\n重机已经修好", "海港的起重机已经修好"),
        ("港の起重機は、\n修理が\n終わった。", "港の起重機は、修理が終わった。"),
        ("เรือออก\nจากท่า", "เรือออกจากท่า"),
        ("항구의 기중기는\n수리되었다", "항구의 기중기는 수리되었다"),
        ("the crane\nis mended", "the crane is mended"),
        ("नाव बंदरगाह\nसे चली", "नाव बंदरगाह से चली"),
        ("غادرت السفينة\nالميناء", "غادرت السفينة الميناء"),
        ("tàu rời\ncảng", "tàu rời cảng"),
        ("船长说：\n“走吧。”\n大家都上了船", "船长说：“走吧。”大家都上了船"),
        ("用\nPython 写", "用 Python 写"),
    ],
)
def test_a_line_break_is_a_space_where_the_script_has_spaces(raw: str, clean: str) -> None:
    assert clean_text(raw) == clean_text(clean) == clean


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Ha\u00adfen\u00admeis\u00adter", "Hafenmeister"),
        ("Hafenmeis\u00ad\nter", "Hafenmeister"),
        ("har\u200bbour mas\u2060ter, Auf\u200clage", "harbour master, Auflage"),
        ("middle \ufeff of", "middle of"),
        ("The mainte-\nnance of ropes", "The maintenance of ropes"),
        ("a short-\nterm loan", "a short-term loan"),
        ("the rope-\nmaker, and a rope maker", "the rope-maker, and a rope maker"),
        ("a dock-\nside crane, dockside", "a dockside crane, dockside"),
        ("a dock-\nside crane, dock-side", "a dock-side crane, dock-side"),
        ("Haupt-\nund Nebenhafen, Nord-\nOstsee", "Haupt- und Nebenhafen, Nord-Ostsee"),
        ("in 2019-\n2020", "in 2019-2020"),
        ("cafe\u0301  bar", "café bar"),
    ],
)
def test_layout_goes_and_words_are_whole(raw: str, clean: str) -> None:
    assert clean_text(raw) == clean_text(clean) == clean


@pytest.mark.parametrize(
    "text",
    [
        "Use this:\n```py\nif x:\n    y()\n\n\n    z()\n```\nIt helps.",
        "~~~\n- no list\n# no heading\n~~~",
        "| a  | b |\n|----|---|\n| 1  | 2 |",
        "a | b\n--|--\n1 | 2",
        "- one\n  - below\n- two",
        "1. one\n2. two",
        "（1）检查缆绳\n（2）检查货物",
    ],
)
def test_code_tables_and_lists_keep_their_lines(text: str) -> None:
    assert clean_text(text) == text


def test_numbered_headings_and_indented_paragraphs_stand_alone() -> None:
    assert clean_text("第一章 总则\n　　船工每天\n检查。\n　　第二段。") == "第一章 总则\n\n船工每天检查。\n\n第二段。"
    assert clean_text("完毕。\n一、缆绳\n每天检查。") == "完毕。\n\n一、缆绳\n\n每天检查。"
    assert clean_text("星期\n一、星期三休息，照常值班。") == "星期一、星期三休息，照常值班。"

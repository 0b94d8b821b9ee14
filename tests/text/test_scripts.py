"""Runs of script, and what counts as a word."""

import re

import pytest
import regex

from ragray.text.scripts import SPACELESS, WITHOUT_SPACES, count_units, letters_of, runs, split_dense


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Ask 問い合わせ!",
            [("Latin", "Ask "), ("Han", "問"), ("Hiragana", "い"), ("Han", "合"), ("Hiragana", "わせ!")],
        ),
        ("３つのカード", [("Common", "３"), ("Hiragana", "つの"), ("Katakana", "カード")]),
        ("서울 5호선", [("Hangul", "서울 5호선")]),
        ("รถไฟ and ລົດໄຟ", [("Thai", "รถไฟ "), ("Latin", "and "), ("Lao", "ລົດໄຟ")]),
        ("नमस्ते, مرحبا", [("Devanagari", "नमस्ते, "), ("Arabic", "مرحبا")]),
        ("ᚠᚢ Ж", [("Other", "ᚠᚢ "), ("Cyrillic", "Ж")]),
        ("12:30", [("Common", "12:30")]),
        ("", []),
    ],
)
def test_a_text_is_cut_where_its_script_changes_and_nothing_is_lost(text: str, expected: list[tuple[str, str]]) -> None:
    assert list(runs(text)) == expected
    assert "".join(run for _, run in runs(text)) == text


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("港口的仓库", (5, 0)),
        ("Kubernetes 集群 v2", (2, 2)),
        ("đường sắt", (0, 2)),
        ("คลัง", (3, 0)),
        ("गोदाम में", (0, 2)),
        ("1949", (0, 0)),
    ],
)
def test_characters_of_dense_scripts_and_words_of_others_are_counted(text: str, units: tuple[int, int]) -> None:
    assert count_units(text) == units


def test_characters_of_dense_scripts_stand_alone_and_words_stay_whole() -> None:
    assert split_dense("第14号 crane's 吊车ABC 한국어") == ["第", "14", "号", "crane's", "吊", "车", "ABC", "한국어"]


def test_both_spellings_of_the_scripts_without_spaces_hold_the_same_letters() -> None:
    by_name = regex.compile(letters_of(*WITHOUT_SPACES), regex.V1)
    by_range = re.compile(f"[{SPACELESS}]")
    every = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x10000), *range(0x20000, 0x40000)]))
    assert set(by_name.findall(every)) <= set(by_range.findall(every))
    assert not by_range.search("abc 123 한국어 русский हिन्दी العربية \u3000")

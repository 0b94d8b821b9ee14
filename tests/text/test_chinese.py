"""Chinese by dictionaries: traditional and simplified characters find each other, Japanese stays; words beside pairs."""

import pytest

from ragray.text.analyzer import newest, terms
from ragray.text.chinese import simplified, words

SIMPLIFIED = newest("plain", fold_traditional=True)
WORDS = newest("plain", chinese_words=True)
PAIRS = [("圖書館開放時間", "图书馆开放时间"), ("港口的倉庫後面", "港口的仓库后面"), ("臺灣頭髮乾燥", "台湾头发干燥")]


@pytest.mark.parametrize(("traditional", "simple"), PAIRS)
def test_traditional_and_simplified_texts_have_the_same_terms(traditional: str, simple: str) -> None:
    assert terms(traditional, SIMPLIFIED) == terms(simple, SIMPLIFIED) == terms(simple, "plain.3")
    assert terms(traditional, "plain.3") != terms(simple, "plain.3")


def test_a_character_has_one_form_in_every_word() -> None:
    assert set(terms("乾", SIMPLIFIED)) <= set(terms("乾隆", SIMPLIFIED)) & set(terms("乾燥", SIMPLIFIED))


def test_no_form_is_folded_further() -> None:
    table = simplified()
    assert len(table) > 4000
    assert all(len(form) == 1 and ord(form) not in table for form in table.values())


@pytest.mark.parametrize(
    "text", ["発電所の広い沢", "乾電池と幹事、干潮", "後藤さんの髪", "ひらがな、カタカナ", "港湾の倉庫"]
)
def test_what_finds_a_japanese_text_finds_it_with_the_option_too(text: str) -> None:
    for first in range(len(text)):
        for stop in range(first + 1, len(text) + 1):
            query = text[first:stop]
            if set(terms(query, "plain.3")) <= set(terms(text, "plain.3")):
                assert set(terms(query, SIMPLIFIED)) <= set(terms(text, SIMPLIFIED))


def test_words_are_three_characters_and_more_and_stand_beside_pairs() -> None:
    assert words("住房公积金余额") == ["公积金"]
    assert terms("公积金余额ABC", WORDS) == ["公积", "积金", "金余", "余额", *"公积金余额", "公积金", "abc"]
    assert terms("公积金", WORDS)[2] == "公"


@pytest.mark.parametrize("text", ["仓库", "English words", "ひらがな", "항구의 창고", "", "港"])
def test_texts_without_a_longer_chinese_word_are_as_without_the_option(text: str) -> None:
    assert terms(text, WORDS) == terms(text, "plain.3")


def test_both_options_find_words_in_traditional_texts() -> None:
    both = newest("english", fold_traditional=True, chinese_words=True)
    assert "图书馆" in terms("圖書館", both)
    assert terms("圖書館", both) == terms("图书馆", both)

"""The analyzer: fixed texts in many scripts and the terms that they give; equal forms; English as before; versions."""

import random

import bm25s
import pytest
import Stemmer

from ragray.errors import ArtifactError
from ragray.text.analyzer import NEWEST, _cut, analyze, fold, newest, terms

TEXTS = {
    "Chinese": ("港口的仓库有12台吊车（ABC型）。", "港口 口的 的仓 仓库 库有 12 台吊 吊车 abc 型"),
    "Japanese": ("倉庫のクレーンは3台です。", "倉庫 庫の のク クレ レー ーン ンは 3 台で です"),
    "Korean": ("항구의 창고에 크레인 세 대", "항구 구의 창고 고에 크레 레인 세 대"),
    "Thai": ("รถไฟถึงแล้ว", "รถ ถไ ไฟ ฟถึ ถึง งแ แล้ ล้ว"),
    "Lao": ("ລົດໄຟ", "ລົດ ດໄ ໄຟ"),
    "Khmer": ("ផែភ្នំពេញ", "ផែភ្ ភ្នំ នំពេ ពេញ"),
    "Burmese": ("ရန်ကုန်", "ရန် န်ကု ကုန်"),
    "Hindi": ("बंदरगाह के गोदाम में १२ क्रेन", "बंदरगाह के गोदाम में 12 क्रेन"),
    "Tamil": ("துறைமுகம் கிடங்கு", "துறைமுகம் கிடங்கு"),
    "Arabic": ("مُسْتَوْدَعُ المينـــاءِ ١٢", "مستودع الميناء 12"),
    "Hebrew": ("מַחְסָן הנמל", "מחסן הנמל"),
    "Russian": ("Склад порта, 12 кранов", "склад порта 12 кранов"),
    "Greek": ("Αποθήκη λιμένος", "αποθήκη λιμένοσ"),
    "German": ("Die Hafenstraße, 3. Stock: Öl & Käse", "die hafenstrasse 3 stock öl käse"),
    "Vietnamese": ("Kho hàng ở bến cảng", "kho hàng ở bến cảng"),
    "French": ("L’eau de l'île", "eau de île"),
    "English": ("Vitamin K's dose: 2 mg, don't re-use it.", "vitamin k dose 2 mg don re use it"),
}


@pytest.mark.parametrize("language", TEXTS)
def test_a_text_of_a_language_gives_these_terms(language: str) -> None:
    text, expected = TEXTS[language]
    assert terms(text, "plain.2") == expected.split()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ＡＢＣ１００", "abc100"),
        ("ｶﾞﾗｽ", "ガラス"),
        ("STRASSE", "straße"),
        ("cafe\u0301", "Café"),
        ("ﬁnance", "finance"),
        ("Haft\u00adpflicht", "haftpflicht"),
        ("inspec\u200btion", "inspection"),
        ("\ufeffword", "word"),
        ("می\u200cخواهم", "میخواهم"),
        ("İzmir", "izmir"),
        ("كِتَابٌ", "كتاب"),
        ("٢٠٢٤", "2024"),
        ("२०२४", "2024"),
        ("한국", "한국"),
        ("м’ята", "м'ята"),
        ("葛\U000e0100城", "葛城"),
        ("ベ", "ヘ\u3099"),
    ],
)
def test_forms_that_a_reader_takes_for_the_same_are_the_same(one: str, other: str) -> None:
    assert fold(one) == fold(other)
    assert terms(one, "plain.2") == terms(other, "plain.2") != []


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("养老金", "累计缴费满十五年后可以按月领取养老金。"),
        ("水道料金", "東京都の水道料金は二か月に一度"),
        ("크레인", "크레인이 두 대"),
        ("รถไฟ", "สถานีรถไฟกรุงเทพ"),
        ("vitamin K", "Vitamin K deficiency"),
        ("type 2 diabetes", "Type 2 diabetes"),
        ("CPU", "申请4核CPU，超过"),
    ],
)
def test_all_terms_of_a_query_are_terms_of_a_text_that_holds_it(query: str, text: str) -> None:
    assert set(terms(query, "plain.2")) <= set(terms(text, "plain.2"))


def reference(texts: list[str], analyzer: str) -> list[list[str]]:
    """Terms by `bm25s`, as version 1 has them."""
    stop_words, stemmer = ("en", Stemmer.Stemmer("english")) if analyzer == "english" else (None, None)
    found = bm25s.tokenize(texts, stopwords=stop_words, stemmer=stemmer, return_ids=False, show_progress=False)
    return [list(words) for words in found]


ENGLISH = [
    "The cranes were running; runs of the runner!",
    "Ports (and harbours) are re-opened in 2024, snake_case",
    "",
    "?!",
]


@pytest.mark.parametrize("analyzer", ["english", "plain"])
def test_english_without_single_characters_gives_the_very_terms_of_version_1(analyzer: str) -> None:
    first, second = analyze(ENGLISH, analyzer), analyze(ENGLISH, newest(analyzer))
    assert [[first[1][n] for n in row] for row in first[0]] == [[second[1][n] for n in row] for row in second[0]]
    assert [len(row) for row in first[0]] == [len(row) for row in reference(ENGLISH, analyzer)]


def test_version_1_still_knows_no_single_character_and_no_mark() -> None:
    assert terms("Vitamin K, नमस्ते, 养老金。", "plain") == reference(["Vitamin K, नमस्ते, 养老金。"], "plain")[0]
    assert terms("the cats", "english") == ["cats"]
    assert terms("the cats", "english.2") == ["cats"]


def test_texts_of_latin_letters_give_the_same_terms_by_every_way_of_cutting_them() -> None:
    chance = random.Random(3)
    pieces = ["a", "K", "word", "2", "14", "_", "'", "s", " ", "-", ".", "é", "ß", "ж", "…", "’", "x'y", "it's"]
    for _ in range(2000):
        text = "".join(chance.choices(pieces, k=chance.randint(0, 9)))
        assert terms(text, "plain.2") == _cut(fold(text))


def test_what_is_no_letter_and_no_digit_gives_no_term() -> None:
    for text in ("", "?!", "…。、「」", "🐟👩\u200d💻", "\x00\x01", "\ud800", "\u0301", "_", "\u3000\u2028"):
        assert terms(text, "plain.2") == []


def test_two_words_of_one_stem_have_one_hash() -> None:
    [[one, other]], hashes = analyze(["cranes crane"], "english.2")
    assert hashes[one] == hashes[other]
    [[one, other]], hashes = analyze(["cranes crane"], "plain.2")
    assert hashes[one] != hashes[other]


def test_every_setting_has_its_newest_analyzer_and_a_snapshot_keeps_its_own() -> None:
    assert [newest(name) for name in NEWEST] == ["none", "plain.2", "english.2"]
    assert newest("english.2") == "english.2"


def test_an_analyzer_of_a_newer_ragray_is_refused() -> None:
    with pytest.raises(ArtifactError, match=r"'english\.3', which this ragray does not have .*upgrade"):
        analyze(["x"], "english.3")

"""The analyzer: fixed texts in many scripts and the terms that they give; equal forms; English as before; versions."""

import random
from collections import Counter
from itertools import product

import bm25s
import pytest
import regex
import Stemmer

from ragray.config import IndexConfig
from ragray.errors import ArtifactError, MissingPackageError
from ragray.text.analyzer import (
    _APOSTROPHES,
    _FOREIGN_DIGIT,
    _IGNORED,
    _OPTIONAL,
    _PLAIN,
    NEWEST,
    _cut,
    _hash,
    _parsed,
    analyze,
    fold,
    newest,
    settings_of,
    stems,
    terms,
)  # fmt: skip
from ragray.text.chinese import installed

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


@pytest.mark.parametrize("language", TEXTS)
def test_version_3_has_characters_of_han_and_hangul_beside_their_pairs(language: str) -> None:
    text, expected = TEXTS[language]
    found = Counter(terms(text, "plain.3"))
    found.subtract(expected.split())
    assert +found == Counter(regex.findall(r"[\p{Han}\p{Hangul}]", text)) - Counter(expected.split())
    assert not -found


@pytest.mark.parametrize(
    ("query", "text"), [("水", "水道料金は二か月に一度"), ("港", "海港的吊车"), ("물", "물을 마신다")]
)
def test_a_query_of_one_character_finds_the_words_that_hold_it(query: str, text: str) -> None:
    assert set(terms(query, "plain.3")) <= set(terms(text, "plain.3"))
    assert not set(terms(query, "plain.2")) & set(terms(text, "plain.2"))


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
    assert terms(one, "plain.3") == terms(other, "plain.3") != []


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
    assert set(terms(query, "plain.3")) <= set(terms(text, "plain.3"))


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
    assert terms("the cats", "english.3") == ["cats"]


def test_texts_of_latin_letters_give_the_same_terms_by_every_way_of_cutting_them() -> None:
    chance = random.Random(3)
    pieces = ["a", "K", "word", "2", "14", "_", "'", "s", " ", "-", ".", "é", "ß", "ж", "…", "’", "x'y", "it's"]
    for _ in range(2000):
        text = "".join(chance.choices(pieces, k=chance.randint(0, 9)))
        assert terms(text, "plain.3") == _cut(fold(text), _parsed("plain.3"))


@pytest.mark.parametrize("analyzer", ["plain", "english", "english.2", "english.3", "plain.3"])
def test_stems_are_the_terms_whose_hashes_are_compared(analyzer: str) -> None:
    for text in [*ENGLISH, "Ｃａｆé’s “running” harbours – 北京大学 и города, ７ x_y _"]:
        [ids], hashes = analyze([text], analyzer)
        assert [_hash(stem) for stem in stems(text, analyzer)] == [hashes[number] for number in ids]


def test_characters_that_are_folded_in_fewer_sweeps_are_none_that_the_others_look_for() -> None:
    plain = [chr(code) for code in range(0x10000) if _PLAIN.fullmatch(chr(code)) and code != 0x2019]
    assert not [
        one for one in plain for sweep in (_IGNORED, _OPTIONAL, _FOREIGN_DIGIT, _APOSTROPHES) if sweep.match(one)
    ]
    assert len(plain) > 4000


def test_what_is_no_letter_and_no_digit_gives_no_term() -> None:
    for text in ("", "?!", "…。、「」", "🐟👩\u200d💻", "\x00\x01", "\ud800", "\u0301", "_", "\u3000\u2028"):
        assert terms(text, "plain.3") == []


def test_two_words_of_one_stem_have_one_hash() -> None:
    [[one, other]], hashes = analyze(["cranes crane"], "english.3")
    assert hashes[one] == hashes[other]
    [[one, other]], hashes = analyze(["cranes crane"], "plain.3")
    assert hashes[one] != hashes[other]


def test_every_setting_has_its_newest_analyzer_whose_name_gives_the_settings_back() -> None:
    assert [newest(name) for name in NEWEST] == ["none", "plain.3", "english.3"]
    for lexical, fold_traditional, chinese_words in product(("plain", "english"), (False, True), (False, True)):
        settings = {"fold_traditional": fold_traditional, "chinese_words": chinese_words}
        name = newest(lexical, **settings)
        assert settings_of(name) == {"lexical": lexical} | settings
        assert name == IndexConfig.model_validate({"lexical": lexical} | settings).analyzer
    assert settings_of("none") == IndexConfig(lexical="none").model_dump(include={"lexical"} | set(settings))


@pytest.mark.parametrize(
    "name", ["english.4", "english.2+opencc1.4.2", "english+rjieba0.2.2", "english.3+rjieba1+opencc1", "x"]
)
def test_an_analyzer_of_a_newer_ragray_is_refused(name: str) -> None:
    with pytest.raises(ArtifactError, match=r"does not have.*upgrade"):
        analyze(["x"], name)


@pytest.mark.parametrize("package", ["opencc", "rjieba"])
def test_another_version_of_a_dictionary_than_the_index_has_is_refused_with_both_remedies(package: str) -> None:
    with pytest.raises(
        ArtifactError, match=rf"{package} 0\.0\.1, installed is .*index compact INDEX .*=true.*{package}==0\.0\.1"
    ):
        analyze(["x"], f"english.3+{package}0.0.1")


def test_a_missing_package_is_named_with_the_extra_that_brings_it() -> None:
    with pytest.raises(
        MissingPackageError, match=r"index\.chinese_words needs no-such-package; run: pip install ragray\[zh\]"
    ):
        installed("no-such-package", "index.chinese_words")


@pytest.mark.parametrize("option", ["fold_traditional", "chinese_words"])
def test_an_option_without_bm25_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}=true has no effect with lexical=none"):
        IndexConfig.model_validate({"lexical": "none", option: True})

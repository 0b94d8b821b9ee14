"""What cleaning repairs, what it leaves alone, and what it refuses."""

import sys

import pytest

from ragray.config import IngestConfig
from ragray.corpus import clean
from ragray.corpus.clean import check_languages, clean_line, is_damage, language_of, refuse_reason, symbol_ratio
from ragray.errors import ConfigError, MissingPackageError
from ragray.text.repair import clean_text


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("The CafÃ© in KÃ¶ln.", "The Café in Köln."),
        ("null\x00 byte, bell\x07 and escape \x1b[31mred\x1b[0m", "null byte, bell and escape red"),
        ("tabs\tand  runs\n of   space", "tabs and runs of space"),
        ("first  line\r\n\r\n\r\n  second\rline ", "first line\n\nsecond line"),
        ("no-break\u00a0space and\u2028separator", "no-break space and separator"),
        ("\ufeffmark", "mark"),
        (" \n\n ", ""),
    ],
)
def test_broken_text_is_repaired(raw: str, clean: str) -> None:
    assert clean_text(raw) == clean


@pytest.mark.parametrize(
    "text", ["Plain text.", "&amp; stays", "“curly” quotes — and dashes", "one\n\ntwo", "नमस्ते 👩‍👩‍👧"]
)
def test_sound_text_stays_as_it_is(text: str) -> None:
    assert clean_text(text) == text


def test_cleaning_twice_is_cleaning_once() -> None:
    once = clean_text("a \x0b b\r\n \x0c c\u2029d")
    assert clean_text(once) == once == "a b\n\nc d"


def test_a_lone_surrogate_becomes_storable() -> None:
    clean_text("half a \ud83d pair").encode("utf-8")


def test_a_title_is_one_line() -> None:
    assert clean_line(" A\n\ntitle ") == "A title"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("too short", "shorter than min_chars=20"),
        ("x" * 101, "longer than max_chars=100"),
        ("x" * 100, None),
        ("x" * 20, None),
    ],
)
def test_refusals_name_the_limit(text: str, reason: str | None) -> None:
    assert refuse_reason(text, IngestConfig(min_chars=20, max_chars=100)) == reason


@pytest.mark.parametrize(
    ("text", "ratio"),
    [
        ("only letters and 123 digits", 0),
        ("a!b?", 0.5),
        ("| - | - |", 1),
        ("__", 1),
        ("नमस्ते दुनिया", 0),
        ("e\u0301 日本", 0),
        ("", 0),
    ],
)
def test_symbols_are_what_is_neither_letter_nor_digit(text: str, ratio: float) -> None:
    assert symbol_ratio(text) == ratio


def test_a_text_of_symbols_is_refused_where_a_limit_is_set() -> None:
    table = "| 1 | 2 | 3 |\n|---|---|---|"
    assert refuse_reason(table, IngestConfig()) is None
    reason = refuse_reason(table, IngestConfig(max_symbol_ratio=0.4))
    assert reason == "symbols over max_symbol_ratio=0.4" and not is_damage(reason)
    assert refuse_reason("A sentence, as they come.", IngestConfig(max_symbol_ratio=0.4)) is None


ENGLISH = "The moon pulls at the water, and so does the sun, with less strength."
GERMAN = "Der Mond zieht das Wasser an, und auch die Sonne tut es, nur schwächer."


def test_a_text_in_another_language_is_refused_with_the_one_found() -> None:
    only_english = IngestConfig(languages=("en",))
    assert refuse_reason(ENGLISH, only_english) is None
    reason = refuse_reason(GERMAN, only_english)
    assert reason == "language de" and not is_damage(reason)
    assert refuse_reason(GERMAN, IngestConfig(languages=("de", "en"))) is None
    assert refuse_reason(GERMAN, IngestConfig()) is None


def test_a_language_that_is_not_known_is_refused_before_anything_is_read() -> None:
    check_languages(IngestConfig(languages=("en", "de")))
    with pytest.raises(ConfigError, match=r"ingest\.languages: 'english' is no language code .* en "):
        check_languages(IngestConfig(languages=("en", "english")))


def test_without_py3langid_the_pip_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    clean._identifier.cache_clear()
    with pytest.raises(MissingPackageError, match=r"run: pip install py3langid$"):
        check_languages(IngestConfig(languages=("en",)))


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("我们用 Kubernetes 部署 PostgreSQL 和 Redis 服务，每晚备份。", "zh"),
        ("佢哋今朝飲完茶就去咗街市買餸。", "zh"),
        ("伊拉今朝勿去上班，阿拉一道去白相。", "zh"),
        ("颱風將於明日登陸，請提早做好準備。", "zh"),
        ("雪", "zh"),
        ("桜の花は四月の初めに咲き、十日ほどで散ります。", "ja"),
        ("부산항은 한국에서 가장 큰 항구이다.", "ko"),
        ("Die Elbe entspringt im Riesengebirge und mündet in die Nordsee.", "de"),
        ("The word 茶 came to Europe along two roads, by sea and over land.", "en"),
        ("Ok then.", ""),
    ],
)
def test_the_script_decides_on_chinese_japanese_and_korean_and_a_short_text_is_not_guessed(
    text: str, language: str
) -> None:
    assert language_of(text) == language
    if language:
        assert refuse_reason(text, IngestConfig(languages=(language,), min_chars=0)) is None
        other = "ja" if language == "zh" else "zh"
        assert refuse_reason(text, IngestConfig(languages=(other,), min_chars=0)) == f"language {language}"
    else:
        assert refuse_reason(text, IngestConfig(languages=("zh",), min_chars=0)) is None

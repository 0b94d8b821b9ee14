"""The compiled normalisation, read back by `tokenizers`: every character becomes what was said, all others stay."""

import unicodedata

import pytest
from tokenizers.normalizers import Precompiled

from ragray.convert.charsmap import compile_charsmap

WIDE = {ord(wide): unicodedata.normalize("NFKC", wide) for wide in "ＡＢＣａｂｃ１２３！？ｱｲｳ㎏㍿ﬁ½①𝐀𝛀"}


@pytest.mark.parametrize(
    "characters",
    [
        {ord("a"): "b"},
        {ord("a"): ""},
        {ord("ß"): "ss", ord("à"): "a", 0x7F: "", 0x3000: " "},
        {0x10FFFF: "last", 1: "first"},
        WIDE,
        {code: chr(code + 1) for code in range(0x4E00, 0x5200)},
    ],
    ids=["one", "deleted", "several lengths", "ends of Unicode", "compatibility forms", "a thousand"],
)
def test_every_character_becomes_what_the_table_says(characters: dict[int, str]) -> None:
    normalizer = Precompiled(compile_charsmap(characters))
    for code, text in characters.items():
        assert normalizer.normalize_str(f"x{chr(code)}я{chr(code)}") == f"x{text}я{text}"


def test_characters_outside_the_table_stay() -> None:
    text = "plain: Zürich 東京 서울 กรุงเทพ दिल्ली القاهرة 😀"
    assert Precompiled(compile_charsmap(WIDE)).normalize_str(text) == text

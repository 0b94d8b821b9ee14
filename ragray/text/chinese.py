"""Chinese by the dictionaries of other packages. In: characters, runs of Han. Out: simplified characters; words of a dictionary.

The packages are those of the extra `zh`. What they give changes with their versions: an analyzer's name records them.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

import regex

from ragray.errors import MissingPackageError

OPENCC, RJIEBA = "opencc", "rjieba"
LEAST_CHARS = 3
"""A shorter word is a pair of characters, or a character, and so a term already."""
_BLOCKS = ((0x2E80, 0xD800), (0xF900, 0xFB00), (0x20000, 0x33480))
"""All blocks of Unicode with Han in them."""


@cache
def installed(package: str, setting: str) -> str:
    """Return the version of a package that a setting needs.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        return version(package)
    except PackageNotFoundError as err:
        raise MissingPackageError(f"{setting} needs {package}; run: pip install ragray[zh]") from err


@cache
def simplified() -> dict[int, str]:
    """Return the simplified form of each traditional character, as `str.translate` takes it.

    Each character has one form wherever it stands, opencc's first one. Forms that depend on the word (乾 is 干 in 乾燥, and stays
    in 乾隆) would part a query from the passage that holds it in a longer word.
    """
    import opencc

    characters = [chr(code) for first, stop in _BLOCKS for code in range(first, stop)]
    characters = regex.findall(r"\p{Han}", "".join(characters))
    forms: dict[str, str] = dict(
        zip(characters, opencc.OpenCC("t2s").convert("\n".join(characters)).split("\n"), strict=True)
    )
    return {ord(one): forms.get(form, form) for one, form in forms.items() if one != form}


def words(run: str) -> list[str]:
    """Return the words of three characters and more of a run of Han, the words within longer ones too, as jieba's search mode."""
    import rjieba

    return [word for word in rjieba.cut_for_search(run) if len(word) >= LEAST_CHARS]

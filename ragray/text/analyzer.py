"""The analyzer of lexical search. In: passages or queries. Out: the terms that are compared, the same for both.

An analyzer's name says its version: what `english.2` gives never changes, as the postings of finished indexes hold it.

- `english`, `plain`: words of two letters or digits at least, in lower case, as `bm25s` cuts them. Indexes built before version 2.
- `english.2`, `plain.2`: texts are folded (`fold`), then cut into words, which keep their combining marks, and into overlapping
  pairs of characters where a script is Han, Kana, Hangul, Thai, Lao, Khmer or Burmese, as Lucene's CJKAnalyzer does. Single
  letters and digits are terms, except what an apostrophe leaves of an English or French word (it's, l'eau).

`english` leaves English stop words out and stems English words, `plain` does neither.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from itertools import count, pairwise

import numpy as np
import regex

from ragray.errors import ArtifactError
from ragray.text.scripts import WITHOUT_SPACES, letters_of

NEWEST = {"none": "none", "plain": "plain.2", "english": "english.2"}
"""The analyzer that a new index gets for a value of `index.lexical`."""

STOP_WORDS = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not", "of", "on", "or",
    "such", "that", "the", "their", "then", "there", "these", "they", "this", "to", "was", "will", "with",
})  # fmt: skip
"""Lucene's English stop words."""

_SINGLE = r"(?<!\w')[^\W_](?!'\w\w)"
_WORD = re.compile(rf"\w\w+|{_SINGLE}")
_ASCII_WORD = re.compile(rf"\w\w+|{_SINGLE}", re.ASCII)
_NO_MARKS = re.compile("[\x00-\u02ff\u0370-\u0482\u048a-\u052f\u1e00-\u20cf\u2100-\u2bff]*")
"""Latin, Greek, Cyrillic and symbols without combining marks, where `_WORD` finds what `_cut` finds, but faster."""

_IGNORED = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff"
    "\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
"""Unicode's Default_Ignorable_Code_Point: soft hyphen, zero-width space and joiners, direction marks, variation selectors."""

_OPTIONAL = re.compile(
    "[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8"
    "\u06ea-\u06ed]+"
)
"""Points of Hebrew and Arabic vowels, which most texts leave out, and the stroke that only widens an Arabic word."""

_APOSTROPHES = re.compile("[\u2019\u02bc]")
_FOREIGN_DIGIT = re.compile(r"(?![0-9])\d")


def newest(lexical: str) -> str:
    """Return the name of the newest analyzer for a value of `index.lexical`; a name with its version stays."""
    return NEWEST.get(lexical, lexical)


def fold(text: str) -> str:
    """Return a text as version 2 compares it: equal for texts that differ in width, case or layout characters alone.

    Unicode's NFKC_Casefold, and: digits of all scripts as 0 to 9, Hebrew and Arabic vowel points left out, one apostrophe.
    """
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKC", _IGNORED.sub("", text)).casefold()
    text = unicodedata.normalize("NFKC", text).replace("i\u0307", "i")  # casefold makes two characters of the Turkish İ
    text = _OPTIONAL.sub("", _APOSTROPHES.sub("'", text))
    return _FOREIGN_DIGIT.sub(lambda digit: str(unicodedata.digit(digit[0])), text)


def terms(text: str, analyzer: str) -> list[str]:
    """Return the terms of a text before they are stemmed, in its order; raises as `analyze` does."""
    if _version(analyzer) == 1:
        import bm25s

        omitted = "en" if analyzer == "english" else None
        [found] = bm25s.tokenize([text], stopwords=omitted, return_ids=False, show_progress=False)
        return list(found)
    stop_words = STOP_WORDS if analyzer == "english.2" else frozenset()
    return [word for word in _words(text) if word not in stop_words]


def analyze(texts: Sequence[str], analyzer: str) -> tuple[list[list[int]], np.ndarray]:
    """Cut texts into terms: for each text the numbers of its terms, in text order, and the hash of every number, uint64.

    Two numbers have one hash where two words have one stem.

    Raises:
        ArtifactError: the name is that of no analyzer, as in an index that a newer ragray built.
    """
    ids, words = (_numbered_first if _version(analyzer) == 1 else _numbered)(texts, analyzer)
    return ids, np.fromiter(map(_hash, words), np.uint64, len(words))


def _version(analyzer: str) -> int:
    versions = {"plain": 1, "english": 1, "plain.2": 2, "english.2": 2}
    if analyzer not in versions:
        raise ArtifactError(
            f"the index was built with the analyzer '{analyzer}', which this ragray does not have ({', '.join(versions)}); upgrade"
        )
    return versions[analyzer]


def _numbered(texts: Sequence[str], analyzer: str) -> tuple[list[list[int]], list[str]]:
    """Return the numbers of each text's terms, and the term of each number."""
    english = analyzer == "english.2"
    numbers: defaultdict[str, int] = defaultdict(count().__next__, dict.fromkeys(STOP_WORDS if english else (), -1))
    numbered = [list(map(numbers.__getitem__, _words(text))) for text in texts]
    words = [word for word, number in numbers.items() if number >= 0]
    if not english:
        return numbered, words
    import Stemmer

    return [[number for number in row if number >= 0] for row in numbered], Stemmer.Stemmer("english").stemWords(words)


def _numbered_first(texts: Sequence[str], analyzer: str) -> tuple[list[list[int]], list[str]]:
    """Do what `_numbered` does as version 1 did."""
    import bm25s
    import Stemmer

    stop_words, stemmer = ("en", Stemmer.Stemmer("english")) if analyzer == "english" else (None, None)
    found = bm25s.tokenize(list(texts), stopwords=stop_words, stemmer=stemmer, show_progress=False)
    return found.ids, sorted(found.vocab, key=found.vocab.__getitem__)


def _hash(term: str) -> int:
    digest = hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _words(text: str) -> list[str]:
    folded = fold(text)
    if folded.isascii():
        return _ASCII_WORD.findall(folded)
    if _NO_MARKS.fullmatch(folded):
        return _WORD.findall(folded)
    return _cut(folded)


def _cut(folded: str) -> list[str]:
    """Cut a folded text of any scripts into words and pairs of characters."""
    found: list[str] = []
    words, characters = _patterns()
    for dense, word in words.findall(folded):
        if word:
            found.append(word)
        else:
            parts = characters.findall(dense)
            found += map("".join, pairwise(parts)) if len(parts) > 1 else parts
    return found


@cache
def _patterns() -> tuple[regex.Pattern[str], regex.Pattern[str]]:
    """Return the pattern of (dense run, word), and that of a character of a dense run with its marks."""
    paired = letters_of(*WITHOUT_SPACES, "Hangul")
    first, more = rf"[[\p{{L}}\p{{N}}_]--{paired}]", rf"[[\p{{L}}\p{{N}}\p{{M}}_]--{paired}]"
    word = rf"{first}{more}+|(?<!{more}')(?!_){first}(?!'{more}{{2}})"
    return regex.compile(rf"((?:{paired}\p{{M}}*)+)|({word})", regex.V1), regex.compile(rf"{paired}\p{{M}}*", regex.V1)

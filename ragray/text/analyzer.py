"""The analyzer of lexical search. In: passages or queries. Out: the terms that are compared, the same for both.

An analyzer's name says its version: what `english.2` gives never changes, as the postings of finished indexes hold it.

- `english`, `plain`: words of two letters or digits at least, in lower case, as `bm25s` cuts them. Indexes built before version 2.
- `english.2`, `plain.2`: as version 3, without single characters of Han and Hangul beside the pairs.
- `english.3`, `plain.3`: texts are folded (`fold`), then cut into words, which keep their combining marks, and into overlapping
  pairs of characters where a script is Han, Kana, Hangul, Thai, Lao, Khmer or Burmese, as Lucene's CJKAnalyzer does. Single
  letters and digits are terms, except what an apostrophe leaves of an English or French word (it's, l'eau). Each character of Han
  and Hangul is a term too (`outputUnigrams` of Lucene), so that 水 finds 水道. Measured in docs/experiments.md.
- `english.3+opencc1.4.2`: traditional characters are folded to simplified ones, by that version of opencc.
- `english.3+rjieba0.2.2`: words of three Chinese characters and more are terms too, by the dictionary of that version of rjieba.
  Words of two are pairs already, and count once. Both options may stand, opencc first.

`english` leaves English stop words out and stems English words, `plain` does neither.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, count, pairwise
from typing import Any

import numpy as np
import regex

from ragray.errors import ArtifactError
from ragray.text.chinese import OPENCC, RJIEBA, installed, simplified, words
from ragray.text.normal import normalized
from ragray.text.scripts import WITHOUT_SPACES, letters_of

NEWEST = {"none": "none", "plain": "plain.3", "english": "english.3"}
"""The analyzer that a new index gets for a value of `index.lexical`."""

STOP_WORDS = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not", "of", "on", "or",
    "such", "that", "the", "their", "then", "there", "these", "they", "this", "to", "was", "will", "with",
})  # fmt: skip
"""Lucene's English stop words."""

REMEMBERED = 1 << 16
"""Words whose stems are kept: some 10 MB."""

_SINGLE = r"(?<!\w')[^\W_](?!'\w\w)"
_WORD = re.compile(rf"\w\w+|{_SINGLE}")
_ASCII_WORD = re.compile(rf"\w\w+|{_SINGLE}", re.ASCII)
_ASCII_SPACES = "".join(chr(code) if re.match(r"\w", chr(code)) else " " for code in range(128))
"""What stands for each ASCII character when words are split at spaces: itself in a word, a space elsewhere."""
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

_NAME = re.compile(
    r"(?P<kind>plain|english)(?:\.(?P<version>[23]))?"
    r"(?:(?<=\.3)(?:\+opencc(?P<opencc>[\w.]+))?(?:\+rjieba(?P<rjieba>[\w.]+))?)?"
)
_PLAIN = re.compile("[\x00-\xac\xae-\u02bb\u02bd-\u034e\u0350-\u0590\u2010-\u2027\u2030-\u205f\u2070-\u2bff]*")
"""Latin, Greek, Cyrillic and symbols: nothing that `_IGNORED`, `_OPTIONAL`, `_FOREIGN_DIGIT` or `_APOSTROPHES` finds, \u2019 aside."""
_APOSTROPHES = re.compile("[\u2019\u02bc]")
_FOREIGN_DIGIT = re.compile(r"(?![0-9])\d")


def newest(lexical: str, *, fold_traditional: bool = False, chinese_words: bool = False) -> str:
    """Return the name of the newest analyzer for a value of `index.lexical`, with its options.

    Raises:
        MissingPackageError: the package of an option is not installed.
    """
    name = NEWEST[lexical]
    if fold_traditional:
        name += f"+{OPENCC}{installed(OPENCC, 'index.fold_traditional')}"
    if chinese_words:
        name += f"+{RJIEBA}{installed(RJIEBA, 'index.chinese_words')}"
    return name


def settings_of(analyzer: str) -> dict[str, str | bool]:
    """Return the settings of section `index` that an analyzer's name stands for; raises as `analyze` does, other packages aside."""
    if analyzer == "none":
        return {"lexical": "none", "fold_traditional": False, "chinese_words": False}
    parts = _parts(analyzer)
    return {
        "lexical": str(parts["kind"]),
        "fold_traditional": parts[OPENCC] is not None,
        "chinese_words": parts[RJIEBA] is not None,
    }


def require_analyzer(analyzer: str) -> None:
    """Raise what `analyze` would raise."""
    _parsed(analyzer)


def fold(text: str) -> str:
    """Return a text as version 2 compares it: equal for texts that differ in width, case or layout characters alone.

    Unicode's NFKC_Casefold, and: digits of all scripts as 0 to 9, Hebrew and Arabic vowel points left out, one apostrophe.
    """
    if text.isascii():
        return text.lower()
    if not _PLAIN.fullmatch(text):
        text = _IGNORED.sub("", text)
    text = normalized("NFKC", normalized("NFKC", text).casefold()).replace("\u2019", "'")
    text = text.replace("i\u0307", "i")  # casefold makes two characters of the Turkish İ
    if _PLAIN.fullmatch(text):
        return text
    text = _OPTIONAL.sub("", _APOSTROPHES.sub("'", text))
    return _FOREIGN_DIGIT.sub(lambda digit: str(unicodedata.digit(digit[0])), text)


def terms(text: str, analyzer: str) -> list[str]:
    """Return the terms of a text before they are stemmed, in its order; raises as `analyze` does."""
    parsed = _parsed(analyzer)
    if parsed.version == 1:
        import bm25s

        omitted = "en" if analyzer == "english" else None
        [found] = bm25s.tokenize([text], stopwords=omitted, return_ids=False, show_progress=False)
        return list(found)
    stop_words = STOP_WORDS if parsed.is_english else frozenset()
    return [word for word in _words(text, parsed) if word not in stop_words]


def stems(text: str, analyzer: str) -> list[str]:
    """Return the terms of a text as they are compared, in its order; raises as `analyze` does."""
    parsed = _parsed(analyzer)
    if not parsed.is_english:
        return terms(text, analyzer)
    words = terms(text, analyzer) if parsed.version == 1 else _words(text, parsed)
    return list(filter(None, map(_STEMS.__getitem__, words)))


class _Stems(dict[str, str]):
    """The stems of English words, "" of stop words; those that were met are remembered."""

    def __missing__(self, word: str) -> str:
        if len(self) >= REMEMBERED:
            self.clear()
        stem: str = "" if word in STOP_WORDS else _stemmer().stemWord(word)
        self[word] = stem
        return stem


@cache
def _stemmer() -> Any:
    """Return a stemmer that threads may share for single words: it holds Python's lock while it works."""
    import Stemmer

    return Stemmer.Stemmer("english", 0)


_STEMS = _Stems()


def analyze(texts: Sequence[str], analyzer: str) -> tuple[list[list[int]], np.ndarray]:
    """Cut texts into terms: for each text the numbers of its terms, in text order, and the hash of every number, uint64.

    Two numbers have one hash where two words have one stem.

    Raises:
        ArtifactError: the name is that of no analyzer, as in an index that a newer ragray built, or another version of a package
            is installed than the index was built with.
        MissingPackageError: a package that the index was built with is not installed.
    """
    parsed = _parsed(analyzer)
    ids, found = (_numbered_first if parsed.version == 1 else _numbered)(texts, parsed)
    return ids, np.fromiter(map(_hash, found), np.uint64, len(found))


@dataclass(frozen=True, slots=True)
class _Analyzer:
    """What the name of an analyzer says."""

    is_english: bool
    version: int
    is_simplified: bool = False
    has_words: bool = False


def _parts(analyzer: str) -> dict[str, str | None]:
    found = _NAME.fullmatch(analyzer)
    if not found:
        raise ArtifactError(
            f"the index was built with the analyzer '{analyzer}', which this ragray does not have "
            "(plain, english, up to plain.3, english.3); upgrade"
        )
    return found.groupdict()


@cache
def _parsed(analyzer: str) -> _Analyzer:
    parts = _parts(analyzer)
    for package, setting in ((OPENCC, "index.fold_traditional"), (RJIEBA, "index.chinese_words")):
        wanted = parts[package]
        if wanted and installed(package, setting) != wanted:
            raise ArtifactError(
                f"the index was built with {package} {wanted}, installed is {installed(package, setting)}, whose dictionary may differ; "
                f"run: ragray index compact INDEX {setting}=true, or pip install {package}=={wanted}"
            )
    is_english, version = parts["kind"] == "english", int(parts["version"] or 1)
    return _Analyzer(is_english, version, bool(parts[OPENCC]), bool(parts[RJIEBA]))


def _numbered(texts: Sequence[str], analyzer: _Analyzer) -> tuple[list[list[int]], list[str]]:
    """Return the numbers of each text's terms, and the term of each number."""
    stop_words = STOP_WORDS if analyzer.is_english else ()
    numbers: defaultdict[str, int] = defaultdict(count().__next__, dict.fromkeys(stop_words, -1))
    numbered = [list(map(numbers.__getitem__, _words(text, analyzer))) for text in texts]
    found = [word for word, number in numbers.items() if number >= 0]
    if not analyzer.is_english:
        return numbered, found
    import Stemmer

    return [[number for number in row if number >= 0] for row in numbered], Stemmer.Stemmer("english").stemWords(found)


def _numbered_first(texts: Sequence[str], analyzer: _Analyzer) -> tuple[list[list[int]], list[str]]:
    """Do what `_numbered` does as version 1 did."""
    import bm25s
    import Stemmer

    stop_words, stemmer = ("en", Stemmer.Stemmer("english")) if analyzer.is_english else (None, None)
    found = bm25s.tokenize(list(texts), stopwords=stop_words, stemmer=stemmer, show_progress=False)
    return found.ids, sorted(found.vocab, key=found.vocab.__getitem__)


def _hash(term: str) -> int:
    digest = hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _words(text: str, analyzer: _Analyzer) -> list[str]:
    folded = fold(text)
    if folded.isascii():
        if "'" in folded:
            return _ASCII_WORD.findall(folded)
        found = folded.translate(_ASCII_SPACES).split()  # the same, in a third of the time
        return [word for word in found if word != "_"] if "_" in found else found
    if _NO_MARKS.fullmatch(folded):
        return _WORD.findall(folded)
    return _cut(folded.translate(simplified()) if analyzer.is_simplified else folded, analyzer)


def _cut(folded: str, analyzer: _Analyzer) -> list[str]:
    """Cut a folded text of any scripts into words, and pairs of characters; behind the pairs of a run come its characters, its words."""
    found: list[str] = []
    in_spaces, characters, singles, han = _patterns()
    for dense, word in in_spaces.findall(folded):
        if word:
            found.append(word)
            continue
        parts = characters.findall(dense)
        if len(parts) == 1:
            found += parts
            continue
        found += map("".join, pairwise(parts))
        if analyzer.version > 2:
            found += singles.findall(dense)
        if analyzer.has_words:
            found += chain.from_iterable(map(words, han.findall(dense)))
    return found


@cache
def _patterns() -> tuple[regex.Pattern[str], ...]:
    """Return the patterns of (dense run, word), of a character of a dense run with its marks, of one of Han or Hangul, of a run of Han."""
    paired, single = letters_of(*WITHOUT_SPACES, "Hangul"), letters_of("Han", "Hangul")
    first, more = rf"[[\p{{L}}\p{{N}}_]--{paired}]", rf"[[\p{{L}}\p{{N}}\p{{M}}_]--{paired}]"
    word = rf"{first}{more}+|(?<!{more}')(?!_){first}(?!'{more}{{2}})"
    patterns = (rf"((?:{paired}\p{{M}}*+)++)|({word})", rf"{paired}\p{{M}}*", rf"{single}\p{{M}}*", r"\p{Han}{3,}")
    return tuple(regex.compile(pattern, regex.V1) for pattern in patterns)

"""Answer metrics by language. In: a predicted and an accepted text. Out: exact match, F1 and containment, as a metric defines them. Pure.

- `squad`: Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1. Tokens are words; punctuation of ASCII, English articles and case
  do not count.
- `cmrc`: Cui et al. 2019, arXiv:1810.07366. Tokens are characters of scripts without spaces, and words of others; F1 counts the
  longest common run of tokens. The authors' script drops a list of marks and splits English with NLTK; here all punctuation goes.
- `mlqa`: Lewis et al. 2020, arXiv:1910.07475. Words, or tokens as in `cmrc` for scripts without spaces; punctuation of all scripts
  and the articles of the language do not count. `mlqa` alone takes the language from the script (Latin: English).

`cmrc` and `mlqa` fold width first (NFKC), which their authors' scripts do not.
"""

from __future__ import annotations

import re
import string
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache, partial

from ragray.text.scripts import count_units, runs, split_dense

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)

_ARTICLES_OF = {
    "en": _ARTICLES,
    "es": re.compile(r"\b(un|una|unos|unas|el|la|los|las)\b"),
    "vi": re.compile(r"\b(của|là|cái|chiếc|những)\b"),
    "de": re.compile(r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b"),
    "ar": re.compile("ال"),
}
"""What MLQA's script leaves out; in Arabic the two letters of the article wherever they stand, also inside a word."""

_LANGUAGE_OF = {"Arabic": "ar", "Devanagari": "hi", "Latin": "en"}


def normalize(text: str) -> str:
    """Lower-case, drop punctuation, then articles, then extra white space, in this order: SQuAD's normalisation."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def multiset_f1(predicted: Sequence[str], expected: Sequence[str]) -> float:
    """Return the harmonic mean of token precision and recall, tokens counted with their multiplicity."""
    return _f1(sum((Counter(predicted) & Counter(expected)).values()), predicted, expected)


def common_run_f1(predicted: Sequence[str], expected: Sequence[str]) -> float:
    """Return the harmonic mean of precision and recall of the longest run of tokens that both hold."""
    return _f1(
        SequenceMatcher(None, predicted, expected, autojunk=False).find_longest_match().size, predicted, expected
    )


def _f1(shared: int, predicted: Sequence[str], expected: Sequence[str]) -> float:
    return 2 * shared / (len(predicted) + len(expected)) if shared else 0.0


@dataclass(frozen=True, slots=True)
class Metric:
    """How a prediction is compared with a reference.

    ``tokens`` cuts a text after normalisation; ``f1`` compares two lists of tokens; ``exact`` is what exact match compares.
    """

    tokens: Callable[[str], list[str]]
    exact: Callable[[str], str]
    f1: Callable[[Sequence[str], Sequence[str]], float]


def metric_for(reference: str, setting: str) -> str:
    """Return the metric that a value of `evaluate.metric` means for a reference; `auto` chooses by its script.

    `cmrc` where characters of scripts without spaces are more than words of others, `mlqa` where another script than Latin has
    most words, else `squad`.
    """
    if setting != "auto":
        return setting
    dense, words = count_units(reference)
    if dense > words:
        return "cmrc"
    return "squad" if _main_script(reference) in ("Latin", "") else "mlqa"


@cache
def metric(name: str) -> Metric:
    """Return the metric of a name that `metric_for` gives."""
    if name == "squad":
        return Metric(_squad_tokens, normalize, multiset_f1)
    if name == "cmrc":
        return Metric(_cmrc_tokens, _without_punctuation, common_run_f1)
    tokens = partial(_mlqa_tokens, name.removeprefix("mlqa").removeprefix("-"))
    return Metric(tokens, lambda text: " ".join(tokens(text)), multiset_f1)


def _squad_tokens(text: str) -> list[str]:
    return normalize(text).split()


def _cmrc_tokens(text: str) -> list[str]:
    return split_dense(_without_punctuation(text))


def _mlqa_tokens(language: str, text: str) -> list[str]:
    text = _without_punctuation(text)
    language = language or _LANGUAGE_OF.get(_main_script(text), "")
    if articles := _ARTICLES_OF.get(language):
        text = articles.sub(" ", text)
    return split_dense(text) if language in ("", "zh") else text.split()


def _without_punctuation(text: str) -> str:
    """Fold width, lower-case, strip white space at both ends, drop punctuation of all scripts."""
    return unicodedata.normalize("NFKC", text).lower().strip().translate(_all_punctuation())


@cache
def _all_punctuation() -> dict[int, None]:
    marks = (code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)).startswith("P"))
    return dict.fromkeys([*marks, *map(ord, string.punctuation)])


def _main_script(text: str) -> str:
    """Return the script with most characters, "" where none is known."""
    sizes: Counter[str] = Counter()
    for script, run in runs(text):
        sizes[script] += len(run)
    del sizes["Common"]
    return max(sizes, key=sizes.__getitem__, default="")

"""Slices of the questions. In: answered questions. Out: their figures by question word, answer length, rank of the gold passage. Pure.

A question word is the first of its language's words below; English is tried first, then German (only where an article or auxiliary of
German stands in the question, as `was` is English too), French, Spanish, Chinese. A relative pronoun may be taken for one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from ragray.evaluate.answers import metric_of
from ragray.evaluate.measures.measured import Measured
from ragray.evaluate.metrics import metric as metric_named
from ragray.evaluate.records import Answered
from ragray.evaluate.report.figures import Figure, figures

WORDS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "how many": "how (?:many|much)",
        **{word: word for word in ("what", "which", "when", "where", "why", "how")},
        "who": "who|whom|whose",
    },
    "de": {
        "how many": "wie ?viele?",
        "what": "was",
        "which": "welche[rsmn]?",
        "when": "wann",
        "where": "wo|woher|wohin",
        "why": "warum|weshalb|wieso",
        "who": "wer|wen|wem|wessen",
        "how": "wie",
    },
    "fr": {
        "how many": "combien",
        "what": "qu'est-ce|que|quoi",
        "which": "quels?|quelles?|lequel|laquelle",
        "when": "quand",
        "where": "où",
        "why": "pourquoi",
        "who": "qui",
        "how": "comment",
    },
    "es": {
        "how many": "cuánt[oa]s?",
        "what": "qué",
        "which": "cuál(?:es)?",
        "when": "cuándo",
        "where": "dónde|adónde",
        "why": "por qué",
        "who": "quién(?:es)?",
        "how": "cómo",
    },
    "zh": {
        "how many": "多少|几|幾",
        "when": "什么时候|什麼時候|何时|何時|哪年|哪一年|哪天",
        "where": "哪里|哪裡|哪儿|何处|什么地方|什麼地方",
        "why": "为什么|為什麼|为何|為何",
        "how": "怎么|怎麼|怎样|怎樣|如何",
        "who": "谁|誰",
        "what": "什么|什麼|何",
        "which": "哪",
    },
}
"""Patterns by language and slice; where several begin at one place, the first of them counts."""

GERMAN = re.compile(r"\b(der|die|das|dem|den|ist|sind|hat|wurde|wird|heißt|und|im|ein|eine)\b", re.IGNORECASE)
LENGTHS = ((1, "1 token"), (3, "2-3 tokens"), (10, "4-10 tokens"))
RANKS = ((1, "1"), (5, "2-5"), (20, "6-20"))
SHOWN = ("exact_match", "f1")
"""Measures that a slice is reported by."""


def question_word(question: str) -> str:
    """Return the kind of question: who, what, which, when, where, why, how, how many, or other."""
    for language, words in WORDS.items():
        if language == "de" and not GERMAN.search(question):
            continue
        edge = "" if language == "zh" else r"\b"
        pattern = "|".join(f"(?P<s{number}>{edge}(?:{one}){edge})" for number, one in enumerate(words.values()))
        if found := re.search(pattern, question, re.IGNORECASE):
            return list(words)[int(str(found.lastgroup)[1:])]
    return "other"


def answer_length(one: Answered, metric: str) -> str:
    """Return how long the shortest reference is, in tokens of its metric."""
    chosen = metric_of(one.example, metric)
    length = min(len(metric_named(chosen).tokens(answer)) for answer in one.example.answers)
    return next((name for most, name in LENGTHS if length <= most), "over 10 tokens")


def gold_rank_of(one: Answered) -> str:
    """Return where the first gold passage stood."""
    if not one.example.gold_ids:
        return "no gold ids"
    rank = one.gold_rank
    if rank is None:
        return "not found"
    return next((name for most, name in RANKS if rank <= most), "over 20")


def slices(
    answered: Sequence[Answered], found: Sequence[Measured], metric: str, *, with_retrieval: bool
) -> dict[str, dict[str, dict[str, Figure]]]:
    """Return by kind of slice, slice and measure the figures of the answers in it; a slice with none is left out."""
    kinds: dict[str, Callable[[Answered], str]] = {
        "question word": lambda one: question_word(one.example.question),
        "answer length": lambda one: answer_length(one, metric),
    }
    if with_retrieval:
        kinds["rank of the gold passage"] = gold_rank_of
    shown = [one for one in found if one.name in SHOWN]
    return {kind: dict(_sliced(list(map(of, answered)), shown)) for kind, of in kinds.items()}


def _sliced(names: Sequence[str], found: Sequence[Measured]) -> Iterator[tuple[str, dict[str, Figure]]]:
    for name in _ordered(set(names)):
        inside_N = np.array([one == name for one in names])
        yield name, figures(Measured(one.name, one.rows_NS[inside_N], one.value, one.how) for one in found)


def _ordered(names: set[str]) -> list[str]:
    """Return the names of slices in the order in which they are defined."""
    known = [*WORDS["en"], "other", *(name for _, name in LENGTHS), "over 10 tokens", *(name for _, name in RANKS)]
    return sorted(names, key=[*known, "over 20", "not found", "no gold ids"].index)

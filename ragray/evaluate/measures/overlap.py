"""Measures of longer texts, by the extra `metrics`. In: answers and references. Out: BLEU and chrF (`sacrebleu`), ROUGE (`rouge-score`)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import zip_longest
from typing import Any

import numpy as np

from ragray.evaluate.measures.measured import Measured, mean_of
from ragray.evaluate.metrics import metric as metric_named
from ragray.evaluate.records import Answered
from ragray.text.scripts import count_units, runs

ROUGE = ("rouge1", "rouge2", "rougeL")
ASCII_SHARE = 0.99
"""Share of letters that must be ASCII for the tokens of `rouge-score`, which drop all others."""


def bleu(answered: Sequence[Answered]) -> Measured:
    """Return BLEU (Papineni et al. 2002) as sacrebleu computes it (Post 2018, arXiv:1804.08771).

    Chinese and Japanese are split into characters, other texts by `13a`.
    """
    from sacrebleu.metrics import BLEU

    return _of_sacrebleu("bleu", BLEU(tokenize=_tokenizer(answered), force=True), answered)


def chrf(answered: Sequence[Answered]) -> Measured:
    """Return chrF (Popović 2015): F of character n-grams up to 6, recall counted twice."""
    from sacrebleu.metrics import CHRF

    return _of_sacrebleu("chrf", CHRF(), answered)


def _of_sacrebleu(name: str, metric: Any, answered: Sequence[Answered]) -> Measured:
    """Return a figure of sacrebleu with the numbers of each answer that it is computed from.

    They have no public name; `sacrebleu.significance` takes them in the same way. A test holds the figure against `corpus_score`.
    """
    references = list(zip_longest(*(one.example.answers for one in answered)))
    rows = metric._extract_corpus_statistics([one.prediction for one in answered], references)
    signature = str(metric.get_signature())

    def value(sums_TS: np.ndarray) -> np.ndarray:
        counts = np.rint(sums_TS).astype(int).tolist()
        return np.array([metric._compute_score_from_stats(one).score for one in counts])

    return Measured(name, np.array(rows, dtype=np.float64), value, f"sacrebleu {signature}")


def _tokenizer(answered: Sequence[Answered]) -> str:
    """Return the tokenizer of BLEU for the script of most references: `zh`, `char` where others write no spaces, else `13a`."""
    texts = " ".join(text for one in answered for text in one.example.answers)
    dense, words = count_units(texts)
    if dense <= words:
        return "13a"
    return "zh" if {script for script, _ in runs(texts)} <= {"Han", "Latin", "Common"} else "char"


def rouge(names: Sequence[str], answered: Sequence[Answered]) -> Iterator[Measured]:
    """Yield F of ROUGE (Lin 2004) by name: `rouge1`, `rouge2`, `rougeL`; the best reference of each answer counts.

    Texts of ASCII letters are split and stemmed by `rouge-score`; others, whose letters it drops, into the tokens of the metric `mlqa`.
    """
    from rouge_score.rouge_scorer import RougeScorer

    logging.getLogger("absl").setLevel(logging.WARNING)  # names its tokenizer each time
    plain = _is_ascii(answered)
    scorer = RougeScorer(list(names), use_stemmer=True, tokenizer=None if plain else _Tokens())
    found = [scorer.score_multi(one.example.answers, one.prediction) for one in answered]
    how = f"F, rouge-score {version('rouge-score')}, {'Porter stemmer' if plain else 'tokens of mlqa, no stemmer'}"
    for name in names:
        yield mean_of(name, [float(scores[name].fmeasure) for scores in found], how)


def _is_ascii(answered: Sequence[Answered]) -> bool:
    letters = [letter for one in answered for text in one.example.answers for letter in text if letter.isalpha()]
    return sum(letter.isascii() for letter in letters) >= ASCII_SHARE * len(letters)


class _Tokens:
    """What `RougeScorer` asks of a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of a text."""
        return metric_named("mlqa").tokens(text)

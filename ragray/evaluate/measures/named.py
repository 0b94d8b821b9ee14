"""Measures by name. In: answered questions, the names of `evaluate.metrics`. Out: what each measure found, or what is not installed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from ragray.config import EvaluateConfig
from ragray.errors import ConfigError, MissingPackageError
from ragray.evaluate.answers import Measure, best_of, contains, exact_match, metric_of, token_f1
from ragray.evaluate.measures.citations import CITATIONS, citation_measures
from ragray.evaluate.measures.entailment import LEXICAL, load_entailment
from ragray.evaluate.measures.labels import NAMES as LABELS
from ragray.evaluate.measures.labels import label_measures, require_labels
from ragray.evaluate.measures.measured import Measured, mean_of
from ragray.evaluate.measures.overlap import ROUGE, bleu, chrf, rouge
from ragray.evaluate.measures.ranks import answer_in_context, ranking_measures
from ragray.evaluate.records import Answered
from ragray.types import Example, Passage

ALWAYS: Mapping[str, Measure] = {"exact_match": exact_match, "f1": token_f1, "accuracy": contains}
"""Measures of every report."""

PACKAGES = {"bleu": "sacrebleu", "chrf": "sacrebleu", **dict.fromkeys(ROUGE, "rouge_score")}
"""What a measure imports."""


@dataclass(frozen=True, slots=True)
class Context:
    """The passages that the answers were made from, by id; what retrieval found, if there was any."""

    passages: Mapping[str, Passage]
    with_retrieval: bool


CLOSED_BOOK = Context({}, with_retrieval=False)


def require_measurable(
    settings: EvaluateConfig,
    examples: Sequence[Example],
    *,
    with_passages: bool,
    find: Callable[[str], object] = find_spec,
) -> None:
    """Say before anything starts what cannot be measured; ``find`` returns None for a package that is not installed.

    Raises:
        MissingPackageError: a package is not installed; holds the command that installs it.
        ConfigError: citations are to be measured where there are no passages, or labels where references are none.
    """
    for name in settings.metrics:
        if name in PACKAGES and find(PACKAGES[name]) is None:
            package = PACKAGES[name].replace("_", "-")
            raise MissingPackageError(f"evaluate.metrics={name} needs {package}; run: pip install 'ragray[metrics]'")
        if name in CITATIONS and not with_passages:
            raise ConfigError(f"evaluate.metrics={name} needs passages, and here are none; leave it out")
    if set(LABELS) & set(settings.metrics):
        require_labels(examples)


def needs_model(settings: EvaluateConfig) -> bool:
    """Return whether a measure asks a model what a passage supports."""
    return settings.entailment != LEXICAL and bool(set(CITATIONS) & set(settings.metrics))


def measures(answered: Sequence[Answered], settings: EvaluateConfig, context: Context = CLOSED_BOOK) -> list[Measured]:
    """Return what is measured of some answers, in the order in which it is reported.

    Raises:
        ModelNotFoundError, ModelError: the entailment model cannot be loaded.
    """
    found = [*_always(answered, settings.metric), *_asked(answered, settings, context)]
    if context.with_retrieval:
        found += ranking_measures(answered, settings.recall_at)
    if context.passages:
        found.append(answer_in_context(answered, context.passages, settings.metric))
    return found


def _always(answered: Sequence[Answered], metric: str) -> Iterator[Measured]:
    chosen = [metric_of(one.example, metric) for one in answered]
    how = ", ".join(f"{name}: {count:,}" for name, count in sorted(Counter(chosen).items()))
    for name, measure in ALWAYS.items():
        pairs = zip(answered, chosen, strict=True)
        values = [0.0 if one.missing else best_of(measure, one.prediction, one.example, by) for one, by in pairs]
        yield mean_of(name, values, how)


def _asked(answered: Sequence[Answered], settings: EvaluateConfig, context: Context) -> Iterator[Measured]:
    """Yield the measures that `evaluate.metrics` names; those of one family are computed together."""
    names = settings.metrics
    families: Mapping[tuple[str, ...], Callable[[], Iterator[Measured]]] = {
        ("bleu",): lambda: iter([bleu(answered)]),
        ("chrf",): lambda: iter([chrf(answered)]),
        ROUGE: lambda: rouge([name for name in ROUGE if name in names], answered),
        LABELS: lambda: label_measures(answered, settings.metric),
        CITATIONS: lambda: citation_measures(answered, context.passages, load_entailment(settings.entailment)),
    }
    for family, compute in families.items():
        if set(family) & set(names):
            yield from (one for one in compute() if one.name in names)

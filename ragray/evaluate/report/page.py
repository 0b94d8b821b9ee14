"""A report as one page. In: its values, the answers with their passages. Out: HTML without script and without outside resources. Pure."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from ragray.evaluate.measures.measured import Measured
from ragray.evaluate.records import Answered
from ragray.evaluate.report.examples import Shown, examples
from ragray.evaluate.report.figures import Figure, figures_from
from ragray.evaluate.report.markup import Child, Markup, element, raw_style
from ragray.evaluate.report.svg import histogram, intervals_plot, recall_curve
from ragray.types import Passage

NAMES: Mapping[str, str] = {
    "exact_match": "Exact match",
    "f1": "F1",
    "accuracy": "Accuracy (contains a reference)",
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "label_accuracy": "Accuracy of labels",
    "macro_f1": "Macro-F1 of labels",
    "citation_recall": "Citation recall",
    "citation_precision": "Citation precision",
    "answer_in_context": "Answer in context",
    "mrr": "MRR",
    "closed_book": "Closed book",
    "zero_shot": "Zero-shot",
    "gold_passage": "Gold passage",
}
THIS = "This system"
DEEPEST = 20
"""Ranks of the recall curve."""


def page(
    values: Mapping[str, Any], answered: Sequence[Answered], found: Sequence[Measured], passages: Mapping[str, Passage]
) -> str:
    """Return the page. Whatever a document, question or answer holds stands in it as text."""
    style = (files(__package__) / "style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(f"\n{style}".encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", "Evaluation report"),
        raw_style(style),
    )
    body = element("body", element("main", *_sections(values, answered, found, passages)))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _sections(
    values: Mapping[str, Any], answered: Sequence[Answered], found: Sequence[Measured], passages: Mapping[str, Passage]
) -> Iterator[Markup]:
    figures = figures_from(values["figures"])
    yield element(
        "header", element("h1", "Evaluation report"), element("p", _summary(values, len(answered)), class_="soft")
    )
    yield _section("Figures", _figure_table(figures), intervals_plot(_named(figures), "Figures with 95 % intervals"))
    if values["bounds"]:
        yield _section("Bounds", *_bounds(values, figures))
    if values["baseline"]:
        yield _section("Against the baseline", *_baseline(values["baseline"]))
    yield _section("Distributions", *_distributions(answered, found, values["retrieval"] is not None))
    yield _section("Slices", *(part for kind, parts in values["slices"].items() for part in _slice(kind, parts)))
    best, worst, how = examples(answered, found)
    yield _section("Best answers", _soft(how), *(_example(one, passages) for one in best))
    yield _section("Worst answers", _soft(how), *(_example(one, passages) for one in worst))
    yield _section("Left out", _pairs({name: f"{count:,}" for name, count in values["left_out"].items()}))
    yield _section("Settings", _pairs({name: _as_text(value) for name, value in values["system"].items()}))


def _section(title: str, *parts: Child) -> Markup:
    return element("section", element("h2", title), *parts)


def _soft(text: str) -> Markup:
    return element("p", text, class_="soft")


def _summary(values: Mapping[str, Any], count: int) -> str:
    system = values["system"]
    parts = [f"{count:,} questions", *(str(system[key]) for key in ("generator", "snapshot") if system.get(key))]
    return ", ".join(parts) + ". Intervals hold 95 % of 1,000 bootstrap resamples."


def _name(name: str) -> str:
    return NAMES.get(name, name.replace("recall@", "Recall@").replace("ndcg@", "nDCG@"))


def _named(figures: Mapping[str, Figure]) -> dict[str, Figure]:
    return {_name(name).partition(" (")[0]: one for name, one in figures.items()}


def _table(heading: Sequence[str], rows: Iterable[Sequence[Child]]) -> Markup:
    head = element("tr", *(element("th", name, scope="col") for name in heading))
    lines = [
        element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:])) for row in rows
    ]
    return element("div", element("table", element("thead", head), element("tbody", *lines)), class_="wide")


def _percent(value: float) -> str:
    return f"{value:.1f}"


def _between(low: float, high: float) -> str:
    return f"{low:.1f} to {high:.1f}"


def _figure_table(figures: Mapping[str, Figure]) -> Markup:
    rows = [
        (_name(name), _percent(one.value), _between(one.low, one.high), f"{one.num_examples:,}", one.how)
        for name, one in figures.items()
    ]
    return _table(("Measure", "%", "95 % interval", "Answers", "How"), rows)


def _bounds(values: Mapping[str, Any], figures: Mapping[str, Figure]) -> Iterator[Markup]:
    """Yield a table of all systems by the measures, and a plot of their F1."""
    systems = {THIS: figures, **{_name(name): figures_from(one["figures"]) for name, one in values["bounds"].items()}}
    rows = [
        (_name(name), *(_with_interval(one[name]) if name in one else "-" for one in systems.values()))
        for name in figures
    ]
    counts = (f"{max((one.num_examples for one in found.values()), default=0):,}" for found in systems.values())
    yield _table(("Measure", *systems), [*rows, ("Answers", *counts)])
    yield intervals_plot({system: one["f1"] for system, one in systems.items() if "f1" in one}, "F1 beside its bounds")
    yield element("ul", *(element("li", f"{_name(name)}: {one['what']}") for name, one in values["bounds"].items()))


def _baseline(found: Mapping[str, Any]) -> Iterator[Markup]:
    only = f"{len(found['only_here'])} ids are only here, {len(found['only_baseline'])} only there"
    other = f"{found['num_other_references']} have other references there"
    yield _soft(
        f"{found['report']}: {found['num_shared']:,} shared ids; {only}; {other}. p: {found['test']}, {found['trials']:,} trials."
    )
    rows = [
        (
            _name(name),
            _percent(one["here"]),
            _percent(one["baseline"]),
            f"{one['difference']:+.1f}",
            _between(one["low"], one["high"]),
            f"{one['p_value']:.4f}",
        )
        for name, one in found["figures"].items()
    ]
    yield _table(("Measure", "Here", "Baseline", "Difference", "95 % interval", "p"), rows)


def _distributions(answered: Sequence[Answered], found: Sequence[Measured], retrieved: bool) -> Iterator[Markup]:
    f1 = next(one for one in found if one.name == "f1")
    yield histogram(f1.values(), "Answers by F1, %")
    ranks = [one.gold_rank for one in answered if one.example.gold_ids]
    deepest = min(DEEPEST, max((rank for rank in ranks if rank), default=1))
    if retrieved and deepest > 1:
        recall = [
            100 * sum(rank is not None and rank <= k for rank in ranks) / len(ranks) for k in range(1, deepest + 1)
        ]
        yield recall_curve(recall, "Questions with a gold passage among the first k")


def _slice(kind: str, parts: Mapping[str, Mapping[str, Any]]) -> Iterator[Markup]:
    figures = {name: figures_from(inside) for name, inside in parts.items()}
    names = list(next(iter(figures.values()), {}))
    rows = [
        (name, f"{max(one.num_examples for one in inside.values()):,}", *map(_with_interval, inside.values()))
        for name, inside in figures.items()
    ]
    yield element("h3", f"By {kind}")
    yield _table((kind.capitalize(), "Answers", *map(_name, names)), rows)
    yield intervals_plot({name: inside["f1"] for name, inside in figures.items() if "f1" in inside}, f"F1 by {kind}")


def _with_interval(one: Figure) -> str:
    return f"{_percent(one.value)} ({_between(one.low, one.high)})"


def _example(shown: Shown, passages: Mapping[str, Passage]) -> Markup:
    one = shown.answered
    facts = {
        "Answer": one.text or "(nothing)",
        "References": " | ".join(one.example.answers),
        "Score": f"{_name(shown.measure)} {shown.value:.1f} %, log-probability {one.log_prob:.2f}",
        "Gold passage": f"rank {one.gold_rank}"
        if one.gold_rank
        else "not found"
        if one.example.gold_ids
        else "no gold ids",
        "Id": one.example.id,
    }
    if one.finish_reason == "length":
        facts["Cut"] = "at generate.max_new_tokens"
    read = [_passage(number, one, passages) for number in range(len(one.sources))]
    return element("article", element("h3", one.example.question), _pairs(facts), *read)


def _passage(number: int, one: Answered, passages: Mapping[str, Passage]) -> Markup:
    name = one.sources[number]
    passage = passages.get(name, Passage(name, "(the index does not hold it any more)"))
    is_gold = bool({passage.id, passage.document_id} & set(one.example.gold_ids))
    share = f"{100 * one.weights[number]:.0f} %" if number < len(one.weights) else "-"
    label = f"[{number + 1}] {passage.title or passage.id}, share {share}{', gold' if is_gold else ''}"
    return element("details", element("summary", label), element("p", passage.text))


def _pairs(pairs: Mapping[str, str]) -> Markup:
    rows = [element("div", element("dt", name), element("dd", value)) for name, value in pairs.items()]
    return element("dl", *rows)


def _as_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "\n".join(f"{key}: {inside}" for key, inside in value.items())
    return str(value)

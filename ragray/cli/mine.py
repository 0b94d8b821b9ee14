"""`ragray mine`. In: an index, examples. Out: triples to train a retriever on; what was left out, by reason."""

from __future__ import annotations

from collections.abc import Mapping

from ragray.cli.options import ConfigFile, ExamplesOption, IndexOption, Out, Overrides, RunOption, say, took
from ragray.config import load_config


def mine(
    index: IndexOption,
    examples: ExamplesOption,
    out: Out,
    overrides: Overrides = None,
    run: RunOption = None,
    config: ConfigFile = None,
) -> None:
    """Find hard negatives for every question, by vectors and BM25 together; `train` with train.objective=contrastive reads them.

    The positive is a gold passage or, without gold ids, the best passage that holds an accepted answer. OUT/triples.jsonl has a
    line per negative; its columns question, positive, negative are those of sentence-transformers.
    """
    from ragray.stages.mine import mine_negatives as run_stage

    settings = load_config(config, overrides or [], command="mine")
    report = run_stage(index, examples, out, settings, run=run)
    facts = report.facts
    say(f"{out}: {facts.num_triples} triples of {facts.num_questions} questions{took(report)}")
    say(f"{out}: questions left out: {_counts(facts.left_out)}; candidates refused: {_counts(facts.refused)}")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} ({reason})" for reason, count in sorted(counts.items())) or "none"

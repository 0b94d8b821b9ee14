"""A system under test. In: settings, a run, an index. Out: what answers, as a report names it, and the passages that it is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragray.config import Config
from ragray.errors import ConfigError, InputError
from ragray.examples import read_examples
from ragray.generate.exemplars import candidates, shown_for, with_exemplars
from ragray.index.store.live import named_passages
from ragray.index.store.snapshot import read_snapshot
from ragray.run import Run
from ragray.types import Example, Passage

NOT_DECISIVE = ("num_shards", "num_replicas", "cpus_per_actor", "threads")
"""Keys of `RetrieveConfig` that do not change what is found."""

WHERE_IT_RUNS = ("num_workers", "cpus_per_worker", "gpus_per_worker")
"""Keys of `EvaluateConfig` that do not change what a report says."""


@dataclass(frozen=True, slots=True)
class SystemUnderTest:
    """What answers the questions: a closed book has no index; of an index it is one snapshot, whatever is published meanwhile.

    With ``gold`` it reads the gold passages of each question instead of what it finds. ``exemplars`` are shown in the prompts
    (`ragray.generate.exemplars`).
    """

    config: Config
    run: Run | None
    index: Path | None = None
    snapshot: str = ""
    gold: bool = False
    exemplars: tuple[Example, ...] = ()

    def instruction(self, question: str) -> str:
        """Return the instruction of a question's prompt with the examples shown in it; "" where it is that of the template."""
        shown = shown_for(question, self.exemplars, self.config.evaluate.shots)
        return with_exemplars(self.config.generate.instruction, shown)


def described(system: SystemUnderTest) -> dict[str, Any]:
    """Return for the report what answers, and by which settings; not where it runs."""
    config = system.config
    retrieve = config.retrieve.model_dump(mode="json", exclude=set(NOT_DECISIVE)) if system.index else {}
    return {
        "generator": system.run.name if system.run else config.generate.model,
        "snapshot": system.snapshot,
        "passages": "gold" if system.gold else "retrieved" if system.index else "none",
        "generate": config.generate.model_dump(mode="json"),
        "retrieve": retrieve,
        "evaluate": config.evaluate.model_dump(mode="json", exclude=set(WHERE_IT_RUNS)),
    }


def given_passages(questions: Sequence[Example], system: SystemUnderTest) -> dict[str, tuple[Passage, ...]]:
    """Return the first k gold passages of each question that has any, by its id.

    Raises:
        InputError: none has any.
    """
    k = system.config.retrieve.k
    if system.index:
        snapshot = read_snapshot(system.index, system.snapshot)
        found = named_passages([question.gold_ids for question in questions], system.index, snapshot)
    else:
        found = []
    given = {question.id: passages[:k] for question, passages in zip(questions, found, strict=bool(found)) if passages}
    if not given:
        raise InputError(
            "evaluate: no example has gold ids that the index holds, so that there is no gold passage to read"
        )
    return given


def exemplars(config: Config) -> tuple[Example, ...]:
    """Read the examples that prompts show, none without `evaluate.shots`; raises as `candidates` does."""
    settings = config.evaluate
    if not settings.shots:
        return ()
    if not settings.exemplars:
        raise ConfigError(
            f"evaluate.shots={settings.shots} needs evaluate.exemplars, a file of solved examples; name that of training"
        )
    return candidates(read_examples(settings.exemplars, config.examples), settings.shots)

"""Which setting has an effect in which command. In: a command, the keys that were given. Out: what to say of those without effect. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ragray.config.sections import Config, EncoderConfig

POOL = ("retrieve.num_shards", "retrieve.num_replicas", "retrieve.cpus_per_actor", "retrieve.threads")
SEARCH = (
    *(
        "retrieve.k",
        "retrieve.mode",
        "retrieve.where",
        "retrieve.candidates",
        "retrieve.rrf_k",
        "retrieve.rerank_model",
    ),
    "retrieve.threads",
    *(f"embed.{key}" for key in EncoderConfig.model_fields),
)
PROMPT = ("generate.model", "generate.instruction", "generate.marginalize", "generate.max_prompt_tokens")

USED: Mapping[str, tuple[str, ...]] = {
    "ingest": ("ingest.*", "embed.*", "cluster.*"),
    "embed": ("embed.*", "cluster.*"),
    "index build": ("index.*", "cluster.*"),
    "index sync": ("embed.*", "index.segment_rows", "cluster.*"),
    "index compact": ("index.*", "cluster.*"),
    "index import": ("embed.*",),
    "search": SEARCH,
    "evaluate retrieval": SEARCH,
    "ask": (*SEARCH, "generate.*"),
    # `train` itself says that it looks at neither of the first three, also where a file sets them.
    "train": (
        *("retrieve.mode", "retrieve.where", "retrieve.rerank_model", *POOL),
        *("train.*", *PROMPT, "examples.*", "cluster.*"),
    ),
    "evaluate": (*SEARCH, "generate.*", "evaluate.*", "examples.*", "cluster.*"),
    "score": ("examples.*", "evaluate.metric"),
    "serve": (*SEARCH, "generate.*", "serve.*", "cluster.*"),
}
"""Patterns of the keys that a command looks at; a command that is not named looks at all."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Keys that have an effect only where other settings say so."""

    keys: tuple[str, ...]
    holds: Callable[[Config], bool]
    wanted: str


CONDITIONS = (
    Condition(("train.last_layers",), lambda c: c.train.tune == "last", "with train.tune=last"),
    Condition(("train.lora_rank",), lambda c: c.train.tune == "lora", "with train.tune=lora"),
    Condition(("retrieve.rrf_k",), lambda c: c.retrieve.mode == "hybrid", "with retrieve.mode=hybrid"),
    Condition(
        ("retrieve.candidates",),
        lambda c: c.retrieve.mode == "hybrid" or bool(c.retrieve.rerank_model),
        "with retrieve.mode=hybrid or with a retrieve.rerank_model",
    ),
)
OF_THE_INDEX = Condition(
    tuple(f"embed.{key}" for key in EncoderConfig.model_fields if key != "model"),
    lambda c: "model" in c.embed.model_fields_set,
    "with embed.model; the index names its own encoder",
)
INSTEAD = {
    ("train", "generate.temperature"): "train.temperature",
    ("train", "generate.max_new_tokens"): "train.max_answer_tokens",
}


def without_effect(command: str, config: Config, given: Iterable[str]) -> list[str]:
    """Return a sentence for each ``section.key`` of ``given`` that changes nothing in a command."""
    conditions = (*CONDITIONS, OF_THE_INDEX) if "retrieve.k" in USED.get(command, ()) else CONDITIONS
    found = []
    for key in dict.fromkeys(given):
        if not any(fnmatchcase(key, pattern) for pattern in USED.get(command, ("*",))):
            instead = INSTEAD.get((command, key))
            found.append(f"{key} has no effect in `ragray {command}`{f'; set {instead}' if instead else ''}")
        unmet = [one for one in conditions if key in one.keys and not one.holds(config)]
        found += [f"{key} has an effect only {one.wanted}" for one in unmet]
    return found

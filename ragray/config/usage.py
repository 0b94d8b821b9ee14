"""Which setting has an effect in which command. In: a command, the keys that were given. Out: a sentence for each without effect. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ragray.config.indexing import EncoderConfig
from ragray.config.sections import Config
from ragray.config.training import FROM_MINED

ENCODER = tuple(f"embed.{key}" for key in EncoderConfig.model_fields)
POOL = ("retrieve.num_shards", "retrieve.num_replicas", "retrieve.cpus_per_actor", "retrieve.threads")
SEARCH = (
    *(
        "retrieve.k",
        "retrieve.mode",
        "retrieve.where",
        "retrieve.candidates",
        "retrieve.fusion",
        "retrieve.dense_weight",
        "retrieve.pair_weight",
        "retrieve.rrf_k",
        "retrieve.rerank_model",
    ),
    *("retrieve.threads", *ENCODER),
)
GENERATE = (
    *("generate.task", "generate.model", "generate.instruction", "generate.prompt", "generate.marginalize"),
    "generate.max_prompt_tokens",
    *(
        "generate.max_new_tokens",
        "generate.passage_temperature",
        "generate.strategy",
        "generate.spans",
        "generate.prior",
    ),
)

TOGETHER = ("gold_share", "min_k", "shuffle", "cite", "unanswerable")
"""Keys of the section `train` that are for the strategy `together`."""

REINDEXING = (
    *("embed.engine", "embed.dtype", "embed.batch_tokens", "embed.block_rows", "index.type", "index.exact_up_to_rows"),
    *("index.memory_gib", "index.p95_ms", "index.min_recall", "index.nlist", "index.nprobe", "index.over_retrieve"),
    *("index.train_rows", "index.seed"),
)
"""What decides how passages are embedded and indexed again for a passage encoder that trains."""

USED: Mapping[str, tuple[str, ...]] = {
    "ingest": ("ingest.*", "embed.model", "cluster.*"),
    "embed": ("embed.*", "cluster.*"),
    "index build": ("index.*", "cluster.*"),
    "index sync": ("embed.*", "index.segment_rows", "cluster.*"),
    "index compact": ("index.*", "cluster.*"),
    "index import": ENCODER,
    "index tune": ("retrieve.where", "retrieve.pair_weight", "retrieve.threads", *ENCODER, "examples.*"),
    "search": SEARCH,
    "evaluate retrieval": tuple(key for key in SEARCH if key != "retrieve.k"),
    "ask": (*SEARCH, *GENERATE, "generate.engine", "generate.num_beams", "generate.decoding"),
    "mine": (
        *("retrieve.where", "retrieve.dense_weight", "retrieve.rerank_model", "retrieve.threads"),
        *(*ENCODER, "examples.*", "mine.*"),
    ),
    "train": ("retrieve.k", *POOL, *GENERATE, "train.*", "examples.*", "cluster.*", *REINDEXING),
    "run import": (
        *("generate.instruction", "generate.prompt", "generate.marginalize", "generate.max_prompt_tokens"),
        *("generate.passage_temperature", "retrieve.k"),
    ),
    "evaluate": (*SEARCH, "generate.*", "evaluate.*", "examples.*", "cluster.*"),
    "score": ("generate.task", "examples.*", "evaluate.metric", "evaluate.metrics"),
    "serve": (*SEARCH, *POOL, "generate.*", "serve.*", "cluster.*"),
    **dict.fromkeys(("keys add", "keys list", "keys revoke"), ("serve.keys_file",)),
    "quickstart": ("*",),
    "config show": ("*",),
}
"""Patterns of the keys that a command uses; a command that is not named takes no settings, or is a job of several commands."""

WITHOUT_SETTINGS = (
    *("index plan", "index delete", "index snapshots", "index promote", "index rollback", "index gc"),
    *("index verify", "index inspect", "index export", "run export", "plot", "config schema"),
)
"""Commands that take options alone."""

WARNED_BY_STAGE = {"train": ("retrieve.mode", "retrieve.where", "retrieve.rerank_model")}
"""Keys without effect of which the stage itself warns, also where a file sets them."""

FIXED_BY_RUN = (
    "generate.model",
    "generate.instruction",
    "generate.prompt",
    "generate.marginalize",
    "generate.max_prompt_tokens",
)
"""Keys that are those of the run wherever one answers, whatever is given: its weights were trained with them."""

FROM_RUN = (
    "generate.passage_temperature",
    "generate.strategy",
    "generate.spans",
    "generate.prior",
    "retrieve.k",
    "retrieve.mode",
    "retrieve.where",
    "retrieve.rerank_model",
)
"""Keys that are those of the run wherever one answers, unless they are given."""

WITH_RUN = ("ask", "evaluate", "serve")
"""Commands that answer with a run."""


def used(command: str, key: str) -> bool:
    """Return whether a command uses a ``section.key``."""
    return any(fnmatchcase(key, pattern) for pattern in USED.get(command, ("*",)))


@dataclass(frozen=True, slots=True)
class Condition:
    """Keys that have an effect only where other settings say so."""

    keys: tuple[str, ...]
    holds: Callable[[Config], bool]
    wanted: str


CONDITIONS = (
    Condition(("train.last_layers",), lambda c: c.train.tune == "last", "with train.tune=last"),
    Condition(("train.encoder_last_layers",), lambda c: c.train.encoder_tune == "last", "with train.encoder_tune=last"),
    Condition(
        ("train.lora_rank",),
        lambda c: "lora" in (c.train.tune, c.train.encoder_tune),
        "with train.tune=lora or train.encoder_tune=lora",
    ),
    Condition(("train.warmup_ratio",), lambda c: not c.train.warmup_steps, "with train.warmup_steps=0"),
    Condition(
        ("train.encoder_lr", "train.encoder_tune"),
        lambda c: c.train.objective != "reader" and (c.generate.strategy == "marginal" or c.train.objective != "rag"),
        "with generate.strategy=marginal, or with a train.objective that trains an encoder",
    ),
    Condition(
        ("generate.decoding",),
        lambda c: c.generate.strategy == "marginal" and c.generate.marginalize == "sequence",
        "with generate.strategy=marginal and generate.marginalize=sequence",
    ),
    Condition(
        tuple(f"train.{key}" for key in TOGETHER),
        lambda c: c.generate.strategy == "together",
        "with generate.strategy=together",
    ),
    Condition(("retrieve.fusion",), lambda c: c.retrieve.mode == "hybrid", "with retrieve.mode=hybrid"),
    Condition(
        ("retrieve.dense_weight", "retrieve.pair_weight"),
        lambda c: c.retrieve.mode == "hybrid" and c.retrieve.fusion == "convex",
        "with retrieve.mode=hybrid and retrieve.fusion=convex",
    ),
    Condition(
        ("retrieve.rrf_k",),
        lambda c: c.retrieve.mode == "hybrid" and c.retrieve.fusion == "rrf",
        "with retrieve.mode=hybrid and retrieve.fusion=rrf",
    ),
    Condition(
        ("retrieve.candidates",),
        lambda c: c.retrieve.mode == "hybrid" or bool(c.retrieve.rerank_model),
        "with retrieve.mode=hybrid or with a retrieve.rerank_model",
    ),
    Condition(("evaluate.exemplars",), lambda c: c.evaluate.shots > 0, "with evaluate.shots above 0"),
    Condition(
        ("serve.upscale_delay_s", "serve.downscale_delay_s"),
        lambda c: max(c.serve.retriever_max_replicas, c.serve.generator_max_replicas) > 0,
        "with serve.retriever_max_replicas or serve.generator_max_replicas",
    ),
    Condition(
        ("retrieve.num_replicas",), lambda c: c.serve.retriever == "deployment", "with serve.retriever=deployment"
    ),
    Condition(("serve.log_questions",), lambda c: bool(c.serve.access_log), "with serve.access_log"),
)
VALIDATION = ("train.num_dev_examples", "train.best_metric", "train.patience")
OF_TRAINING = (
    Condition(
        ("train.validate_steps",),
        lambda c: bool(c.train.dev_examples) or c.train.objective in FROM_MINED,
        "with train.dev_examples",
    ),
    Condition(
        VALIDATION, lambda c: c.train.validation_steps > 0, "with train.dev_examples, or with train.validate_steps"
    ),
    Condition(
        ("train.cache_batch_size", "train.dev_share", "train.score_scale"),
        lambda c: c.train.objective in FROM_MINED,
        f"with train.objective={' or '.join(FROM_MINED)}",
    ),
    Condition(
        (*(f"train.refresh_{key}" for key in ("steps", "candidates", "cpus", "gpus")), *REINDEXING),
        lambda c: c.train.passage_encoder and c.train.objective not in FROM_MINED,
        "with train.passage_encoder=true and train.objective=rag or perplexity",
    ),
    Condition(
        ("train.refresh_wait",),
        lambda c: c.train.passage_encoder and c.train.refresh_steps > 0,
        "with train.passage_encoder=true and train.refresh_steps above 0",
    ),
    Condition(
        ("train.reader_temperature",), lambda c: c.train.objective == "perplexity", "with train.objective=perplexity"
    ),
    Condition(
        ("train.tune", "train.generator_lr"),
        lambda c: c.train.objective in ("rag", "reader"),
        "with train.objective=rag or reader",
    ),
    Condition(("train.distractors",), lambda c: c.train.objective == "reader", "with train.objective=reader"),
    Condition(
        GENERATE,
        lambda c: c.train.objective not in FROM_MINED,
        f"without train.objective={' or '.join(FROM_MINED)}",
    ),
)
"""Which model learns, and from what."""
OF_THE_INDEX = Condition(
    tuple(key for key in ENCODER if key != "embed.model"),
    lambda c: "model" in c.embed.model_fields_set,
    "with embed.model: the index names its own encoder",
)


def conditions(command: str) -> tuple[Condition, ...]:
    """Return the conditions that apply in a command: one that searches takes the encoder from the index."""
    if command == "mine":  # it searches both ways, and joins them by a convex combination
        return (OF_THE_INDEX,)
    if command == "train":
        return *CONDITIONS, *OF_TRAINING
    if command == "index tune":  # its mode is always hybrid
        return OF_THE_INDEX, *(one for one in CONDITIONS if "retrieve.pair_weight" not in one.keys)
    return (*CONDITIONS, OF_THE_INDEX) if "retrieve.candidates" in USED.get(command, ()) else CONDITIONS


def without_effect(command: str, config: Config, given: Iterable[str]) -> list[str]:
    """Return a sentence for each ``section.key`` of ``given`` that changes nothing in a command."""
    found = []
    for key in dict.fromkeys(given):
        if not used(command, key) and key not in WARNED_BY_STAGE.get(command, ()):
            found.append(f"{key} has no effect in `ragray {command}`")
        unmet = [one for one in conditions(command) if key in one.keys and not one.holds(config)]
        found += [f"{key} has an effect only {one.wanted}" for one in unmet]
    return found

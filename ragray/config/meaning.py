"""What a setting does in one command, where that is more than its description says. In: a command, a key. Out: a sentence. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic.fields import FieldInfo

from ragray.config.sections import Config
from ragray.config.usage import ENCODER, FIXED_BY_RUN, FROM_RUN, WITH_RUN, conditions

IN_COMMAND: Mapping[tuple[str, str], str] = {
    ("ingest", "embed.model"): "encoder whose tokenizer counts the tokens of passages",
    (
        "index sync",
        "embed.block_rows",
    ): "passages per block, the unit of work, at most; smaller where few passages are new",
    ("index sync", "embed.num_workers"): "encoder actors, or processes of this machine where no cluster is joined",
    ("index sync", "embed.cpus_per_worker"): "CPUs per encoder actor, and threads per actor or process",
    ("index sync", "index.segment_rows"): "rows per new segment at most",
    ("index compact", "index.lexical"): "BM25 index of the new segments; unless given, as the index has it",
    ("index import", "embed.model"): "model that made the vectors; questions are encoded with it",
    ("search", "retrieve.k"): "passages that are printed; -k is the same",
    ("ask", "retrieve.k"): "passages that the answer is made from",
    (
        "evaluate",
        "retrieve.k",
    ): "passages per question that the answer is made from; recall is measured at evaluate.recall_at",
    ("evaluate", "retrieve.threads"): "search threads per actor",
    (
        "evaluate",
        "generate.batch_size",
    ): "questions answered at the same time; a crash loses at most so many answers per actor",
    ("score", "generate.task"): "preset of a task: its evaluate.metrics, unless they are given; empty: none",
    **{
        (command, "serve.keys_file"): "file of the keys; empty: ~/.ragray/keys.json"
        for command in ("keys add", "keys list", "keys revoke")
    },
    ("serve", "retrieve.k"): "passages per question where a request names no k",
    ("serve", "retrieve.num_replicas"): "copies of the Retriever deployment; each searches the whole index",
    (
        "serve",
        "retrieve.num_shards",
    ): "actors that each copy of the Retriever spreads its segments over; 1: it opens them itself",
    ("serve", "retrieve.threads"): "search threads per copy of the Retriever deployment",
    ("serve", "generate.batch_size"): "questions that a copy of the Generator deployment answers at the same time",
    ("mine", "retrieve.dense_weight"): "weight of the dense scores in the order in which candidates become negatives",
    (
        "mine",
        "retrieve.rerank_model",
    ): "cross-encoder whose scores of every pair are written beside it, for train.objective=margin_mse; empty: none",
    ("mine", "retrieve.where"): "only passages that match become negatives, or positives of questions without gold ids",
    ("train", "retrieve.k"): "passages per example that the loss is marginalised over, that one prompt holds, or that "
    "train.objective=reader draws wrong ones from",
    ("train", "retrieve.num_replicas"): "copies of every shard of the retriever pool",
    ("train", "retrieve.threads"): "search threads per actor of the retriever pool",
    ("train", "generate.model"): "generator that is fine-tuned; recorded in the run",
    ("train", "generate.instruction"): "system message of the prompt; recorded in the run",
    (
        "train",
        "generate.strategy",
    ): "what is trained, and how the run answers: RAG over one prompt per passage, one prompt with all passages, or "
    "Fusion-in-Decoder; the last two train the generator alone",
    (
        "train",
        "generate.spans",
    ): "whether the run's answers stand in a passage; recorded in the run, without effect on the loss",
    (
        "train",
        "generate.prior",
    ): "what the prior is made from when the run answers; recorded in the run, without effect on the loss",
    ("train", "generate.marginalize"): "the loss, RAG-Sequence's or RAG-Token's; recorded in the run for its answers",
    (
        "train",
        "generate.max_prompt_tokens",
    ): "tokens per prompt at most; a longer passage loses its end; recorded in the run",
    ("train", "generate.max_new_tokens"): "tokens per answer at most, the end token included; "
    "of a longer answer the beginning is learned, and no end",
    (
        "train",
        "generate.passage_temperature",
    ): "temperature of the prior over passages, in the loss; recorded in the run",
    **{
        (
            command,
            "embed.model",
        ): "encoder of the questions; unless given, the one that the index names; a given one must be the same"
        for command in ("search", "evaluate retrieval", *WITH_RUN)
    },
    **{("index sync", key): "that of the index; a value that is given must be the same" for key in ENCODER},
}
"""By command and key."""


def meaning(command: str, key: str) -> str:
    """Return what a ``section.key`` does in a command that uses it, with the conditions under which it does so."""
    parts = [IN_COMMAND.get((command, key)) or field(key).description or ""]
    parts += [f"has an effect only {one.wanted}" for one in conditions(command) if key in one.keys]
    if command in WITH_RUN and key in FIXED_BY_RUN:
        parts.append("with a run: always as it was trained")
    if command in WITH_RUN and key in FROM_RUN:
        parts.append("with a run: as it was trained, unless given")
    return "; ".join(parts)


def field(key: str) -> FieldInfo:
    """Return the field of a ``section.key``."""
    section, _, name = key.partition(".")
    found: FieldInfo = type(getattr(Config(), section)).model_fields[name]
    return found

"""Runs and RAG models of `transformers`. In: a RAG model and an index, or a run. Out: a run, or a folder that `transformers` loads."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragray.artifact.digest import fingerprint
from ragray.artifact.files import replace_folder
from ragray.artifact.output import StageOutput, stage_output
from ragray.config import Config
from ragray.convert.rag import as_dpr, join_rag, rag_config
from ragray.embed.encoder import require_comparable
from ragray.embed.pooling import OWN
from ragray.errors import ConfigError, ModelNotFoundError
from ragray.generate.load import of_model
from ragray.index.search.reader import IndexReader
from ragray.models import load_model_config, resolve_model, resolve_part, weights_fingerprint
from ragray.run import ENCODER_FOLDER, GENERATOR_FOLDER, MODEL_FOLDER, Run, RunFacts

logger = logging.getLogger("ragray")


@dataclass(frozen=True, slots=True)
class ExchangeReport:
    """What was written: its folder, RAG-Sequence or RAG-Token, passages per question; ``reused``: it had been there before."""

    folder: Path
    marginalize: str
    k: int
    reused: bool


def import_rag(model: str, index: Path, out: Path, config: Config) -> ExchangeReport:
    """Make a run of a RAG model, for the current snapshot of an index of its passage encoder's vectors.

    Prompt, RAG-Sequence or RAG-Token, and passages per question are the model's (``retrieve.k`` may be given).

    Raises:
        ModelNotFoundError: the name resolves to nothing, or to a model that is no RAG model.
        ModelError: the model lacks a part.
        ConfigError: ``generate.marginalize`` is given and is not the model's.
        EncoderMismatchError: the vectors of the index have other dimensions, or another pooling, than the question encoder's.
    """
    folder = resolve_model(model)
    rag = rag_config(folder)
    if rag is None:
        raise ModelNotFoundError(
            f"{folder}: is no RAG model (config.json says no model_type rag); name a folder that has one"
        )
    given = {**config.generate.model_dump(include=config.generate.model_fields_set), "model": model}
    generate = of_model(type(config.generate).model_validate(given))
    snapshot = IndexReader.open(index).snapshot
    encoder = resolve_part(model, "question_encoder")
    require_comparable(encoder, snapshot.encoder, f"{model}, its question encoder,")
    k = config.retrieve.k if "k" in config.retrieve.model_fields_set else int(rag.get("n_docs", 5))
    facts = RunFacts(
        generate=generate, k=k, encoder=snapshot.encoder, snapshot=snapshot.name, num_steps=0, num_examples=0
    )
    key = fingerprint([weights_fingerprint(folder), facts.model_dump(mode="json")])

    def write(target: Path, _: Path) -> None:
        shutil.copytree(encoder, target / MODEL_FOLDER / ENCODER_FOLDER)
        shutil.copytree(resolve_part(model, "generator"), target / MODEL_FOLDER / GENERATOR_FOLDER)

    with stage_output(out, kind="run") as output:
        reused = _write_once(output, key, write, facts.model_dump(mode="json"))
    return ExchangeReport(out, generate.marginalize, k, reused)


def export_rag(run: Path, out: Path) -> ExchangeReport:
    """Write question encoder and generator of a run as a RAG model that `transformers` loads.

    The passages' temperature goes into the question encoder's projection, as `transformers` has none. Only an encoder of DPR, or a
    BERT encoder whose vectors are the first token's state, can be written so that `transformers` makes the same vectors; any
    other is written as it is, with a warning.

    Raises:
        NotAnArtifactError, CorruptArtifactError: there is no whole run.
        ConfigError: the run has no question encoder, its generator is decoder-only, or it answers by another strategy.
    """
    opened = Run.open(run)
    facts, settings = opened.facts, opened.facts.generate
    generator = load_model_config(opened.generator)
    if settings.strategy != "marginal" or not generator.is_encoder_decoder or not opened.question_encoder.is_dir():
        raise ConfigError(
            f"{run}: the RAG layout holds a question encoder and an encoder-decoder that were trained with generate.strategy=marginal; "
            f"this run has strategy={settings.strategy}, {'an' if generator.is_encoder_decoder else 'no'} encoder-decoder and "
            f"{'a' if opened.question_encoder.is_dir() else 'no'} question encoder; load its folders below {run}/{MODEL_FOLDER}"
        )
    if settings.prompt != "rag":
        logger.warning(
            "%s: was trained with generate.prompt=%s; RagRetriever writes other prompts: give the model context_input_ids of your own",
            run, settings.prompt,
        )  # fmt: skip
    rest = {
        **{
            name: getattr(generator, name, None)
            for name in ("vocab_size", "bos_token_id", "pad_token_id", "eos_token_id")
        },
        "decoder_start_token_id": generator.decoder_start_token_id,
        "n_docs": facts.k,
        "max_combined_length": settings.max_prompt_tokens,
        "retrieval_vector_size": facts.encoder.dim,
        "prefix": settings.instruction if settings.prompt == "rag" else None,
    }

    def write(target: Path, scratch: Path) -> None:
        join_rag(_exported_encoder(opened, scratch), opened.generator, target, rest, settings.marginalize)

    with stage_output(out, kind="export") as output:
        reused = _write_once(output, fingerprint(["rag", opened.name, rest]), write, {"run": opened.name})
    return ExchangeReport(out, settings.marginalize, facts.k, reused)


def _exported_encoder(run: Run, target: Path) -> Path:
    """Return the folder of the question encoder as `transformers`' RAG classes use it."""
    kind, passages = load_model_config(run.question_encoder).model_type, run.facts.encoder
    if kind in ("dpr", "bert") and passages.pooling in (OWN, "cls") and not passages.normalize:
        as_dpr(run.question_encoder, target, scale=1 / run.facts.generate.passage_temperature)
        return target
    logger.warning(
        "%s: its question encoder (%s, pooling %s%s) is none that transformers' RAG classes compute: give the model doc_scores of "
        "your own, inner products divided by %g",
        run.folder, kind, passages.pooling, ", scaled to length 1" * passages.normalize, run.facts.generate.passage_temperature,
    )  # fmt: skip
    return run.question_encoder


def _write_once(output: StageOutput, key: str, write: Callable[[Path, Path], None], facts: dict[str, Any]) -> bool:
    """Let ``write`` fill a folder, with another one as scratch, and publish it; return True where this very one is there."""
    if output.finished(key):
        return True
    output.withdraw()
    shutil.rmtree(output.work, ignore_errors=True)
    whole, scratch = output.work / "whole", output.work / "scratch"
    whole.mkdir(parents=True)
    write(whole, scratch)
    names = [path.name for path in whole.iterdir()]
    for name in names:
        replace_folder(whole / name, output.folder / name)
    files = [path for name in names for path in [output.folder / name, *sorted((output.folder / name).rglob("*"))]]
    output.publish(key, facts, [path for path in files if path.is_file()])
    return False

"""Runs `ingest` on Ray Data. In: source files. Out: a corpus folder; what a killed run had read is not read again."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from pydantic import JsonValue

from ragray.artifact.digest import fingerprint
from ragray.artifact.lock import exclusive
from ragray.artifact.manifest import Manifest, is_current, publish, read_manifest, unpublish
from ragray.cluster.actors import UnitActor, run_units
from ragray.cluster.resources import Want
from ragray.cluster.session import session
from ragray.config import Config, IngestConfig
from ragray.corpus.clean import check_languages, is_damage
from ragray.corpus.merge import merge_lots
from ragray.corpus.minhash import Signer
from ragray.corpus.read.byte_ranges import cut_source
from ragray.corpus.read.find import find_sources
from ragray.corpus.staging import READER_VERSION, WHOLE_FILE, Lot, Stager, plan_lots, staged, staged_refusals
from ragray.corpus.table import QUARANTINE_NAME, SCHEMA_VERSION
from ragray.corpus.tokens import load_tokenizer
from ragray.errors import InputError, RagrayError
from ragray.progress import Progress

STAGING_FOLDER = ".staging"


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What a corpus holds, what was refused by reason, and whether it was all there before (``reused``).

    ``damaged`` counts the refused records that could not be read (broken JSON, a missing field); ``first_damaged`` says where
    the first of them is and what is wrong with it.
    """

    documents: int
    passages: int
    refused: Mapping[str, int]
    seconds: float
    reused: bool
    damaged: int
    first_damaged: str


class LotStager(UnitActor[Lot]):
    """One actor: a `Stager`."""

    def set_up(self, config: Config) -> None:
        """Load the tokenizer."""
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self._stager = Stager(config, self.folder)

    def do(self, unit: Lot) -> int:
        """Stage a lot; it counts its files."""
        self._stager.stage(unit)
        return len(unit.sources)

    def describe(self, unit: Lot) -> str:
        """Name the files of a lot."""
        labels = [source.label for source in unit.sources]
        return ", ".join(labels[:3]) + (f" and {len(labels) - 3} more" if len(labels) > 3 else "")


def ingest(sources: Sequence[str], out: Path, config: Config, *, address: str | None = None) -> IngestReport:
    """Turn sources (files, folders, globs, URIs) into a corpus; where nothing changed since the last time, nothing is done.

    Raises:
        InputError: a source cannot be used, or no passage is left.
        ConfigError: a language is not known.
        MissingPackageError: a package that the sources or the configuration need is not installed.
        ModelNotFoundError: the encoder, whose tokenizer measures the passages, cannot be found.
        ArtifactBusyError: another process writes to ``out``.
    """
    started = monotonic()
    out = out.absolute()
    _check_packages(config.ingest)
    tokenizer = load_tokenizer(config.embed).identity
    with exclusive(out, kind="corpus"):
        cut = [part for source in find_sources(sources, exclude=out) for part in cut_source(source)]
        found, checksums = [source for source, _ in cut], [checksum for _, checksum in cut]
        settings = config.ingest.model_dump(mode="json", exclude={"num_workers", "max_damaged"})
        content = [(source.name, checksum) for source, checksum in zip(found, checksums, strict=True)]
        key = fingerprint([content, settings, tokenizer, SCHEMA_VERSION, READER_VERSION])
        staging = out / STAGING_FOLDER
        if is_current(out, kind="corpus", fingerprint=key):
            shutil.rmtree(staging, ignore_errors=True)
            return _report(out, read_manifest(out, "corpus"), started, reused=True)
        lots = plan_lots(found, checksums, config.ingest, tokenizer)
        _stage(lots, staging, config, address)
        manifest = _merge(lots, staging, out, key, config)
        shutil.rmtree(staging)
        return _report(out, manifest, started, reused=False)


def _check_packages(config: IngestConfig) -> None:
    """Find out before anything is read that a package or a language is missing."""
    check_languages(config)
    if config.near_duplicates:
        Signer()


def _report(out: Path, manifest: Manifest, started: float, *, reused: bool) -> IngestReport:
    facts = manifest.facts
    documents, passages, refused = facts["num_documents"], facts["num_passages"], facts["refused"]
    assert isinstance(documents, int) and isinstance(passages, int) and isinstance(refused, dict)
    counts = {reason: count for reason, count in refused.items() if isinstance(count, int)}
    damaged = sum(count for reason, count in counts.items() if is_damage(reason))
    first = _first_damaged(out / QUARANTINE_NAME) if damaged else ""
    return IngestReport(documents, passages, counts, monotonic() - started, reused, damaged, first)


def _first_damaged(quarantine: Path) -> str:
    with quarantine.open(encoding="utf-8") as file:
        refusals = (json.loads(line) for line in file)
        first = next(refusal for refusal in refusals if is_damage(refusal["reason"]))
    where = f"{first['source']}:{first['line']}" if first["line"] != WHOLE_FILE else first["source"]
    return f"{where}: {first['reason']}"


def _stage(lots: Sequence[Lot], staging: Path, config: Config, address: str | None) -> None:
    """Stage the lots that no earlier run finished, on an actor pool."""
    todo = [lot for lot in lots if staged(staging, lot) is None]
    if not todo:
        return
    num_files = sum(len(lot.sources) for lot in todo)
    with session(address), Progress("ingest", total=num_files, unit="files") as progress:
        want = Want("actor", min(config.ingest.num_workers, len(todo)), ("ingest.num_workers",), cpus=1, together=1)
        for count, _ in run_units(
            LotStager, todo, staging, config, stage="ingest", want=want, wait_s=config.cluster.wait_s
        ):
            progress.advance(count)


def _merge(lots: Sequence[Lot], staging: Path, out: Path, key: str, config: Config) -> Manifest:
    """Write the corpus from its staged lots and publish it; what the folder held before ceases to exist."""
    num_passages = _num_passages(lots, staging)
    unpublish(out)
    with Progress("ingest: merge", total=num_passages, unit="passages") as progress:
        merged = merge_lots(staging, lots, out, config.ingest, advance=progress.advance)
    refused: dict[str, JsonValue] = dict(merged.refused)
    facts: dict[str, JsonValue] = {
        "num_passages": merged.num_passages,
        "num_documents": merged.num_documents,
        "refused": refused,
        "schema_version": SCHEMA_VERSION,
    }
    return publish(out, kind="corpus", fingerprint=key, facts=facts, files=merged.files)


def _num_passages(lots: Sequence[Lot], staging: Path) -> int:
    """Count the staged passages; without any, say what became of the sources."""
    num_passages, refused = 0, Counter[str]()
    for lot in lots:
        done = staged(staging, lot)
        if done is None:
            raise RagrayError(f"{staging / lot.key}: was not finished, though its actor said so; run again")
        num_passages += done.num_passages
        refused.update(done.refused)
    if not num_passages:
        first = next((refusal for lot in lots for refusal in staged_refusals(staging, lot)), None)
        if first is None:
            raise InputError(f"{lots[0].sources[0].label}: holds no records; fill it or leave it out of the sources")
        if first.line == WHOLE_FILE:
            raise InputError(f"{first.source}: {first.reason}")
        reasons = ", ".join(f"{reason}: {count}" for reason, count in refused.most_common())
        raise InputError(
            f"no passage is left, {refused.total()} records were refused ({reasons}), the first is "
            f"{first.source}:{first.line}; mend the sources or change ingest.text_field, min_chars or max_chars"
        )
    return num_passages

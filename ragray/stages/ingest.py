"""The stage `ingest`. In: source files. Out: a corpus folder; what a killed run had read is not read again."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from pydantic import JsonValue

from ragray.artifact.digest import fingerprint
from ragray.artifact.manifest import Manifest, fact
from ragray.artifact.output import StageOutput, stage_output
from ragray.config import Config, IngestConfig
from ragray.corpus.clean import check_languages, is_damage
from ragray.corpus.merge import merge_splits
from ragray.corpus.minhash import MinHasher
from ragray.corpus.read.byte_ranges import cut_source
from ragray.corpus.read.find import find_sources
from ragray.corpus.staging import (
    READER_VERSION,
    WHOLE_FILE,
    InputSplit,
    Stager,
    plan_splits,
    staged,
    staged_refusals,
)
from ragray.corpus.table import PASSAGE_FOLDER, QUARANTINE_NAME, SCHEMA_VERSION
from ragray.corpus.tokens import load_tokenizer
from ragray.corpus.unknown import warn_of_unknown_passages
from ragray.errors import InputError, RagrayError
from ragray.execute.port import Executor, Resources, Task, run_task
from ragray.progress import Progress

STAGING_FOLDER = ".staging"
MAX_FIELDS = 10
"""Fields that are named where they cannot be metadata, at most; the manifest counts them all."""


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What a corpus holds, what was refused by reason, and whether it was all there before (``reused``).

    ``damaged`` counts the refused records that could not be read (broken JSON, a missing field); ``first_damaged`` says where
    the first of them is and what is wrong with it. ``unkept`` counts records by the field that cannot be metadata, with the reason.
    """

    documents: int
    passages: int
    refused: Mapping[str, int]
    seconds: float
    reused: bool
    damaged: int
    first_damaged: str
    unkept: Mapping[str, int]

    @property
    def unkept_fields(self) -> str:
        """What is no metadata, on one line, the field of the most records first."""
        fields = sorted(self.unkept.items(), key=lambda item: (-item[1], item[0]))
        shown = ", ".join(f"{field} of {count} record{'s' * (count != 1)}" for field, count in fields[:MAX_FIELDS])
        return shown + (f" and {len(fields) - MAX_FIELDS} more" if len(fields) > MAX_FIELDS else "")


class StageSplits(Task[InputSplit]):
    """Reads, cleans and splits splits of files: a `Stager`."""

    def set_up(self, config: Config) -> None:
        """Load the tokenizer."""
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self._stager = Stager(config, self.folder)

    def do(self, unit: InputSplit) -> int:
        """Stage a split; it counts its files."""
        self._stager.stage(unit)
        return len(unit.sources)

    def describe(self, unit: InputSplit) -> str:
        """Name the files of a split."""
        labels = [source.label for source in unit.sources]
        return ", ".join(labels[:3]) + (f" and {len(labels) - 3} more" if len(labels) > 3 else "")


def ingest(sources: Sequence[str], out: Path, config: Config, executor: Executor) -> IngestReport:
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
    tokenizer = load_tokenizer(config.embed)
    with stage_output(out, kind="corpus", work=STAGING_FOLDER) as output:
        cut = [part for source in find_sources(sources, exclude=out) for part in cut_source(source)]
        found, checksums = [source for source, _ in cut], [checksum for _, checksum in cut]
        settings = config.ingest.model_dump(mode="json", exclude={"num_workers", "max_damaged"})
        content = [(source.name, checksum) for source, checksum in zip(found, checksums, strict=True)]
        key = fingerprint([content, settings, tokenizer.identity, SCHEMA_VERSION, READER_VERSION])
        if manifest := output.finished(key):
            return _report(out, manifest, started, reused=True)
        splits = plan_splits(found, checksums, config.ingest, tokenizer.identity)
        _stage(splits, output.work, config, executor)
        manifest = _merge(splits, output, key, config)
        shards = [out / entry.path for entry in manifest.files if entry.path.startswith(f"{PASSAGE_FOLDER}/")]
        warn_of_unknown_passages(shards, tokenizer, config.embed.model)
        return _report(out, manifest, started, reused=False)


def _check_packages(config: IngestConfig) -> None:
    """Find out before anything is read that a package or a language is missing."""
    check_languages(config)
    if config.near_duplicates:
        MinHasher()


def _report(out: Path, manifest: Manifest, started: float, *, reused: bool) -> IngestReport:
    documents, passages = (fact(out, manifest, name, int) for name in ("num_documents", "num_passages"))
    counts = fact(out, manifest, "refused", dict[str, int])
    damaged = sum(count for reason, count in counts.items() if is_damage(reason))
    first = _first_damaged(out / QUARANTINE_NAME) if damaged else ""
    unkept = fact(out, manifest, "unkept", dict[str, int]) if "unkept" in manifest.facts else {}
    return IngestReport(documents, passages, counts, monotonic() - started, reused, damaged, first, unkept)


def _first_damaged(quarantine: Path) -> str:
    with quarantine.open(encoding="utf-8") as file:
        refusals = (json.loads(line) for line in file)
        first = next(refusal for refusal in refusals if is_damage(refusal["reason"]))
    where = f"{first['source']}:{first['line']}" if first["line"] != WHOLE_FILE else first["source"]
    return f"{where}: {first['reason']}"


def _stage(splits: Sequence[InputSplit], staging: Path, config: Config, executor: Executor) -> None:
    """Stage the splits that no earlier run finished."""
    todo = [split for split in splits if staged(staging, split) is None]
    run_task(
        executor,
        StageSplits,
        todo,
        staging,
        config,
        stage="ingest",
        total=sum(len(split.sources) for split in todo),
        counted="files",
        resources=Resources(config.ingest.num_workers, settings=("ingest.num_workers",)),
    )


def _merge(splits: Sequence[InputSplit], output: StageOutput, key: str, config: Config) -> Manifest:
    """Write the corpus from its staged splits and publish it; what the folder held before ceases to exist."""
    num_passages, unkept = _counts(splits, output.work)
    output.withdraw()
    with Progress("ingest: merge", total=num_passages, unit="passages") as progress:
        merged = merge_splits(output.work, splits, output.folder, config.ingest, advance=progress.advance)
    refused: dict[str, JsonValue] = dict(merged.refused)
    not_kept: dict[str, JsonValue] = dict(unkept)
    facts: dict[str, JsonValue] = {
        "num_passages": merged.num_passages,
        "num_documents": merged.num_documents,
        "refused": refused,
        "unkept": not_kept,
        "schema_version": SCHEMA_VERSION,
    }
    return output.publish(key, facts, merged.files)


def _counts(splits: Sequence[InputSplit], staging: Path) -> tuple[int, Mapping[str, int]]:
    """Count the staged passages, and what is no metadata; without any passage, say what became of the sources."""
    num_passages, refused, unkept = 0, Counter[str](), Counter[str]()
    for split in splits:
        done = staged(staging, split)
        if done is None:
            raise RagrayError(f"{staging / split.key}: was not finished, though its worker said so; run again")
        num_passages += done.num_passages
        refused.update(done.refused)
        unkept.update(done.unkept)
    if not num_passages:
        first = next((refusal for split in splits for refusal in staged_refusals(staging, split)), None)
        if first is None:
            raise InputError(f"{splits[0].sources[0].label}: holds no records; fill it or leave it out of the sources")
        if first.line == WHOLE_FILE:
            raise InputError(f"{first.source}: {first.reason}")
        reasons = ", ".join(f"{reason}: {count}" for reason, count in refused.most_common())
        raise InputError(
            f"no passage is left, {refused.total()} records were refused ({reasons}), the first is "
            f"{first.source}:{first.line}; mend the sources or change ingest.text_field, min_chars or max_chars"
        )
    return num_passages, unkept

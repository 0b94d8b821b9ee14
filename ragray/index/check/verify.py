"""Verification of an index. In: its folder, perhaps its encoder. Out: every check, every problem, and how to repair each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ragray.embed.encoder import Encoder
from ragray.errors import ArtifactError, CorruptArtifactError, NotAnArtifactError
from ragray.index.check.ids import IdKeys
from ragray.index.check.verify_columns import columns_faults
from ragray.index.check.verify_segment import (
    Fault,
    encoder_faults,
    faiss_file_faults,
    lexical_faults,
    open_segment_files,
    passage_faults,
    vector_faults,
)
from ragray.index.store.snapshot import (
    CURRENT,
    SEGMENTS,
    SNAPSHOTS,
    SegmentRef,
    Snapshot,
    current_name,
    names,
    read_snapshot,
)
from ragray.index.store.tombstones import TOMBSTONES, live_mask
from ragray.progress import Progress

FILES = "CURRENT and snapshot file"
MAX_DOUBLE_IDS = 20
"""Duplicate ids that are reported one by one; the others are only counted."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at: the name of the check, how many things of which kind, and the problems it found."""

    name: str
    num_checked: int
    unit: str
    num_problems: int


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, where, and how to mend it."""

    what: str
    where: str
    mend: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify_index` found in a snapshot (empty if there is none that can be read)."""

    snapshot: str
    checks: tuple[Check, ...]
    problems: tuple[Problem, ...]

    @property
    def whole(self) -> bool:
        """True where nothing is wrong."""
        return not self.problems

    def lines(self) -> list[str]:
        """Return the report as lines of text: the checks, the problems, the sum."""
        marks = {True: "ok ", False: "BAD"}
        checks = [f"{marks[not c.num_problems]}  {c.name}: {c.num_checked:,} {c.unit}" for c in self.checks]
        problems = [f"{problem.where}: {problem.what}; {problem.mend}" for problem in self.problems]
        verdict = f"{len(problems)} problem{'s' * (len(problems) != 1)}" if problems else "whole"
        return [*checks, *problems, f"snapshot {self.snapshot or '(none)'}: {verdict}"]


def verify_index(
    index: Path, *, snapshot: str | None = None, encoder: Encoder | None = None, sample: int = 0
) -> VerifyReport:
    """Check a snapshot (the current one by default) to its last byte, and report all that is wrong with it.

    With ``encoder``, ``sample`` passages are encoded again and compared with their vectors. If `CURRENT` names no snapshot
    that can be read, the newest one that can is checked.

    Raises:
        NotAnArtifactError: ``index`` holds no snapshot at all, or not the one asked for.
        EncoderMismatchError: ``encoder`` is not the one that the snapshot names.
    """
    report = _Report(index)
    found = report.open(snapshot)
    if found is None:
        return report.done()
    if encoder:
        found.encoder.require(
            encoder.fingerprint, here=f"index snapshot {found.name}", there="the encoder to verify with"
        )
    report.add("what the snapshot says", 1, "snapshot", _snapshot_faults(index, found))
    ids, offset = IdKeys(), 0
    with Progress("verify", total=found.num_rows, unit="rows") as progress:
        for ref in found.segments:
            count = round(sample * ref.num_rows / max(found.num_rows, 1)) if encoder else 0
            _check_segment(report, found, ref, offset, ids, encoder, count)
            offset += ref.num_rows
            progress.advance(ref.num_rows)
    report.add("ids", len(ids), "live rows", _id_faults(index, found, ids))
    return report.done()


class _Report:
    """Gathers checks and problems; knows which other snapshots one could go back to."""

    def __init__(self, index: Path) -> None:
        self.index = index
        self._checks: dict[str, Check] = {}
        self._problems: list[Problem] = []
        self._others = [found for name in reversed(names(index)) if (found := _readable(index, name))]
        self._name = ""

    def open(self, name: str | None) -> Snapshot | None:
        """Read the snapshot to check; where that fails and none was asked for by name, the newest one that can be read."""
        asked, where = name, self.index / CURRENT
        found: Snapshot | None = None
        try:
            name = name or current_name(self.index)
            found = read_snapshot(self.index, name)
        except (NotAnArtifactError, CorruptArtifactError) as err:
            if isinstance(err, NotAnArtifactError) and (asked or not names(self.index)):
                raise
            if isinstance(err, CorruptArtifactError) and name:
                where = self.index / SNAPSHOTS / f"{name}.json"
            self._add(
                FILES, 1, "snapshot", [Problem(_what(err, where, self.index), str(where), self._mend_current(name))]
            )
            found = self._others[0] if self._others and not asked else None
        else:
            self._add(FILES, 1, "snapshot", [])
        self._name = found.name if found else ""
        return found

    def _mend_current(self, current: str | None) -> str:
        if not self._others:
            return "restore it from a copy of the index, or build the index again"
        newest = self._others[0].name
        if current is None:
            return f"write {newest} into {self.index / CURRENT}"
        return f"run: ragray index promote {self.index} {newest}"

    def add(self, name: str, num_checked: int, unit: str, faults: Iterable[Fault], *, segment: str = "") -> None:
        """Count a check, and turn what it found into problems; ``segment`` is the one that the advice removes."""
        mend = self._mend(segment)
        self._add(name, num_checked, unit, [Problem(fault.what, str(fault.where), mend) for fault in faults])

    def _add(self, name: str, num_checked: int, unit: str, found: list[Problem]) -> None:
        before = self._checks.get(name, Check(name, 0, unit, 0))
        self._checks[name] = Check(name, before.num_checked + num_checked, unit, before.num_problems + len(found))
        self._problems += found

    def _mend(self, segment: str) -> str:
        """Return the advice that removes what is wrong with a segment, or with the snapshot itself.

        Never by compacting: where two files disagree, that might keep the wrong one.
        """
        for other in self._others:
            if other.name != self._name and segment not in {ref.name for ref in other.segments}:
                return (
                    f"restore it from a copy of the index, run: ragray index promote {self.index} {other.name} (which does "
                    "not need it), or build the index again"
                )
        return "restore it from a copy of the index, or build the index again"

    def done(self) -> VerifyReport:
        """Close the report."""
        return VerifyReport(self._name, tuple(self._checks.values()), tuple(self._problems))


def _what(err: ArtifactError, *places: Path) -> str:
    """Return an error's message without the place and the advice, which a problem tells in its own words."""
    what = str(err).rpartition("; ")[0] or str(err)
    for place in places:
        what = what.removeprefix(f"{place}: ")
    return what


def _readable(index: Path, name: str) -> Snapshot | None:
    try:
        return read_snapshot(index, name)
    except ArtifactError:
        return None


def _snapshot_faults(index: Path, snapshot: Snapshot) -> Iterator[Fault]:
    """Yield where a snapshot contradicts itself."""
    where = index / SNAPSHOTS / f"{snapshot.name}.json"
    if snapshot.dim != snapshot.encoder.dim:
        yield Fault(f"has {snapshot.dim} dimensions, its encoder {snapshot.encoder.dim}", where)
    if snapshot.metric != "inner_product":
        yield Fault(f"names the metric {snapshot.metric!r}, ragray searches by inner_product", where)
    if doubled := {ref.name for ref in snapshot.segments if [r.name for r in snapshot.segments].count(ref.name) > 1}:
        yield Fault(f"names a segment twice: {', '.join(sorted(doubled))}", where)
    if not snapshot.segments:
        yield Fault("has no segments", where)


def _check_segment(
    report: _Report, snapshot: Snapshot, ref: SegmentRef, offset: int, ids: IdKeys, encoder: Encoder | None, count: int
) -> None:
    """Run all checks of one segment; one that cannot be opened in part is still looked into as far as it can be."""
    rows = ref.num_rows
    files, faults = open_segment_files(report.index, ref, snapshot)
    report.add("files, counts and dimensions", 1, "segments", faults, segment=ref.name)
    live_N, faults = _live(report.index, ref)
    report.add("tombstones", ref.num_deleted, "rows", faults, segment=ref.name)
    model = snapshot.encoder
    checks = {
        "texts and their hashes": passage_faults(files, live_N, offset, ids),
        "vectors": vector_faults(files, normalized=model.normalize, zero_allowed=model.weights == "hash"),
    }
    for name, found in checks.items():
        report.add(name, rows, "rows", found, segment=ref.name)
    sampled = len(files.sample)
    report.add("FAISS against vectors", sampled, "rows", faiss_file_faults(files), segment=ref.name)
    if snapshot.lexical != "none":
        report.add("postings against texts", sampled, "rows", lexical_faults(files, snapshot.lexical), segment=ref.name)
    if files.columns:
        report.add("metadata columns against passages", rows, "rows", columns_faults(files), segment=ref.name)
    if encoder and count:
        report.add(
            "texts encoded again", count, "rows", encoder_faults(files, encoder, count, live_N), segment=ref.name
        )


def _live(index: Path, ref: SegmentRef) -> tuple[np.ndarray, list[Fault]]:
    try:
        return live_mask(index, ref), []
    except CorruptArtifactError as err:
        where = index / TOMBSTONES / ref.tombstones
        return np.ones(ref.num_rows, dtype=bool), [Fault(_what(err, where), where)]


def _id_faults(index: Path, snapshot: Snapshot, ids: IdKeys) -> Iterator[Fault]:
    """Yield the ids that two live rows share."""
    pairs = ids.duplicates()
    starts = np.cumsum([0, *(ref.num_rows for ref in snapshot.segments)])
    for pair in pairs[:MAX_DOUBLE_IDS]:
        numbers = [int(np.searchsorted(starts, row, side="right")) - 1 for row in pair]
        (first, second) = (
            f"row {row - starts[number]} of segment {snapshot.segments[number].name}"
            for row, number in zip(pair, numbers, strict=True)
        )
        folder = index / SEGMENTS / snapshot.segments[numbers[1]].name
        yield Fault(f"{second} is live and has the id of {first}", folder)
    if len(pairs) > MAX_DOUBLE_IDS:
        yield Fault(f"{len(pairs) - MAX_DOUBLE_IDS} further live rows have the id of another one", index / SEGMENTS)

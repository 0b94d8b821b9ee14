"""Ranking of an index. In: an index, what was fitted to a snapshot of it. Out: a new snapshot that ranks so."""

from __future__ import annotations

from pathlib import Path

from ragray.artifact.digest import fingerprint
from ragray.errors import SnapshotConflictError
from ragray.index.store.output import changed_index
from ragray.index.store.snapshot import RANKING_FORMAT, RankingParams, Snapshot, successor


def set_ranking(index: Path, fitted_to: str, ranking: RankingParams) -> Snapshot:
    """Publish a snapshot that differs from the current one, ``fitted_to``, in its ranking alone; where nothing differs, publish none.

    Raises:
        SnapshotConflictError: another snapshot than ``fitted_to`` is current.
        ArtifactBusyError: another process is writing to the index.
    """
    with changed_index(index) as (output, base):
        if base.name != fitted_to:
            raise SnapshotConflictError(
                f"{index}: the current snapshot is {base.name}, the ranking was fitted to {fitted_to}; run again"
            )
        if base.ranking == ranking:
            return base
        source = fingerprint([base.source, ranking.model_dump(mode="json")])
        changes = {"ranking": ranking, "format_version": RANKING_FORMAT}
        snapshot = successor(index, base, source, base.segments).model_copy(update=changes)
        output.publish(snapshot)
        return snapshot

"""What a snapshot was tuned to, and what was set. In: the settings, a snapshot. Out: the settings that hold for it."""

from __future__ import annotations

import logging
from pathlib import Path

from ragray.config import Config, RetrieveConfig
from ragray.index.store.snapshot import Snapshot, read_snapshot

logger = logging.getLogger("ragray")


def in_force(settings: RetrieveConfig, snapshot: Snapshot) -> RetrieveConfig:
    """Return the settings that hold for a snapshot: what was given, else what `ragray index tune` wrote into it, else the defaults.

    A run's values count as given (`ragray.run.Run.settings`).
    """
    chosen = dict(snapshot.fusion.chosen()) if snapshot.fusion else {}
    return settings.model_copy(update={key: chosen[key] for key in chosen if key not in settings.model_fields_set})


def with_tuned(config: Config, index: Path, snapshot: str | None = None) -> Config:
    """Return a configuration whose section `retrieve` is the one in force for a snapshot (the current one by default)."""
    return config.model_copy(update={"retrieve": in_force(config.retrieve, read_snapshot(index, snapshot))})


def log_overridden(settings: RetrieveConfig, snapshot: Snapshot) -> None:
    """Name in the log what was given and differs from what the snapshot was tuned to, as far as it is used."""
    fused = settings.mode == "hybrid" and settings.fusion == "convex"
    for key, tuned in snapshot.fusion.chosen() if snapshot.fusion else ():
        given = getattr(settings, key)
        if key in settings.model_fields_set and given != tuned and (fused or key == "k"):
            message = "retrieve.%s=%s is used, though snapshot %s was tuned to %s=%s"
            logger.warning(message, key, given, snapshot.name, key, tuned)

"""Settings in force. In: settings as given, an open snapshot. Out: the settings, those that were not given as the snapshot has them."""

from __future__ import annotations

from ragray.config import RetrieveConfig
from ragray.index.store.snapshot import Snapshot


def in_force(settings: RetrieveConfig, snapshot: Snapshot) -> RetrieveConfig:
    """Return settings with what `ragray index tune` fitted for the snapshot in place of what a file or override did not give."""
    fitted = snapshot.ranking.settings if snapshot.ranking else {}
    return settings.model_copy(
        update={key: value for key, value in fitted.items() if key not in settings.model_fields_set}
    )

"""Vectors to a searchable index of segments and snapshots. Plain Python; `ragray.cluster.index` builds segments as Ray tasks."""

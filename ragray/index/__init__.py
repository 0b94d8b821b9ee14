"""Vectors to a searchable index of segments and snapshots. Plain Python; the stages are `ragray.stages.build`, `sync` and `compact`."""

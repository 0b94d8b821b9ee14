"""The files of an index: segments, snapshots that name them, what becomes of old ones."""

"""Sources to passages: read, clean, refuse, split, store. Plain Python; `ragray.cluster.corpus` runs it on Ray Data."""

"""Sources to passages: read, clean, refuse, split, store. Plain Python; the stage is `ragray.stages.ingest`."""

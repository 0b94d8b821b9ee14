"""Passages to vectors. Plain Python; the stage is `ragray.stages.embed`."""

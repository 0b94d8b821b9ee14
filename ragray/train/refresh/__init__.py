"""Re-indexing while training, as far as the training workers see it."""

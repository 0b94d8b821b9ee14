"""Writing segments: of a whole corpus, of what a new corpus changes, of what is deleted."""

"""A stage's output folder: written by one process, named by its content, whole once it has a manifest."""

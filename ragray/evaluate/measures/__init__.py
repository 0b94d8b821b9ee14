"""What answers are worth, by the names of `evaluate.metrics`: one module for each family of measures."""

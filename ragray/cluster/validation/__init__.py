"""Validations on Ray: an actor beside the workers, or the first worker between two steps."""

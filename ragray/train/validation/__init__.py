"""Validation beside training: which weights of a run are the best so far, and when there is nothing more to gain. Knows no Ray."""

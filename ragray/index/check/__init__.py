"""Whether an index is what it says it is, and what is in it."""

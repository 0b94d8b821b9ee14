"""A service with more requests than it can answer: who is let in, for how long, and what is spared."""

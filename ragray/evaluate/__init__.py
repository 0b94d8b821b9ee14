"""Scores of answers and of retrieval. Plain Python; `ragray.stages.evaluate` answers the questions."""

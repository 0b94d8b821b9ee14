"""Answers to figures. Plain Python; `ragray.cluster.evaluate` answers the questions on Ray Data."""

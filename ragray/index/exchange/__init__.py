"""Vectors and texts from and for other programs."""

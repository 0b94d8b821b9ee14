"""Searching one snapshot: exact scores over vectors, BM25 over words, filters over metadata."""

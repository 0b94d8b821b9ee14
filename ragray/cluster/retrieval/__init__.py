"""Retriever actors on Ray: segments spread over actors and copies, searched as one index."""

"""Questions to passages. Plain Python; `ragray.cluster.retrieval.start` holds the pool of retriever actors."""

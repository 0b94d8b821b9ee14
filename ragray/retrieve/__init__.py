"""Questions to passages. Plain Python; `ragray.cluster.retrieve` holds the pool of retriever actors."""

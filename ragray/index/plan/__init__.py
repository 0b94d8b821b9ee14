"""Which FAISS type and search parameters an index gets, and why."""

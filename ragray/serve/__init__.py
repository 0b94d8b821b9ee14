"""The HTTP interface. Plain FastAPI; `ragray.cluster.serve` puts it on Ray Serve."""

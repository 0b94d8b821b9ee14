"""The HTTP interface. Plain FastAPI; `ragray.cluster.serving.commands` puts it on Ray Serve."""

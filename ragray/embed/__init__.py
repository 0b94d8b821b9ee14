"""Passages to vectors. Plain Python; `ragray.cluster.embed` runs it on a Ray Data actor pool."""

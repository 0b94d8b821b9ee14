"""Weights as packages ship them to model folders. Plain Python; `ragray.models` calls it and keeps the results."""

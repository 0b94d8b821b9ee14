"""Examples and predictions in the formats that people have: files, tables and Python objects -> checked objects."""

from ragray.examples.predictions import read_predictions
from ragray.examples.read import read_examples, read_references
from ragray.examples.sources import ExampleSource

__all__ = ["ExampleSource", "read_examples", "read_predictions", "read_references"]

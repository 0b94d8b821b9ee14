"""The bundled sample: a small encyclopedia with questions, written for this project, and the settings of the quickstart."""

from pathlib import Path

FOLDER = Path(__file__).parent
CORPUS = FOLDER / "corpus.jsonl"
TRAIN = FOLDER / "train.jsonl"
TEST = FOLDER / "test.jsonl"
QUICKSTART_CONFIG = FOLDER / "quickstart.yaml"

"""The bundled sample: small encyclopedias in English and Chinese with questions, written for this project; settings of the quickstart."""

from pathlib import Path

FOLDER = Path(__file__).parent
CORPUS = FOLDER / "corpus.jsonl"
TRAIN = FOLDER / "train.jsonl"
TEST = FOLDER / "test.jsonl"
CORPUS_ZH = FOLDER / "corpus_zh.jsonl"
TRAIN_ZH = FOLDER / "train_zh.jsonl"
TEST_ZH = FOLDER / "test_zh.jsonl"
CROSS_ZH = FOLDER / "cross_zh.jsonl"
"""English questions on the Chinese passages."""
QUICKSTART_CONFIG = FOLDER / "quickstart.yaml"
QUICKSTART_ZH_CONFIG = FOLDER / "quickstart_zh.yaml"

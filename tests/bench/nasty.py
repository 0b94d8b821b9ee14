"""How the time of cleaning, analysis and chunking grows with nasty texts. In: sizes. Out: one table: seconds, growth per doubling.

    python -m tests.bench nasty
    python -m tests.bench nasty --chars 9000000 --only marks

Each text is made of one pattern. A step that is linear takes twice as long for twice the text; one that is quadratic four times.
"""

import argparse
import random
import time
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from ragray.config import IngestConfig
from ragray.corpus.chunk import split_document
from ragray.corpus.tokens import WordTokenizer
from ragray.text.analyzer import analyze
from ragray.text.repair import clean_text
from ragray.text.shingles import shingles
from ragray.types import Document
from tests.text.nasty import NASTY

STEPS: dict[str, Callable[[str], object]] = {
    "clean": clean_text,
    "chunk": lambda text: sum(1 for _ in split_document(Document("d", f"x {text}"), WordTokenizer(), IngestConfig())),
    "analyze": lambda text: analyze([text], "english.3"),
    "shingles": shingles,
}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument(
    "--chars", type=int, default=400_000, help="length of the longest text; the others are its half and its quarter"
)
parser.add_argument("--only", default="", help="names of texts, with commas between them")


def seconds(step: Callable[[str], object], text: str) -> float:
    """Return the CPU time of one step over one text, in seconds."""
    started = time.process_time()
    step(text)
    return time.process_time() - started


def main() -> None:
    """Run every step over every text and print the table."""
    args = parser.parse_args()
    sizes = [args.chars // 4, args.chars // 2, args.chars]
    chosen = args.only.split(",") if args.only else list(NASTY)
    shown = Table(title="seconds of CPU time; growth: of the last doubling", title_justify="left")
    for heading in ("text", "step", *(f"{size:,}" for size in sizes), "growth"):
        shown.add_column(heading)
    for name in chosen:
        texts = [NASTY[name](size, random.Random(0)) for size in sizes]
        for step, run in STEPS.items():
            took = [seconds(run, text) for text in texts]
            shown.add_row(name, step, *(f"{one:.2f}" for one in took), f"{took[-1] / max(took[-2], 0.01):.1f}")
    Console(width=110).print(shown)

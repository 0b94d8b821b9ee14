"""Embedding speed next to sentence-transformers. In: the squad-open data. Out: one table and a JSON of results.

    python -m tests.bench embed_speed --data ../shared/data/squad-open

The same passages, weights and length limit go through `sentence_transformers.encode(batch_size=32)` on two torch threads, and through
the `embed` stage of ragray with two actors of one thread each, on torch and on OpenVINO. Rates are those of warm encoders; the stage's
own time (starting Ray, loading models, writing, publishing) is reported beside them. The same processes without Ray, as `index sync`
starts them where there is no cluster, show how much of that is Ray's.
"""

import argparse
import gzip
import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic

import numpy as np
from rich.console import Console
from rich.table import Table

from ragray.api import embed_corpus
from ragray.artifact.files import write_json
from ragray.config import load_config
from ragray.embed.blocks import Embeddings
from ragray.embed.passage_text import passage_text
from ragray.models import resolve_model
from ragray.types import Passage
from tests.helpers import write_corpus

RESULTS = Path(__file__).parent / "results" / "embed_speed.json"
MAX_LENGTH = 256
NUM_WARM = 64
LARGE = 20_000
GOALS = "goals: at least 1.3 times sentence-transformers, cosine difference at most 1e-3, Ray below 5%"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, default=Path("../shared/data/squad-open"))
parser.add_argument("--passages", type=int, default=5000)
parser.add_argument("--batch-tokens", type=int, default=0, help="embed.batch_tokens; 0: the default")
parser.add_argument("--results", type=Path, default=RESULTS)


@dataclass(frozen=True)
class Measured:
    """One way to embed: passages a second once warm, seconds of the whole stage, largest cosine difference to float32.

    ``other_percent`` is the share of the stage that its actors did not spend on their blocks, had there been 20,000 passages;
    ``ray_percent`` is what of it the same processes without Ray do not take.
    """

    name: str
    passages_per_s: float
    ratio: float
    stage_s: float | None = None
    encode_s: float | None = None
    other_percent: float | None = None
    ray_percent: float | None = None
    cosine_difference: float | None = None


def read_passages(data: Path, count: int) -> list[Passage]:
    """Choose passages evenly from the whole corpus."""
    with gzip.open(data / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    chosen = (rows[number * len(rows) // count] for number in range(count))
    return [Passage(row["id"], row["text"], row.get("title", "")) for row in chosen]


def sentence_transformers(texts: list[str]) -> tuple[Measured, np.ndarray]:
    """Measure the rival, warmed; its vectors in float32 are what all others are compared with."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(2)
    model = SentenceTransformer(str(resolve_model("all-minilm-l6-v2")), device="cpu")
    model.max_seq_length = MAX_LENGTH
    model.encode(texts[:NUM_WARM], batch_size=32)
    started = monotonic()
    vectors = model.encode(texts, batch_size=32, normalize_embeddings=True)
    return Measured("sentence-transformers, batch 32", len(texts) / (monotonic() - started), 1.0), vectors


def ragray(engine: str, executor: str, work: Path, rival: Measured, exact_ND: np.ndarray, *overrides: str) -> Measured:
    """Measure the stage as `ragray embed` runs it: on Ray, its start included, or in local processes."""
    settings = [
        f"embed.max_length={MAX_LENGTH}",
        "embed.num_workers=2",
        "embed.cpus_per_worker=1",
        f"embed.engine={engine}",
    ]
    config, out = load_config(None, [*settings, *overrides]), work / f"embeddings-{engine}-{executor}"
    embed_corpus(work / "few", work / f"few-{engine}-{executor}", config, executor=executor)
    report = embed_corpus(work / "corpus", out, config, executor=executor)
    vectors_ND = np.concatenate([vectors for _, vectors in Embeddings.open(out).iter_blocks()]).astype(np.float32)
    cosine_N = (vectors_ND * exact_ND).sum(1) / np.linalg.norm(vectors_ND, axis=1) / np.linalg.norm(exact_ND, axis=1)
    rate = len(exact_ND) / report.encode_seconds
    other = report.seconds - report.encode_seconds
    return Measured(
        name=f"ragray, 2 {'actors' if executor == 'ray' else 'processes without Ray'}, {engine}",
        passages_per_s=rate,
        ratio=rate / rival.passages_per_s,
        stage_s=report.seconds,
        encode_s=report.encode_seconds,
        other_percent=100 * other / (other + LARGE / rate),
        cosine_difference=float(1 - cosine_N.min()),
    )


def with_share_of_ray(on_ray: Measured, without: Measured) -> Measured:
    """Add what Ray takes of the stage."""
    assert on_ray.stage_s and on_ray.encode_s and without.stage_s and without.encode_s
    other = on_ray.stage_s - on_ray.encode_s
    own = other - (without.stage_s - without.encode_s)
    return replace(on_ray, ray_percent=100 * own / (other + LARGE / on_ray.passages_per_s))


def main() -> None:
    """Run everything, print the table, write the JSON."""
    args = parser.parse_args()
    if not (args.data / "corpus.jsonl.gz").is_file():
        sys.exit(f"{args.data}: no corpus.jsonl.gz there; name the squad-open folder with --data")
    passages = read_passages(args.data, args.passages)
    rival, exact_ND = sentence_transformers([passage_text(passage) for passage in passages])
    with tempfile.TemporaryDirectory(prefix="ragray-speed-") as work:
        write_corpus(Path(work) / "corpus", passages, shard_rows=max(1, -(-len(passages) // 2)))
        write_corpus(Path(work) / "few", passages[:NUM_WARM])
        overrides = [f"embed.batch_tokens={args.batch_tokens}"] if args.batch_tokens else []
        ways = [rival]
        for engine in ("torch", "openvino"):
            on_ray, without = (
                ragray(engine, where, Path(work), rival, exact_ND, *overrides) for where in ("ray", "local")
            )
            ways += [with_share_of_ray(on_ray, without), without]
    table(ways, len(passages))
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    write_json(args.results, {"machine": machine, "passages": len(passages), "ways": [asdict(way) for way in ways]})


def table(ways: list[Measured], num_passages: int) -> None:
    """Print one table."""
    shown = Table(title=f"embedding {num_passages} passages of squad-open, MiniLM", caption=GOALS, title_justify="left")
    shown.add_column("")
    for heading in (
        "passages/s",
        "ratio",
        "stage s",
        "encoding s",
        "not encoding, at 20k",
        "Ray, at 20k",
        "cosine diff",
    ):
        shown.add_column(heading, justify="right")
    for way in ways:
        shown.add_row(
            way.name,
            f"{way.passages_per_s:.1f}",
            f"{way.ratio:.2f}",
            "-" if way.stage_s is None else f"{way.stage_s:.1f}",
            "-" if way.encode_s is None else f"{way.encode_s:.1f}",
            "-" if way.other_percent is None else f"{way.other_percent:.1f}%",
            "-" if way.ray_percent is None else f"{way.ray_percent:.1f}%",
            "-" if way.cosine_difference is None else f"{way.cosine_difference:.0e}",
        )
    Console(width=120).print(shown)

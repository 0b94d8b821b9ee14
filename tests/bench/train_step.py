"""A training step next to `transformers`' RAG classes, and live retrieval next to none. In: the squad-open data. Out: tables and a JSON.

    python -m tests.bench train_step --data ../shared/data/squad-open [--models bart,t5] [--dim 512] [--rounds 6] [--live-rounds 4]

Generators and a question encoder of DPR with random weights of the named size, 20,000 passages with random vectors. One process, the
same threads, in turn, step by step: ragray's loop; `RagSequenceForGeneration` and `RagTokenForGeneration` with their `RagRetriever`
over FAISS in the process, which pads every prompt to `max_combined_length`; and the same classes told to pad to the longest prompt of
the batch. Same weights, examples, K, dropout and fused AdamW. The first and the last step do not count; compare the ratios, on a
busy machine those of processor time with one thread. Then ragray's loop with a
pool of retriever actors on Ray next to the same loop given passages that were fetched beforehand.
"""

import argparse
import gzip
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic, process_time
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from transformers import (
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    DPRConfig,
    DPRQuestionEncoder,
    RagConfig,
    RagRetriever,
    RagSequenceForGeneration,
    RagTokenForGeneration,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.models.rag.retrieval_rag import CustomHFIndex

from ragray.api import build_index
from ragray.artifact.files import write_json
from ragray.cluster.retrieval.start import retriever_pool
from ragray.cluster.session import session
from ragray.config import EncoderConfig, GenerateConfig, RetrieveConfig, TrainConfig, load_config
from ragray.embed.transformer import TransformerEncoder
from ragray.generate.engines.model import GeneratorModel
from ragray.index.exchange.importing import import_embeddings
from ragray.index.search.reader import IndexReader
from ragray.index.search.result import SearchResult
from ragray.models import resolve_model
from ragray.train.components import Components
from ragray.train.loop import StepMetrics, TrainLoop
from ragray.train.objectives.objective import CompletedSearch, LocalSearcher, Searcher
from ragray.train.objectives.rag import RagBatch, RagObjective
from ragray.types import Example

RESULTS = Path(__file__).parent / "results" / "train_step.json"
MAX_COMBINED_LENGTH = 300
"""What `transformers` pads to unless told otherwise."""
WARM_STEPS = 1
GOALS = "goals: at least 1.5 times the examples per second of transformers; live at most 1.05 times the step of passages fetched beforehand"
KINDS = {"sequence": RagSequenceForGeneration, "token": RagTokenForGeneration}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, default=Path("../shared/data/squad-open"))
parser.add_argument("--models", default="bart,t5")
parser.add_argument("--dim", type=int, default=512, help="width of all models; 768: those of the base models")
parser.add_argument(
    "--layers", type=int, default=6, help="layers of each half of the generator, and of the question encoder"
)
parser.add_argument("--batch-size", type=int, default=2)
parser.add_argument("--k", type=int, default=5)
parser.add_argument("--rounds", type=int, default=6, help="steps of each system, of which first and last do not count")
parser.add_argument("--live-rounds", type=int, default=4, help="turns of live and of prefetched retrieval; 0: none")
parser.add_argument("--threads", type=int, default=os.cpu_count())
parser.add_argument("--results", type=Path, default=RESULTS)


@dataclass(frozen=True)
class Bench:
    """What all systems share: folders of models and index, passages with their vectors, examples, sizes."""

    encoder: Path
    index: Path
    passages: list[dict[str, str]]
    vectors_ND: np.ndarray
    examples: list[Example]
    batch_size: int
    k: int

    def train(self, steps: int) -> TrainConfig:
        return TrainConfig(
            max_steps=steps, epochs=1000, batch_size=self.batch_size, warmup_ratio=0, lr_schedule="constant"
        )


@dataclass
class Timed:
    """Seconds of each step of a system, by the clock and of the processor, and its losses."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def add(self, seconds: float, cpu_seconds: float, loss: float) -> None:
        self.seconds.append(seconds)
        self.cpu_seconds.append(cpu_seconds)
        self.losses.append(loss)

    def counted(self) -> "Timed":
        """Return the steps that count; after the last one ragray computes another loss, to see that the weights can be used."""
        counted = slice(WARM_STEPS, -1)
        return Timed(self.seconds[counted], self.cpu_seconds[counted], self.losses[counted])

    @property
    def median_s(self) -> float:
        """Median by the clock."""
        return statistics.median(self.seconds)

    @property
    def median_cpu_s(self) -> float:
        """Median of the processor."""
        return statistics.median(self.cpu_seconds)


def save_generator(kind: str, dim: int, layers: int, folder: Path) -> Path:
    """Save a generator of random weights with the tokenizer of SmolLM2, whose vocabulary is about as large as BART's."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("smollm2-135m-instruct"))
    tokenizer.chat_template = None
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(
        0
    )  # the RAG classes would take its end token, the same, for padding
    ids = {
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.eos_token_id,
    }
    if kind == "bart":
        config = BartConfig(
            vocab_size=len(tokenizer), d_model=dim, encoder_layers=layers, decoder_layers=layers, encoder_ffn_dim=4 * dim,
            decoder_ffn_dim=4 * dim, encoder_attention_heads=dim // 64, decoder_attention_heads=dim // 64,
            forced_eos_token_id=None, bos_token_id=tokenizer.eos_token_id, **ids,
        )  # fmt: skip
        model: Any = BartForConditionalGeneration(config)
    else:
        config = T5Config(
            vocab_size=len(tokenizer), d_model=dim, d_kv=64, d_ff=4 * dim, num_layers=layers, num_heads=dim // 64, **ids
        )
        model = T5ForConditionalGeneration(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_encoder(dim: int, layers: int, folder: Path) -> Path:
    """Save a question encoder of DPR with random weights and the tokenizer of MiniLM, which is BERT's."""
    torch.manual_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("all-minilm-l6-v2"))
    config = DPRConfig(
        vocab_size=len(tokenizer), hidden_size=dim, num_hidden_layers=layers, num_attention_heads=dim // 64,
        intermediate_size=4 * dim,
    )  # fmt: skip
    DPRQuestionEncoder(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def prepare(args: argparse.Namespace, work: Path) -> Bench:
    """Save the question encoder; index all passages under random vectors."""
    with gzip.open(args.data / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        passages = [json.loads(line) for line in file]
    lines = (args.data / "train.jsonl").read_text(encoding="utf-8").splitlines()
    examples = [
        Example(row["id"], row["question"].lower(), tuple(row["answers"])) for row in map(json.loads, lines[::20])
    ]
    config = EncoderConfig(model=str(save_encoder(args.dim, args.layers, work / "encoder")), normalize=False)
    asked_ND = TransformerEncoder.load(config, device="cpu").encode_questions([one.question for one in examples[:64]])
    vectors_ND = np.random.default_rng(0).normal(size=(len(passages), args.dim)).astype(np.float32)
    # Questions of a random encoder differ little from each other: without their mean they find passages of their own.
    mean_D = asked_ND.mean(0) / np.linalg.norm(asked_ND.mean(0))
    vectors_ND -= (vectors_ND @ mean_D)[:, None] * mean_D
    columns = {
        "id": [row["id"] for row in passages],
        "title": [row.get("title", "") for row in passages],
        "text": [row["text"] for row in passages],
        "embedding": list(vectors_ND.astype(np.float16)),
    }
    pq.write_table(pa.table(columns), work / "vectors.parquet")
    made = import_embeddings(work / "vectors.parquet", None, work / "imported", encoder_config=config)
    settings = load_config(None, ["index.lexical=none", "index.type=flat"])
    build_index(made.embeddings, made.corpus, work / "index", settings, executor="local")
    rows = [{"title": row.get("title", ""), "text": row["text"]} for row in passages]
    return Bench(work / "encoder", work / "index", rows, vectors_ND, examples, args.batch_size, args.k)


def ragray_loop(bench: Bench, generator: Path, marginalize: str, steps: int, searcher: Searcher) -> TrainLoop[RagBatch]:
    """Make ragray's loop, as `ragray train` does, with the prompts of the RAG classes."""
    config = EncoderConfig(model=str(bench.encoder), normalize=False)
    encoder = TransformerEncoder.load(config, device="cpu")
    train = bench.train(steps)
    components = Components(train, question_encoder=encoder, generator=GeneratorModel.load(generator, device="cpu"))
    generate = GenerateConfig(
        marginalize=marginalize,
        prompt="rag",
        instruction="",
        max_prompt_tokens=MAX_COMBINED_LENGTH,
        passage_temperature=1.0,
    )
    objective = RagObjective(components, encoder, searcher, k=bench.k, generate=generate)
    return TrainLoop(components, objective, bench.examples, train=train)


class Longest(RagRetriever):  # type: ignore[misc] # transformers is untyped
    """Pads to the longest prompt of the batch, which `RagRetriever` has no setting for."""

    def postprocess_docs(self, *arguments: Any, **options: Any) -> Any:
        ids, mask = super().postprocess_docs(*arguments, **options)
        longest = int(mask.sum(1).max())
        return ids[:, :longest], mask[:, :longest]


class Theirs:
    """A model of `transformers` with its retriever and an optimizer; one step at a time."""

    def __init__(
        self, bench: Bench, generator: Path, marginalize: str, retriever: type[RagRetriever], data: Dataset
    ) -> None:
        kind = T5ForConditionalGeneration if "t5" in generator.name else BartForConditionalGeneration
        parts = DPRQuestionEncoder.from_pretrained(bench.encoder), kind.from_pretrained(generator)
        dim = bench.vectors_ND.shape[1]
        config = RagConfig.from_question_encoder_generator_configs(
            parts[0].config,
            parts[1].config,
            n_docs=bench.k,
            retrieval_vector_size=dim,
            max_combined_length=MAX_COMBINED_LENGTH,
        )
        if not hasattr(config.generator, "bos_token_id"):
            config.generator.bos_token_id = None  # transformers 5.23 asks T5 for it, which has none
        self._tokenizers = AutoTokenizer.from_pretrained(bench.encoder), AutoTokenizer.from_pretrained(generator)
        found = retriever(config, *self._tokenizers, index=CustomHFIndex(dim, data))
        self._model = KINDS[marginalize](config, question_encoder=parts[0], generator=parts[1], retriever=found)
        settings = bench.train(1)
        self._max_norm = settings.max_grad_norm
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(), lr=settings.generator_lr, weight_decay=0.01, fused=True
        )

    def step(self, examples: Sequence[Example]) -> tuple[float, float, float]:
        """Compute one optimizer step; return its seconds by the clock and of the processor, and its loss."""
        started, cpu = monotonic(), process_time()
        self._model.train()
        loss = self.loss(examples)
        loss.backward()  # type: ignore[no-untyped-call] # torch has it so
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._max_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return monotonic() - started, process_time() - cpu, loss.item()

    def loss(self, examples: Sequence[Example]) -> torch.Tensor:
        """Return the loss of a batch: tokenising, retrieving, both models."""
        asking, writing = self._tokenizers
        questions = asking([one.question for one in examples], padding=True, return_tensors="pt")
        answers = [[*writing.encode(f" {one.answers[0]}"), writing.eos_token_id] for one in examples]
        longest = max(map(len, answers))
        start = self._model.config.generator.decoder_start_token_id
        labels = torch.tensor([[start, *row, *[writing.pad_token_id] * (longest - len(row))] for row in answers])
        output = self._model(input_ids=questions.input_ids, attention_mask=questions.attention_mask, labels=labels)
        loss: torch.Tensor = output.loss.mean()
        return loss


def indexed(bench: Bench) -> Dataset:
    """Make the dataset with FAISS index that `RagRetriever` searches, exact as ragray's."""
    data = Dataset.from_list(
        [{**row, "embeddings": v} for row, v in zip(bench.passages, bench.vectors_ND, strict=True)]
    )
    data.add_faiss_index("embeddings", string_factory="Flat", metric_type=faiss.METRIC_INNER_PRODUCT)
    return data


def against_transformers(
    bench: Bench, generator: Path, marginalize: str, steps: int, data: Dataset
) -> dict[str, Timed]:
    """Let all systems take steps on the same examples, in turn."""
    theirs = {
        "transformers": Theirs(bench, generator, marginalize, RagRetriever, data),
        "transformers, padded to the longest": Theirs(bench, generator, marginalize, Longest, data),
    }
    timed = {name: Timed() for name in ("ragray", *theirs)}
    loop = ragray_loop(bench, generator, marginalize, steps, LocalSearcher(IndexReader.open(bench.index)))
    before, cpu = loop.progress, process_time()

    def on_step(metrics: StepMetrics) -> None:
        nonlocal before, cpu
        timed["ragray"].add(metrics.seconds, process_time() - cpu, metrics.loss)
        examples = [bench.examples[number] for number in loop.schedule.examples(before, 0)]
        before = loop.progress
        for name, system in theirs.items():
            timed[name].add(*system.step(examples))
        cpu = process_time()

    loop.run(on_step)
    return {name: each.counted() for name, each in timed.items()}


class Fetched:
    """Gives passages that were fetched beforehand, in the order of the steps."""

    def __init__(self, results: Sequence[SearchResult]) -> None:
        self._left = iter(results)

    def submit(self, vectors_ND: np.ndarray, k: int) -> CompletedSearch:
        return CompletedSearch(next(self._left))


class Recording:
    """Searches an index and keeps what it found."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher
        self.results: list[SearchResult] = []

    def submit(self, vectors_ND: np.ndarray, k: int) -> CompletedSearch:
        self.results.append(self._searcher.submit(vectors_ND, k).result())
        return CompletedSearch(self.results[-1])


def live_retrieval(bench: Bench, generator: Path, rounds: int, steps: int) -> dict[str, Timed]:
    """Run the loop on a pool and on passages fetched beforehand, in turn, from the same weights; `cpu_seconds` are those of waiting."""
    recorded = Recording(LocalSearcher(IndexReader.open(bench.index)))
    ragray_loop(bench, generator, "sequence", steps, recorded).run(lambda _: None)
    timed = {"passages fetched beforehand": Timed(), "live from the pool": Timed()}
    with session(None), retriever_pool(bench.index, RetrieveConfig()) as pool:
        for _ in range(rounds):
            searchers: tuple[Searcher, ...] = (Fetched(recorded.results), pool)
            for name, searcher in zip(timed, searchers, strict=True):
                found, loop = Timed(), ragray_loop(bench, generator, "sequence", steps, searcher)
                loop.run(lambda each, found=found: found.add(each.seconds, each.wait_seconds, each.loss))  # type: ignore[misc] # a lambda with defaults
                for each in zip(*asdict(found.counted()).values(), strict=True):
                    timed[name].add(*each)
    return timed


def main() -> None:
    """Measure everything, print the tables, write the JSON."""
    args = parser.parse_args()
    if not (args.data / "corpus.jsonl.gz").is_file():
        sys.exit(f"{args.data}: no corpus.jsonl.gz there; name the squad-open folder with --data")
    torch.set_num_threads(args.threads)
    rows: list[dict[str, Any]] = []
    live: dict[str, Timed] = {}
    with tempfile.TemporaryDirectory(prefix="ragray-step-") as folder:
        bench = prepare(args, Path(folder))
        data = indexed(bench)
        for kind in args.models.split(","):
            generator = save_generator(kind, args.dim, args.layers, Path(folder) / kind)
            for marginalize in KINDS:
                rows += rates(
                    kind, marginalize, against_transformers(bench, generator, marginalize, args.rounds, data), args
                )
                print(*rows[-3:], sep="\n", flush=True)
        if args.live_rounds:
            live = live_retrieval(bench, generator, args.live_rounds, args.rounds)
    show(rows, live)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "load": os.getloadavg()[0]}
    sizes = {name: getattr(args, name) for name in ("dim", "layers", "batch_size", "k", "rounds", "threads")}
    steps = {
        name: {"median_s": each.median_s, "wait_s": each.median_cpu_s, "steps": len(each.seconds)}
        for name, each in live.items()
    }
    write_json(args.results, {"machine": machine, "sizes": sizes, "steps": rows, "live": steps})


def rates(kind: str, marginalize: str, timed: dict[str, Timed], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each system; the ratios are its seconds by ragray's, ``losses`` those of the first step that counts and the last."""
    ours = timed["ragray"]
    return [
        {
            "generator": kind,
            "marginalize": marginalize,
            "system": name,
            "examples_per_s": round(args.batch_size / each.median_s, 3),
            "ratio": round(each.median_s / ours.median_s, 3),
            "cpu_ratio": round(each.median_cpu_s / ours.median_cpu_s, 3),
            "losses": [round(each.losses[0], 3), round(each.losses[-1], 3)],
        }
        for name, each in timed.items()
    ]


def show(rows: Sequence[dict[str, Any]], live: dict[str, Timed]) -> None:
    """Print both tables."""
    shown = Table(title="training steps", title_justify="left", caption=GOALS, caption_justify="left")
    for heading in ("generator", "RAG-", "system", "examples/s", "ragray is faster by", "processor time", "losses"):
        shown.add_column(heading, justify="left" if heading in ("generator", "RAG-", "system") else "right")
    for row in rows:
        losses = " ".join(f"{loss:.2f}" for loss in row["losses"])
        shown.add_row(
            row["generator"],
            row["marginalize"],
            row["system"],
            f"{row['examples_per_s']:.3f}",
            f"{row['ratio']:.2f}",
            f"{row['cpu_ratio']:.2f}",
            losses,
        )
    Console(width=120).print(shown)
    if live:
        shown = Table(
            "passages", "seconds per step", "of them waiting", "ratio", title="retrieval", title_justify="left"
        )
        fetched = next(iter(live.values())).median_s
        for name, each in live.items():
            shown.add_row(name, f"{each.median_s:.3f}", f"{each.median_cpu_s:.4f}", f"{each.median_s / fetched:.3f}")
        Console(width=120).print(shown)


if __name__ == "__main__":
    main()

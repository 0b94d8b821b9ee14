"""Answering the questions of an evaluation next to one question at a time. In: the squad-open data. Out: one table and a JSON.

    python -m tests.bench evaluate_speed --data ../shared/data/squad-open [--questions 48] [--threads 2] [--batch-sizes 8,16]

The same 5,000 passages and questions as `squad_open`, found by BM25, two for each question, answered by SmolLM2 with at most 16 tokens.
`ragray` is what a worker of `ragray evaluate` does with its units, models loaded. `marginal` next to a plain loop over `transformers`: the
prompts of one question in one batch with a cache, the mixture of their next tokens, one question after the other. `together` next
to `generate` of `transformers`, one prompt after the other. All in one process with the same threads, OpenVINO in one of its own;
processor time counts both. On a busy machine compare processor time.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import monotonic

import psutil  # type: ignore[import-untyped] # a dependency of Ray
import torch
from rich.console import Console
from rich.table import Table
from transformers import DynamicCache

from ragray.api import build_index, embed_corpus, ingest
from ragray.artifact.files import write_json
from ragray.config import Config, load_config
from ragray.evaluate.report.under_test import SystemUnderTest
from ragray.examples import read_examples
from ragray.generate.answer.markers import with_known_numbers
from ragray.generate.engine import GenerationRequest
from ragray.generate.engines.model import positions
from ragray.generate.engines.transformer import TransformerGenerator
from ragray.index.search.reader import IndexReader
from ragray.retrieve.load import load_retriever
from ragray.stages.evaluate import AnswerQuestions, QuestionBatch, unit_size
from ragray.types import Example
from tests.bench.squad_open import make_subset

RESULTS = Path(__file__).parent / "results" / "evaluate_speed.json"
SETTINGS = ("retrieve.k=2", "retrieve.mode=lexical", "generate.max_new_tokens=16", "embed.model=hash:64")
TOGETHER = "generate.strategy=together"
GOALS = "goal: at least 3 times the questions per second of one at a time, same answers"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, default=Path("../shared/data/squad-open"))
parser.add_argument("--questions", type=int, default=48, help="the first of the 300 of squad_open")
parser.add_argument("--threads", type=int, default=os.cpu_count())
parser.add_argument("--batch-sizes", default="8,16")
parser.add_argument("--results", type=Path, default=RESULTS)


@dataclass(frozen=True)
class Measured:
    """What a way to answer took for each question, by the clock and of the processor, and how many texts were those of its reference."""

    strategy: str
    way: str
    seconds: float
    cpu_seconds: float
    same: int
    questions: int


def cpu_seconds() -> float:
    """Return the processor time of this process and its children so far."""
    here = psutil.Process()
    times = [each.cpu_times() for each in (here, *here.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


def make_index(data: Path, work: Path) -> Path:
    """Index the passages by BM25, which is all that is asked of the index; its vectors are hashes."""
    make_subset(data, work)
    config = load_config(None, [*SETTINGS])
    ingest([str(work / "corpus.jsonl")], work / "corpus", config, executor="local")
    embed_corpus(work / "corpus", work / "embeddings", config, executor="local")
    build_index(work / "embeddings", work / "corpus", work / "index", config, executor="local")
    return work / "index"


class Bench:
    """Questions, an index, and what was measured."""

    def __init__(self, index: Path, questions: Sequence[Example], threads: int) -> None:
        self.index = index
        self.questions = questions
        self.threads = threads
        self.found: list[Measured] = []

    def config(self, *overrides: str) -> Config:
        return load_config(None, [*SETTINGS, f"evaluate.cpus_per_worker={self.threads}", *overrides])

    def measure(self, strategy: str, way: str, answer: Callable[[], list[str]], reference: list[str]) -> list[str]:
        """Time a way to answer all questions; return its texts."""
        started, cpu = monotonic(), cpu_seconds()
        texts = answer()
        seconds, used = monotonic() - started, cpu_seconds() - cpu
        same = sum(one == other for one, other in zip(texts, reference or texts, strict=True))
        number = len(texts)
        self.found.append(Measured(strategy, way, round(seconds / number, 3), round(used / number, 3), same, number))
        print(self.found[-1], flush=True)
        return texts

    def by_ragray(self, work: Path, way: str, reference: list[str], *overrides: str) -> None:
        """Measure a worker of `ragray evaluate`, models loaded."""
        config = self.config(*overrides)
        task = AnswerQuestions(work)
        task.set_up(SystemUnderTest(config, None, self.index, IndexReader.open(self.index).snapshot.name))
        size = unit_size(len(self.questions), config.generate.batch_size)
        starts = range(0, len(self.questions), size)
        units = [QuestionBatch(f"{start}.json", tuple(self.questions[start : start + size])) for start in starts]

        def answer() -> list[str]:
            for unit in units:
                task.do(unit)
            return [line["text"] for unit in units for line in json.loads((work / unit.name).read_text())]

        self.measure(config.generate.strategy, way, answer, reference)

    def requests(self) -> list[GenerationRequest]:
        """Return what is asked, with the passages that are found."""
        config = self.config()
        retriever = load_retriever(self.index, None, config, snapshot=IndexReader.open(self.index).snapshot.name)
        results = retriever.search([one.question for one in self.questions], config.retrieve.k)
        pairs = zip(self.questions, results, strict=True)
        return [GenerationRequest(one.question, result.hits) for one, result in pairs]


@torch.inference_mode()
def mixture_alone(generator: TransformerGenerator, request: GenerationRequest, most: int) -> str:
    """Answer one question by RAG-Sequence's greedy mixture, written plainly."""
    weighted, model = generator.strategy.prompts(request), generator.model
    ids, mask = (torch.tensor(part) for part in model.pad_prompts(weighted.prompts))
    logp_K, tokens, cache = torch.tensor(weighted.log_prior_K), list[int](), DynamicCache()
    for _ in range(most):
        place = positions(mask)[:, -ids.shape[1] :]
        out = model.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=place,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        each_KV = out.logits[:, -1].log_softmax(-1)
        token = int((logp_K.log_softmax(-1)[:, None] + each_KV).logsumexp(0).argmax())
        if token in model.stop_ids():
            break
        logp_K = logp_K + each_KV[:, token]
        tokens.append(token)
        ids = torch.full((len(ids), 1), token)
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
    return generator.template.codec.decode(tokens).strip()


@torch.inference_mode()
def generated_alone(generator: TransformerGenerator, request: GenerationRequest, most: int) -> str:
    """Answer one question with `generate`."""
    weighted = generator.strategy.prompts(request)
    [row] = weighted.prompts
    ids = generator.model.model.generate(
        torch.tensor([list(row)]), max_new_tokens=most, do_sample=False, pad_token_id=generator.model.pad_id
    )
    tokens = [token for token in ids[0][len(row) :].tolist() if token not in generator.model.stop_ids()]
    text = generator.template.codec.decode(tokens).lstrip()
    return with_known_numbers(text, len(weighted.log_prior_N)).strip()


def main() -> None:
    """Measure everything, print the table, write the JSON."""
    args = parser.parse_args()
    if not (args.data / "dev.jsonl").is_file():
        sys.exit(f"{args.data}: no dev.jsonl there; name the squad-open folder with --data")
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory(prefix="ragray-evaluate-") as folder:
        work = Path(folder)
        index = make_index(args.data, work)
        bench = Bench(index, read_examples(work / "dev.jsonl")[: args.questions], args.threads)
        asked, sizes = bench.requests(), args.batch_sizes.split(",")
        for strategy, alone in (("marginal", mixture_alone), ("together", generated_alone)):
            config = bench.config(f"generate.strategy={strategy}").generate
            plain, most = TransformerGenerator.load(config, device="cpu"), config.max_new_tokens
            one_by_one = partial(map, partial(alone, plain, most=most), asked)
            reference = bench.measure(strategy, "transformers, one at a time", lambda w=one_by_one: [*w()], [])  # type: ignore[misc] # a lambda with defaults
            del plain, one_by_one
            for size in sizes:
                settings = (f"generate.strategy={strategy}", f"generate.batch_size={size}")
                bench.by_ragray(work, f"ragray, {size} at a time", reference, *settings)
                if strategy == "together":
                    bench.by_ragray(
                        work, f"ragray on OpenVINO, {size} at a time", reference, *settings, "generate.engine=openvino"
                    )
    table(bench.found)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "load": os.getloadavg()[0]}
    content = {"machine": machine, "threads": args.threads, "measured": [asdict(each) for each in bench.found]}
    write_json(args.results, content)


def table(found: Sequence[Measured]) -> None:
    """Print one table; the ratios are to one question at a time."""
    shown = Table(
        title="answering questions of squad-open", title_justify="left", caption=GOALS, caption_justify="left"
    )
    for heading in ("strategy", "way", "s/question", "faster by", "processor s", "less by", "same texts"):
        shown.add_column(heading, justify="left" if heading in ("strategy", "way") else "right")
    alone = {each.strategy: each for each in reversed(found)}
    for each in found:
        first = alone[each.strategy]
        ratios = first.seconds / each.seconds, first.cpu_seconds / each.cpu_seconds
        shown.add_row(
            each.strategy, each.way, f"{each.seconds:.2f}", f"{ratios[0]:.2f}", f"{each.cpu_seconds:.2f}",
            f"{ratios[1]:.2f}", f"{each.same}/{each.questions}",
        )  # fmt: skip
    Console(width=120).print(shown)


if __name__ == "__main__":
    main()

"""Training loops over one tiny index and the same initial weights, in this process; ranks that are threads."""

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ragray.config import EncoderConfig, GenerateConfig, TrainConfig
from ragray.embed.encoder import encoder_fingerprint
from ragray.embed.transformer import TransformerEncoder
from ragray.generate.engines.model import GeneratorModel
from ragray.index.search.reader import IndexReader
from ragray.index.search.result import SearchResult
from ragray.train.components import Components
from ragray.train.gold import answering_passages
from ragray.train.loop import StepMetrics, TrainLoop
from ragray.train.objectives.objective import LocalSearcher, Searcher
from ragray.train.objectives.rag import RagBatch, RagObjective
from ragray.train.objectives.together import TogetherBatch, TogetherObjective
from ragray.train.schedule import Rank
from ragray.types import Example

EXAMPLES = [Example(str(n), f"what is the colour of number {n}?", ("red" if n % 2 else "blue",)) for n in range(12)]
WITH_GOLD = [Example(f"g{n}", f"which is {n}?", ("red" if n % 2 else "blue",), (f"p{3 * n}",)) for n in range(11)]
"""An odd number, so that the last step of an epoch is filled up."""
SETTINGS = {
    "epochs": 10,
    "batch_size": 2,
    "max_steps": 6,
    "generator_lr": 1e-2,
    "encoder_lr": 1e-3,
}


class Recorded(RagObjective):
    """Keeps the ids of the examples of every micro-batch."""

    seen: list[str]

    def collate(self, examples: Sequence[Example], found: SearchResult, *, epoch: int) -> RagBatch:
        self.seen += [example.id for example in examples]
        return super().collate(examples, found, epoch=epoch)


@dataclass(frozen=True)
class Rig:
    """Builds loops."""

    generator: Path
    encoder: Path
    index: Path

    def components(self, train: TrainConfig) -> Components:
        torch.manual_seed(0)
        config = EncoderConfig(model=str(self.encoder), max_length=64)
        encoder = TransformerEncoder.load(config, device="cpu", fingerprint=encoder_fingerprint(config))
        passages = encoder if train.passage_encoder else None
        generator = GeneratorModel.load(self.generator, device="cpu")
        return Components(train, question_encoder=encoder, passage_encoder=passages, generator=generator)

    def loop(
        self,
        searcher: Searcher | None = None,
        *,
        examples: Sequence[Example] = EXAMPLES,
        marginalize: str = "sequence",
        rank: Rank | None = None,
        parallel: Callable[[Components], nn.Module] | None = None,
        seen: list[str] | None = None,
        **changes: object,
    ) -> TrainLoop[RagBatch]:
        train = TrainConfig.model_validate({**SETTINGS, **changes})
        components = self.components(train)
        searcher = searcher or LocalSearcher(IndexReader.open(self.index))
        generate = GenerateConfig.model_validate({"marginalize": marginalize, "passage_temperature": 0.5})
        encoder = components.encoders["question_encoder"]
        objective = Recorded(components, encoder, searcher, k=2, generate=generate)
        objective.seen = [] if seen is None else seen
        wrapped = parallel(components) if parallel else None
        return TrainLoop(components, objective, examples, train=train, rank=rank, parallel=wrapped)

    def together(
        self,
        *,
        rank: Rank | None = None,
        parallel: Callable[[Components], nn.Module] | None = None,
        **changes: object,
    ) -> TrainLoop[TogetherBatch]:
        """Build a loop with the objective `TogetherObjective`, whose examples have gold passages."""
        train = TrainConfig.model_validate({**SETTINGS, "encoder_lr": 0, **changes})
        components = self.components(train)
        reader = IndexReader.open(self.index)
        objective = TogetherObjective(
            components, components.encoders["question_encoder"], LocalSearcher(reader), k=2, train=train,
            generate=GenerateConfig(strategy="together", instruction="Say it."),
            gold=answering_passages(WITH_GOLD, self.index, reader.snapshot),
        )  # fmt: skip
        wrapped = parallel(components) if parallel else None
        return TrainLoop(components, objective, WITH_GOLD, train=train, rank=rank, parallel=wrapped)

    def ranks(self, world_size: int, *, together: bool = False, **settings: Any) -> "Ranks":
        """Build the loops of several ranks, whose gradients are averaged; one `seen` for all."""
        meeting = Meeting(world_size)
        make: Callable[..., TrainLoop[Any]] = self.together if together else self.loop
        return Ranks([
            make(rank=Rank(n, world_size), parallel=lambda model, n=n: Averaged(model, meeting, n), **settings)
            for n in range(world_size)
        ])  # fmt: skip


@dataclass(frozen=True)
class Ranks:
    """Loops that run in threads, as data-parallel processes do."""

    loops: list[TrainLoop[Any]]

    def restore(self, folder: Path) -> None:
        for loop in self.loops:
            loop.restore(folder)

    def run(self, *, stop_at: int = 0, folder: Path | None = None) -> list[list[StepMetrics]]:
        """Run all ranks to the end, or save a checkpoint at a step and stop there; return the steps of each rank."""
        steps: list[list[StepMetrics]] = [[] for _ in self.loops]
        threads = [threading.Thread(target=self._run, args=(n, steps[n], stop_at, folder)) for n in range(len(steps))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return steps

    def _run(self, number: int, steps: list[StepMetrics], stop_at: int, folder: Path | None) -> None:
        loop = self.loops[number]

        def on_step(step: StepMetrics) -> None:
            steps.append(step)
            if step.step == stop_at and folder:
                loop.save(folder)
                raise StoppedError

        with contextlib.suppress(StoppedError):
            loop.run(on_step)


class StoppedError(Exception):
    """A run was stopped in the middle."""


@dataclass
class Meeting:
    """Where the ranks exchange tensors."""

    world_size: int
    tensors: dict[int, Tensor] = field(default_factory=dict)
    barrier: threading.Barrier = field(init=False)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.world_size, timeout=60)

    def all(self, number: int, tensor: Tensor) -> Tensor:
        """Return the tensors of all ranks, stacked."""
        self.tensors[number] = tensor
        self.barrier.wait()
        found = torch.stack([self.tensors[rank] for rank in range(self.world_size)])
        self.barrier.wait()
        return found

    def mean(self, number: int, tensor: Tensor) -> Tensor:
        return self.all(number, tensor).mean(0)


class Averaged(nn.Module):
    """Averages the gradients over the ranks as DistributedDataParallel does, for one micro-batch per step."""

    def __init__(self, components: Components, meeting: Meeting, number: int) -> None:
        super().__init__()
        self.module = components

        def average(parameter: Tensor) -> None:
            assert parameter.grad is not None
            parameter.grad = meeting.mean(number, parameter.grad)

        for _, parameter in components.trainable():
            parameter.register_post_accumulate_grad_hook(average)

    def forward(self, *inputs: Any) -> Any:
        return self.module(*inputs)

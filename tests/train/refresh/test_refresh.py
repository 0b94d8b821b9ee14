"""Training while its passages are embedded again, in this process: resumed equals uninterrupted, nothing waits, nothing is lost."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import pytest
import torch

from ragray.config import TrainConfig, load_config
from ragray.embed.encoder import Vectors
from ragray.embed.passage_text import passage_text
from ragray.errors import ArtifactError, TrainingError
from ragray.index.search.reader import IndexReader
from ragray.index.store.snapshot import names, read_snapshot
from ragray.stages.reindexing.linked import keep_snapshots, link_snapshot
from ragray.stages.reindexing.reindex import Reindexing, reindex
from ragray.train.components import Components
from ragray.train.loop import StepMetrics
from ragray.train.objectives.objective import CompletedSearch, SearchFuture
from ragray.train.refresh.exchange import IndexState, RefreshFolder, Reply, Request, read_state
from ragray.train.refresh.service import RefreshService
from ragray.train.refresh.worker import IndexRefresh, save_and_ask
from ragray.train.schedule import Rank
from tests.executors import INLINE
from tests.train.rig import Averaged, Meeting, Rig

CHECKPOINT = "checkpoint_1"


class KilledError(Exception):
    """A process was killed."""


@dataclass
class Searched:
    """An index that another one can take the place of."""

    reader: IndexReader

    def submit(self, vectors_ND: Vectors, k: int) -> SearchFuture:
        return CompletedSearch(self.reader.search(vectors_ND, k, with_vectors=True))


@dataclass
class Job:
    """Makes an index when it is asked whether it is ready, and may be; ``failures`` come first."""

    plan: Reindexing
    may_end: threading.Event
    failures: list[Exception]
    cancelled: bool = False

    def result(self) -> str | None:
        if not self.may_end.is_set():
            return None
        if self.failures:
            raise self.failures.pop()
        return reindex(self.plan, INLINE, INLINE)

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Ranks:
    """Two ranks that are threads."""

    meeting: Meeting = field(default_factory=lambda: Meeting(2))
    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(2, timeout=60))
    given: list[Reply | None] = field(default_factory=list)

    def averaged(self, rank: Rank, components: Components) -> Averaged:
        return Averaged(components, self.meeting, rank.rank)

    def from_first(self, reply: Reply | None) -> Reply | None:
        """Return what the first rank's reply is: the other one never reads any."""
        self.given.append(reply)
        self.barrier.wait()
        found = next(filter(None, self.given), None)
        self.barrier.wait()
        self.given.clear()
        self.barrier.wait()
        return found


@dataclass
class Training:
    """A run over an index: every call of `run` is a process that begins, or goes on from the checkpoint."""

    rig: Rig
    out: Path
    changes: dict[str, object]
    may_end: threading.Event = field(default_factory=threading.Event)
    failures: list[Exception] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    ages: dict[int, int] = field(default_factory=dict)

    @property
    def folder(self) -> RefreshFolder:
        return RefreshFolder(self.out / "refresh")

    @property
    def linked(self) -> Path:
        return self.folder.path / "index"

    def job(self, plan: Reindexing, step: int) -> Job:
        made = replace(plan, weights=self.folder.weights(step), scratch=self.folder.of_step(step))
        self.jobs.append(Job(made, self.may_end, self.failures))
        return self.jobs[-1]

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Answer requests in a thread, as the driver does."""
        snapshot, numbers, ended = read_snapshot(self.rig.index), iter(range(1, 100)), threading.Event()
        link_snapshot(self.rig.index, snapshot, self.linked)
        config = load_config(None, ["embed.block_rows=8"])
        folder = self.folder.path
        plan = Reindexing(self.rig.index, snapshot.name, folder, self.linked, folder, folder, config)
        service = RefreshService(
            self.folder,
            start=partial(self.job, plan),
            prepare=lambda name: read_snapshot(self.linked, name) and next(numbers),
            keep=partial(keep_snapshots, self.linked),
            served=(0, snapshot.name),
        )

        def serve() -> None:
            while not ended.wait(0.005):
                service.turn()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            service.stop()

    def run(
        self, *, save_at: int = 0, killed_at: int = 0, then: Callable[[int, IndexRefresh], None] | None = None
    ) -> tuple[list[float], dict[str, torch.Tensor]]:
        """Return the losses of the steps that were computed, and the weights."""
        with self.serving():
            return self.compute(save_at=save_at, killed_at=killed_at, then=then)

    def compute(
        self,
        *,
        ranks: Ranks | None = None,
        rank: Rank | None = None,
        save_at: int = 0,
        killed_at: int = 0,
        then: Callable[[int, IndexRefresh], None] | None = None,
    ) -> tuple[list[float], dict[str, torch.Tensor]]:
        """Be one of some ranks, or the only one."""
        searched, losses = Searched(IndexReader.open(self.rig.index)), list[float]()
        settings = {"passage_encoder": True, "refresh_steps": 2, "max_steps": 7, **self.changes}
        parallel = partial(ranks.averaged, rank) if ranks and rank else None
        loop = self.rig.loop(searched, rank=rank, parallel=parallel, **settings)

        def switch(reply: Reply) -> None:
            searched.reader = IndexReader.open(self.linked, snapshot=reply.snapshot)

        refresh = IndexRefresh(
            self.folder,
            loop.components,
            TrainConfig.model_validate(settings),
            snapshot=read_snapshot(self.rig.index).name,
            switch=switch,
            rank=rank,
            shared=ranks.from_first if ranks else lambda reply: reply,
        )
        checkpoint = self.out / CHECKPOINT
        if checkpoint.is_dir():
            loop.restore(checkpoint)
        refresh.restore(checkpoint if checkpoint.is_dir() else None)

        def on_step(step: StepMetrics) -> None:
            losses.append(step.loss)
            if step.step < loop.num_steps:
                refresh.after_step(step.step)
            self.ages[step.step] = refresh.age(step.step)
            if then:
                then(step.step, refresh)
            if step.step == save_at:
                checkpoint.mkdir()
                loop.save(checkpoint)
                refresh.save(checkpoint)
            if step.step == killed_at:
                raise KilledError

        with contextlib.suppress(KilledError):
            loop.run(on_step)
        return losses, {name: p.detach().clone() for name, p in loop.components.trainable()}


@pytest.fixture
def training(
    tiny_decoder: Path, tiny_encoder: Path, tiny_encoder_index: Path, tmp_path: Path
) -> Callable[..., Training]:
    def make(name: str = "run", **changes: object) -> Training:
        made = Training(Rig(tiny_decoder, tiny_encoder, tiny_encoder_index), tmp_path / name, changes)
        made.may_end.set()
        return made

    return make


def until(there: Callable[[], object]) -> None:
    deadline = monotonic() + 60
    while not there():
        assert monotonic() < deadline
        sleep(0.005)


def test_a_run_that_waits_comes_out_the_same_also_when_it_is_killed_between_two_indexes(
    training: Callable[..., Training],
) -> None:
    """Bit by bit. The checkpoint is of step 5: the index of step 4 is searched, one of step 6 is made twice."""
    whole, killed = training("whole", refresh_wait=True), training("killed", refresh_wait=True)
    expected, weights = whole.run()
    assert whole.ages == {1: 1, 2: 0, 3: 1, 4: 0, 5: 1, 6: 0, 7: 1}
    losses, _ = killed.run(save_at=5, killed_at=6)
    assert read_state(killed.out / CHECKPOINT) == IndexState(4, names(killed.linked)[-2])
    resumed, found = killed.run()
    assert losses[:5] + resumed == expected
    assert all(torch.equal(found[name], value) for name, value in weights.items())


def test_two_ranks_exchange_the_index_at_the_same_step_and_equal_one_with_the_doubled_batch(
    training: Callable[..., Training],
) -> None:
    one, two = training("one", refresh_wait=True, batch_size=4), training("two", refresh_wait=True)
    expected, weights = one.run()
    ranks = Ranks()
    with two.serving(), ThreadPoolExecutor(2) as threads:
        both = list(threads.map(lambda n: two.compute(ranks=ranks, rank=Rank(n, 2)), range(2)))
    assert two.ages == one.ages and len(two.jobs) == 3
    assert [sum(losses) / 2 for losses in zip(*(losses for losses, _ in both), strict=True)] == pytest.approx(
        expected, rel=1e-3
    )
    for _, found in both:
        for name, value in weights.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=2e-3)


def test_the_index_searched_is_of_the_weights_of_its_step(training: Callable[..., Training]) -> None:
    made, vectors = training(refresh_wait=True, max_steps=3), list[Vectors]()
    rows = np.arange(40)[None]
    passages = IndexReader.open(made.rig.index).result(rows, np.zeros(rows.shape, np.float32)).hits[0]
    texts = [passage_text(hit.passage) for hit in passages]
    made.run(then=lambda step, refresh: vectors.append(refresh._components.encoders["passage_encoder"].encode(texts)))
    found = IndexReader.open(made.linked).result(rows, np.zeros(rows.shape, np.float32), with_vectors=True)
    assert [hit.passage for hit in found.hits[0]] == [hit.passage for hit in passages]
    np.testing.assert_allclose(found.vectors_NKD[0], vectors[1], atol=1e-3)
    assert not np.allclose(vectors[0], vectors[1], atol=1e-3)


def test_training_waits_for_no_index_and_takes_one_up_between_two_steps(training: Callable[..., Training]) -> None:
    """Nothing is made until step 5 is done; the refreshes that were due meanwhile are left out."""
    made = training()
    made.may_end.clear()

    def end_at_five(step: int, refresh: IndexRefresh) -> None:
        if step == 5:
            made.may_end.set()
            until(lambda: refresh._folder.answered(refresh._token))

    made.run(then=end_at_five)
    assert made.ages == {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 4, 7: 5}
    assert len(made.jobs) == 2  # of steps 2 and 6, the second of which nobody waits for


def test_a_run_that_does_not_wait_goes_on_with_the_index_and_the_refresh_of_its_checkpoint(
    training: Callable[..., Training],
) -> None:
    made = training(max_steps=8)

    def ready(step: int, refresh: IndexRefresh) -> None:
        if step in (2, 4):
            until(lambda: refresh._folder.answered(refresh._token) or not made.may_end.is_set())
        if step == 3:
            made.may_end.clear()

    made.run(save_at=5, killed_at=5, then=ready)
    state = read_state(made.out / CHECKPOINT)
    assert state is not None and (state.step, state.pending) == (2, 4)
    assert made.folder.weights(4).is_dir()
    made.ages.clear()

    def end_at_six(step: int, refresh: IndexRefresh) -> None:
        if step == 6:
            made.may_end.set()
            until(lambda: refresh._folder.answered(refresh._token))

    made.run(then=end_at_six)
    assert made.ages == {6: 4, 7: 3, 8: 4}


def test_a_refresh_that_failed_is_said_once_and_tried_again_when_the_next_is_due(
    training: Callable[..., Training], caplog: pytest.LogCaptureFixture
) -> None:
    made = training(refresh_wait=True)
    made.failures = [ArtifactError("no room for it")]
    with caplog.at_level(logging.WARNING, "ragray"):
        made.run()
    assert made.ages == {1: 1, 2: 2, 3: 3, 4: 0, 5: 1, 6: 0, 7: 1}
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "train: no index was made of step 2's weights (no room for it); training goes on with the one before until the next is due"
    ]


def test_an_index_that_a_checkpoint_names_and_that_is_gone_ends_the_training(training: Callable[..., Training]) -> None:
    made = training(refresh_wait=True)
    made.run(save_at=3, killed_at=3)
    for name in names(made.linked)[1:]:
        (made.linked / "snapshots" / f"{name}.json").unlink()
    with pytest.raises(TrainingError, match=r"the index of step 2 cannot be searched: .*has no snapshot.*--restart"):
        made.run()


def test_old_indexes_and_weights_leave_the_disk(training: Callable[..., Training]) -> None:
    """What is kept: the two indexes opened last, those of checkpoints, and the weights that an index may still be made of."""
    made = training(refresh_wait=True, max_steps=11)
    made.run(save_at=3)
    kept = sorted(path.name for path in made.folder.path.glob("step-*"))
    assert kept == ["step-00000002", "step-00000010"]
    of_checkpoint = read_state(made.out / CHECKPOINT)
    assert of_checkpoint is not None and of_checkpoint.snapshot in names(made.linked)
    assert len(names(made.linked)) == 3 == len(list((made.linked / "segments").iterdir()))


def test_weights_that_are_the_same_leave_what_was_made_of_them_and_others_do_not(
    training: Callable[..., Training], tmp_path: Path
) -> None:
    components, folder = training().rig.loop(passage_encoder=True).components, RefreshFolder(tmp_path / "refresh")
    save_and_ask(folder, components.frozen_passage_encoder(), Request("a", 4))
    (folder.of_step(4) / "embedded").touch()
    save_and_ask(folder, components.frozen_passage_encoder(), Request("b", 4))
    assert (folder.of_step(4) / "embedded").is_file()
    assert components.passage_encoder is not None
    with torch.no_grad():
        next(components.passage_encoder.parameters()).fill_(0.5)
    save_and_ask(folder, components.frozen_passage_encoder(), Request("c", 4))
    assert [path.name for path in folder.of_step(4).iterdir()] == ["passage_encoder"]
    assert folder.asked() == Request("c", 4)
    assert [path.name for path in folder.path.iterdir() if path.is_dir()] == ["step-00000004"]


def test_weights_that_cannot_be_written_are_no_reason_to_stop(
    training: Callable[..., Training], tmp_path: Path
) -> None:
    folder = RefreshFolder(tmp_path / "refresh")
    folder.path.mkdir()
    folder.of_step(4).with_name(".step-00000004.new").write_text("in the way")
    save_and_ask(folder, training().rig.loop(passage_encoder=True).components.frozen_passage_encoder(), Request("a", 4))
    asked = folder.asked()
    assert asked is not None and asked.error

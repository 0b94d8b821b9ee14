"""Re-indexing while training, on Ray. In: a run, its pool. Out: the passages embedded again in the background; the run's own index.

A task directs the work at low priority; together with what it starts it takes `train.refresh_cpus` and `train.refresh_gpus`. Nothing of
it outlives the driver.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragray.artifact.files import write_json
from ragray.cluster.executor import RayExecutor
from ragray.cluster.failures import cause
from ragray.cluster.fit import STATE_FOLDER
from ragray.cluster.resources import Want
from ragray.cluster.retrieval.pool import RetrieverPool
from ragray.cluster.yielding import reindex_yielding
from ragray.config import Config, TrainConfig
from ragray.errors import ConfigError, TrainingError
from ragray.execute.inline import InlineExecutor
from ragray.execute.niced import NicedExecutor
from ragray.failures import told
from ragray.index.store.snapshot import SNAPSHOTS, Snapshot, read_snapshot
from ragray.models import weights_fingerprint
from ragray.retrieve.holder import Served
from ragray.run import ENCODER_FOLDER, INDEX_FOLDER, MODEL_FOLDER, PASSAGE_ENCODER_FOLDER
from ragray.stages.reindexing.linked import keep_snapshots, link_snapshot
from ragray.stages.reindexing.reindex import Reindexing, reindex
from ragray.train.refresh.exchange import RefreshFolder, Reply
from ragray.train.refresh.service import RefreshService

if TYPE_CHECKING:
    from ragray.train.loop import TrainLoop
    from ragray.train.objectives.objective import Searcher
    from ragray.train.refresh.worker import IndexRefresh

logger = logging.getLogger("ragray")

REFRESH_FOLDER = "refresh"
OWN_FOLDER = "own"
BUILT_FILE = "built.json"
TURN_S = 0.2
CANCEL_S = 10.0


def require_trainable(config: Config, snapshot: Snapshot) -> None:
    """Raise an error where ``train.passage_encoder`` asks for what a run cannot do.

    Raises:
        ConfigError: the strategy gives no encoder a gradient, or an encoder's learning rate is 0.
        TrainingError: the index's encoder has no weights.
    """
    train, strategy = config.train, config.generate.strategy
    if not train.passage_encoder:
        return
    if train.objective == "rag" and strategy != "marginal":
        raise ConfigError(
            f"train.passage_encoder=true: with generate.strategy={strategy} no encoder is trained; set generate.strategy=marginal"
        )
    if train.encoder_lr == 0:
        raise ConfigError("train.passage_encoder=true has no effect with train.encoder_lr=0; raise the rate")
    if snapshot.encoder_config.model.startswith("hash:"):
        model = snapshot.encoder_config.model
        raise TrainingError(
            f"train.passage_encoder=true: the index's encoder '{model}' has no weights; embed the corpus with another"
        )


def refreshes(config: TrainConfig) -> bool:
    """Return whether a run that searches an index makes new ones."""
    return config.passage_encoder and config.refresh_steps > 0


def refresh_want(config: TrainConfig) -> Want:
    """Return what embedding in the background reserves, of which one worker is enough."""
    workers = max(1, int(config.refresh_gpus or config.refresh_cpus))
    settings = ("train.refresh_cpus", "train.refresh_gpus")
    cpus, gpus = config.refresh_cpus / workers, config.refresh_gpus / workers
    return Want("worker that embeds again", workers, settings, cpus, gpus, together=1)


def refresh_folder(out: Path) -> RefreshFolder:
    """Return the folder of a run's refreshes."""
    return RefreshFolder(out.resolve() / STATE_FOLDER / REFRESH_FOLDER)


def pool_index(index: Path, snapshot: Snapshot, out: Path, config: TrainConfig) -> Path:
    """Return the folder that a run's retriever pool is to serve: where new indexes will come, one that shares the files of ``index``."""
    if not refreshes(config):
        return index
    linked = refresh_folder(out).path / INDEX_FOLDER
    link_snapshot(index, snapshot, linked)
    return linked


@contextlib.contextmanager
def refreshing(index: Path, snapshot: Snapshot, out: Path, pool: RetrieverPool, config: Config) -> Iterator[None]:
    """Answer the requests of the training workers for the length of the block, in a thread."""
    if not refreshes(config.train):
        yield
        return
    folder = refresh_folder(out)
    folder.path.mkdir(parents=True, exist_ok=True)
    plan = _plan(index, snapshot, out, config)
    service = RefreshService(
        folder,
        start=lambda step: RayJob(replace(plan, weights=folder.weights(step), scratch=folder.of_step(step))),
        prepare=lambda name: pool.prepare(name, any_encoder=True).number,
        keep=partial(keep_snapshots, plan.out),
        served=(pool.served.number, snapshot.name),
    )
    ended = threading.Event()
    thread = threading.Thread(target=_serve, args=(service, ended), name="refresh", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(CANCEL_S)  # an actor that opens an index may take longer, and ends with the pool
        service.stop()


def _serve(service: RefreshService, ended: threading.Event) -> None:
    while not ended.wait(TURN_S):
        service.turn()


def _plan(index: Path, snapshot: Snapshot, out: Path, config: Config) -> Reindexing:
    """Return the plan of a refresh, but for the weights."""
    folder = refresh_folder(out).path
    return Reindexing(index.resolve(), snapshot.name, folder, folder / INDEX_FOLDER, folder, folder, config)


class RayJob:
    """An index that is made by a task on the cluster.

    Where one worker is wanted, the task embeds by itself: Ray Data's start takes longer than the embedding of a small corpus. Several
    are actors that the task directs.
    """

    def __init__(self, plan: Reindexing, *, low_priority: bool = True) -> None:
        import ray

        self._plan = plan
        want = refresh_want(plan.config.train)
        share = {"num_cpus": want.cpus, "num_gpus": want.gpus} if want.count == 1 else {"num_cpus": 0}
        # A process whose priority was lowered stays as it is: it must not be given other work.
        task = ray.remote(max_calls=1, max_retries=0, **share)(reindex_yielding)
        self._reference = task.remote([ray.put(plan)], want.count, low_priority)

    def result(self, timeout_s: float | None = 0) -> str | None:
        """See `ragray.train.refresh.service.Job.result`; waits so long, for ever with None."""
        import ray

        if not ray.wait([self._reference], timeout=timeout_s)[0]:
            return None
        try:
            return str(ray.get(self._reference))
        except Exception as err:
            raise told(cause(err), self._plan.scratch) from err

    def cancel(self) -> None:
        """Kill the task, and wait until it has ended."""
        import ray

        ray.cancel(self._reference, force=True)
        ray.wait([self._reference], timeout=CANCEL_S)


def make_index(plan: Reindexing, num_workers: int) -> str:
    """Make an index, unless an earlier attempt has; return the name of its snapshot."""
    built, weights = plan.scratch / BUILT_FILE, weights_fingerprint(plan.weights)
    with contextlib.suppress(FileNotFoundError):
        found = json.loads(built.read_text(encoding="utf-8"))
        if found["weights"] == weights and (plan.out / SNAPSHOTS / f"{found['snapshot']}.json").is_file():
            return str(found["snapshot"])
    inline = InlineExecutor()
    several = NicedExecutor(RayExecutor(wait_s=plan.config.cluster.wait_s))
    name = reindex(plan, inline if num_workers == 1 else several, inline)
    write_json(built, {"snapshot": name, "weights": weights})
    return name


def own_index(index: Path, snapshot: Snapshot, out: Path, config: Config) -> None:
    """Make the index that belongs to a run's trained passage encoder, ``out``/index, with all that the workers have reserved so far."""
    train, models = config.train, out.resolve() / MODEL_FOLDER
    more = {
        "refresh_cpus": train.refresh_cpus + train.num_workers * train.cpus_per_worker,
        "refresh_gpus": max(train.refresh_gpus, train.num_workers * train.gpus_per_worker),
    }
    plan = replace(
        _plan(index, snapshot, out, config.model_copy(update={"train": train.model_copy(update=more)})),
        weights=models / PASSAGE_ENCODER_FOLDER,
        out=out.resolve() / INDEX_FOLDER,
        scratch=refresh_folder(out).path / OWN_FOLDER,
        lexical=True,
        question_model=str(models / ENCODER_FOLDER) if snapshot.encoder_config.question_model else "",
    )
    if refresh_want(plan.config.train).count == 1:
        RayJob(plan, low_priority=False).result(None)
    else:
        executor = RayExecutor(wait_s=config.cluster.wait_s)
        reindex(plan, executor, executor)
    logger.info("train: the passage encoder was trained too: this run answers from %s", out / INDEX_FOLDER)


def index_refresh(
    out: Path, searcher: Searcher | None, loop: TrainLoop[Any], config: TrainConfig
) -> IndexRefresh | None:
    """Return what exchanges the index of a training worker while the passage encoder trains, None where the index stays."""
    from ragray.train.refresh.worker import IndexRefresh

    if not (isinstance(searcher, RetrieverPool) and refreshes(config)):
        return None
    pool = searcher

    def switch(reply: Reply) -> None:
        pool.learn([Served(reply.number, read_snapshot(pool.index, reply.snapshot))])

    return IndexRefresh(
        refresh_folder(out),
        loop.components,
        config,
        snapshot=pool.snapshot.name,
        switch=switch,
        rank=loop.rank,
        shared=_from_first_rank if loop.rank.world_size > 1 else lambda reply: reply,
    )


def _from_first_rank(reply: Reply | None) -> Reply | None:
    """Return what the first rank gives; a collective, which waits until every rank has called it."""
    import torch

    values = [reply]
    torch.distributed.broadcast_object_list(values)
    return values[0]

"""Runs workers on Ray Train. In: what each computes, its checkpoints below a run. Out: what the first returns; deaths are tried again."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragray.cluster.failures import cause, is_death, verdict
from ragray.config import Config
from ragray.errors import RagrayError, TrainingError, first_line
from ragray.failures import told
from ragray.train.schedule import Progress

if TYPE_CHECKING:
    from ray.train import Result, UserCallback
    from ray.train.torch import TorchTrainer

STATE_FOLDER = ".train"
TEMPORARY = "saving-"
SNAPSHOT_FILE = "checkpoint_manager_snapshot.json"
"""Where Ray Train writes which checkpoints there are; not atomically, so that a full disk may leave half of it."""

START_TIMEOUT_S = 60.0
"""How long Ray Train waits for room for the workers before it counts a failed start."""


def fit(worker: Callable[[dict[str, Any]], Any], setup: object, out: Path, config: Config) -> Any:
    """Run ``worker({"setup": setup})`` in every worker to the end; return what the first one returns.

    Workers that die are started again from the last checkpoint, up to ``train.max_failures`` times.

    Raises:
        RagrayError: what a worker raised, at once and as it was raised there.
        TrainingError: workers died more often than allowed.
    """
    deaths = 0
    while True:
        try:
            with _nothing_left_reserved():
                return _in_a_thread(lambda: _run(worker, setup, out, config)).return_value
        except Exception as err:
            # Ray Train counts the deaths of workers that have started, not of those that are starting.
            if not is_death(_failures(err)[-1]) or deaths == config.train.max_failures:
                raise _told(err, out, config.train.max_failures) from err
            deaths += 1


def _run(worker: Callable[[dict[str, Any]], Any], setup: object, out: Path, config: Config) -> Result:
    import ray.train

    settings = config.train
    starts = math.ceil(config.cluster.wait_s / START_TIMEOUT_S)
    trainer = _trainer_class()(
        worker,
        train_loop_config={"setup": setup},
        scaling_config=ray.train.ScalingConfig(
            num_workers=settings.num_workers,
            use_gpu=settings.gpus_per_worker > 0,
            resources_per_worker={"CPU": settings.cpus_per_worker, **_gpus(settings.gpus_per_worker)},
        ),
        run_config=ray.train.RunConfig(
            name=STATE_FOLDER,
            storage_path=str(out.resolve()),
            failure_config=ray.train.FailureConfig(
                max_failures=settings.max_failures, controller_failure_limit=max(settings.max_failures, starts)
            ),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=settings.keep_checkpoints),
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
            callbacks=[_stop_at_errors(out)],
        ),
    )
    return trainer.fit()


def _trainer_class() -> type[TorchTrainer]:
    """Return Ray's trainer without its cleaner of placement groups and its manager of datasets.

    The cleaner asks the dashboard whether the controller lives. Where there is no dashboard, as in a local cluster, the end of
    every training waits 12 s for its answer. `_nothing_left_reserved` does its work here, and the end of the driver elsewhere.
    The manager is an actor that takes seconds to import Ray Data; our workers read no dataset of Ray's.
    """
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.callbacks import placement_group_callback
    from ray.train.v2._internal.callbacks.datasets import DatasetsCallback

    unneeded = (placement_group_callback.PlacementGroupCleanerCallback, DatasetsCallback)

    class Trainer(TorchTrainer):  # type: ignore[misc] # Ray exports it untyped
        def _create_default_callbacks(self) -> list[Any]:
            return [made for made in super()._create_default_callbacks() if not isinstance(made, unneeded)]

    return Trainer


@contextlib.contextmanager
def _nothing_left_reserved() -> Iterator[None]:
    """Remove the placement groups that were made in the block and are still there at its end.

    Ray Train forgets the group of workers one of which died while they were starting, and Ray keeps it as long as the driver
    lives: its CPUs would be missing to the next attempt and to all that this process does afterwards.
    """
    from ray import PlacementGroupID
    from ray.util import placement_group, remove_placement_group

    before = _reserved()
    try:
        yield
    finally:
        for name in _reserved() - before:
            remove_placement_group(placement_group.PlacementGroup(PlacementGroupID.from_hex(name)))


def _reserved() -> set[str]:
    """Return the hexadecimal ids of the placement groups of this driver, which end in the id of its job."""
    import ray
    from ray.util import placement_group_table

    job = ray.get_runtime_context().get_job_id()
    return {
        name for name, group in placement_group_table().items() if name.endswith(job) and group["state"] != "REMOVED"
    }


def _gpus(number: float) -> dict[str, float]:
    return {"GPU": number} if number else {}


def _stop_at_errors(out: Path) -> UserCallback:
    """Return what ends the training, in the controller, at an error that is no death; Ray Train itself would try any again."""
    from ray.train import UserCallback

    class StopAtErrors(UserCallback):  # type: ignore[misc] # Ray exports it untyped
        def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
            if error := verdict([worker_exceptions[rank] for rank in sorted(worker_exceptions)], out):
                raise error

    return StopAtErrors()


def _in_a_thread(fit: Callable[[], Result]) -> Result:
    """Call Ray Train's ``fit`` beside the main thread, where it would replace the handler of Ctrl-C by one that waits."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(fit())
        except BaseException as err:
            errors.append(err)

    thread = threading.Thread(target=run, name="fit", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _failures(error: BaseException) -> list[BaseException]:
    """Return what brought a training to its end: what Ray Train gives as the workers' failures, its own, or the error itself."""
    found = [*getattr(error, "worker_failures", {}).values(), getattr(error, "controller_failure", None)]
    return [cause(failure) for failure in found if failure is not None] or [cause(error)]


def _told(error: Exception, out: Path, max_failures: int) -> RagrayError:
    """Return the error that says in one line why training ended."""
    failures = _failures(error)
    for failure in failures:
        if isinstance(failure, RagrayError):
            return failure
    then = f"run the same command: it goes on from step {saved_progress(out).step}"
    if all(map(is_death, failures)):
        line = first_line(getattr(failures[0], "health_check_failure", failures[0]))
        return TrainingError(
            f"{out}: workers died more than train.max_failures={max_failures} times, at last: {line}; look for a crash or for too "
            f"little memory in Ray's logs, then {then}"
        )
    return told(failures[-1], out, then=then, kind=TrainingError)


@contextlib.contextmanager
def temporary_checkpoint(out: Path) -> Iterator[Path]:
    """Yield a folder beside the checkpoints: where they have no room the temporary one has none either, and the path is the run's."""
    (out / STATE_FOLDER).mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out / STATE_FOLDER, prefix=TEMPORARY, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def saved_progress(out: Path) -> Progress:
    """Return the progress of the checkpoint that a run would go on from, that of a new run without one."""
    state = out / STATE_FOLDER
    found, known = _whole(state), _recorded(state / SNAPSHOT_FILE)
    kept = [progress for name, progress in found.items() if known is None or name in known]
    return max([Progress(), *kept], key=lambda progress: progress.step)


def prepare_state(out: Path) -> str:
    """Remove what killed workers or a full disk left half written.

    Returns the newest whole checkpoint where Ray Train's own record of them is lost, else "".
    """
    state = out / STATE_FOLDER
    known, kept = _recorded(state / SNAPSHOT_FILE), _whole(state)
    if known is not None and not known <= kept.keys():
        known = None  # it names what is not there, with which Ray Train does not start
    if known is None:
        (state / SNAPSHOT_FILE).unlink(missing_ok=True)
    newest = max(kept, key=lambda name: kept[name].step, default="")
    wanted = known or ({newest} - {""})
    for path in [*state.glob(f"{TEMPORARY}*"), *state.glob("checkpoint_*")]:
        if path.is_dir() and path.name not in wanted:
            shutil.rmtree(path, ignore_errors=True)
    return "" if known or not newest else str((state / newest).resolve())


def _recorded(snapshot: Path) -> set[str] | None:
    """Return the names of the checkpoints in Ray Train's record, None where there is none or it cannot be read."""
    try:
        found = json.loads(snapshot.read_text(encoding="utf-8"))
        return {str(result["checkpoint_dir_name"]) for result in found["checkpoint_results"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _whole(state: Path) -> dict[str, Progress]:
    """Return the progress of every whole checkpoint in a folder, by name."""
    from ragray.train.checkpoint import whole_progress

    found = {path.name: whole_progress(path) for path in state.glob("checkpoint_*") if path.is_dir()}
    return {name: progress for name, progress in found.items() if progress is not None}

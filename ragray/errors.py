"""Every error that ragray raises on purpose, and how one travels. In: what went wrong. Out: one line: what, where, what to do next.

::

    RagrayError
    ├── ConfigError            a key or value of the configuration
    │   └── IndexBudgetError       no index keeps the memory, the latency and the recall asked for
    ├── InputError             a source file, a line of it, a field of it
    ├── ArtifactError          a stage's output folder
    │   ├── NotAnArtifactError     no manifest: nothing there, or never finished
    │   ├── CorruptArtifactError   the manifest promises something else than the folder holds
    │   ├── ArtifactBusyError      another process is writing it
    │   └── SnapshotConflictError  another writer moved the index on in the meantime
    ├── EncoderMismatchError   vectors of two different encoders would be mixed
    ├── ModelNotFoundError     a model name that resolves to nothing
    ├── ModelError             a model, or its tokenizer, that cannot be used: a template that fails, weights that are no numbers
    ├── MissingPackageError    an optional package is not installed
    ├── TrainingError          a training run that cannot start or go on
    ├── ServingError           a service that cannot start
    ├── OverloadedError        a service that has more to do than it may queue
    └── ClusterError           a Ray cluster that cannot be joined, or has too little of what a stage needs

Each takes exactly one message, so that it survives a trip through Ray. The command line prints the message and exits with
``exit_code``.
"""

from __future__ import annotations

from importlib import import_module


class RagrayError(Exception):
    """Base of all; catch it to catch everything that ragray raises on purpose."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)


class ConfigError(RagrayError):
    """A configuration key is unknown, or its value is not allowed."""

    exit_code = 2


class IndexBudgetError(ConfigError):
    """No index keeps the memory, the latency and the recall asked for; the message says which to raise, and to what."""


class InputError(RagrayError):
    """Input data cannot be used; the message names file, line and field."""

    exit_code = 3


class ArtifactError(RagrayError):
    """A stage's output folder cannot be used."""

    exit_code = 4


class NotAnArtifactError(ArtifactError):
    """The folder has no manifest (or one of another kind): the stage that writes it never finished here."""


class CorruptArtifactError(ArtifactError):
    """The folder does not hold what its manifest promises."""


class ArtifactBusyError(ArtifactError):
    """Another process is writing this folder at this moment."""


class SnapshotConflictError(ArtifactError):
    """The index's current snapshot is no longer the one that this change was made for; nothing was published."""


class EncoderMismatchError(RagrayError):
    """Two sets of vectors come from different encoders and cannot be compared."""

    exit_code = 5


class ModelNotFoundError(RagrayError):
    """A model name is no local folder, no packaged weights and cannot be had from the hub."""

    exit_code = 6


class ModelError(RagrayError):
    """A model or its tokenizer cannot be used: its chat template fails, or its weights or outputs are not finite."""

    exit_code = 6


class MissingPackageError(RagrayError):
    """An optional package is needed; the message holds the pip line."""

    exit_code = 6


class TrainingError(RagrayError):
    """A training run cannot start or cannot go on."""

    exit_code = 7


class ServingError(RagrayError):
    """A service cannot start, for instance because its port is taken."""

    exit_code = 8


class OverloadedError(RagrayError):
    """The service holds as many waiting requests as it may; try again later."""

    exit_code = 9


class ClusterError(RagrayError):
    """A Ray cluster cannot be joined, or it has fewer CPUs or GPUs than a stage wants."""

    exit_code = 10


def pack(error: RagrayError | None) -> tuple[str, str]:
    """Return kind and message, to be sent by a process whose traces nobody is to read; both empty without an error."""
    return (f"{type(error).__module__}:{type(error).__qualname__}", str(error)) if error else ("", "")


def unpack(kind: str, message: str) -> RagrayError:
    """Return the error that `pack` was given; a `RagrayError` where its kind cannot be imported here."""
    module, _, name = kind.partition(":")
    try:
        found = getattr(import_module(module), name, RagrayError)
    except (ImportError, ValueError):
        found = RagrayError
    return found(message) if isinstance(found, type) and issubclass(found, RagrayError) else RagrayError(message)


def first_line(error: BaseException) -> str:
    """Return the first line of what foreign code says of an error, else the error's name."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__

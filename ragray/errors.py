"""The errors that ragray raises on purpose. In: what went wrong. Out: one line: what, where, what to do next.

::

    RagrayError
    ├── ConfigError            a key or value of the configuration
    │   └── IndexBudgetError       no index meets the memory, latency and recall that were asked for
    ├── InputError             a source file, a line of it, a field of it
    ├── ArtifactError          a stage's output folder
    │   ├── NotAnArtifactError     no manifest: nothing there, or never finished
    │   ├── CorruptArtifactError   the folder differs from its manifest
    │   ├── ArtifactBusyError      another process is writing it
    │   └── SnapshotConflictError  another process published a snapshot meanwhile
    ├── EncoderMismatchError   vectors of two different encoders would be mixed
    ├── ModelNotFoundError     a model name that resolves to nothing
    ├── ModelError             a model or tokenizer that cannot be used: a template that fails, weights that are not finite
    ├── MissingPackageError    an optional package is not installed
    ├── TrainingError          a training run that cannot start or go on
    ├── ServingError           a service that cannot start
    ├── OverloadedError        a service whose queue is full
    └── ClusterError           a Ray cluster that cannot be joined, or lacks resources that a stage needs

Each takes exactly one message, so that Ray can pickle it. The command line prints the message and exits with ``exit_code``.
"""

from __future__ import annotations

from importlib import import_module


class RagrayError(Exception):
    """Base class of every error that ragray raises on purpose."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)


class ConfigError(RagrayError):
    """A configuration key is unknown, or its value is not allowed."""

    exit_code = 2


class IndexBudgetError(ConfigError):
    """No index meets the memory, latency and recall that were asked for; the message says which to change, and to what."""


class InputError(RagrayError):
    """Input data cannot be used; the message names file, line and field."""

    exit_code = 3


class ArtifactError(RagrayError):
    """A stage's output folder cannot be used."""

    exit_code = 4


class NotAnArtifactError(ArtifactError):
    """The folder has no manifest, or one of another kind: the stage that writes it never finished here."""


class CorruptArtifactError(ArtifactError):
    """The files of the folder differ from its manifest."""


class ArtifactBusyError(ArtifactError):
    """Another process is writing to this folder."""


class SnapshotConflictError(ArtifactError):
    """The index has another current snapshot than the one that this change started from; nothing was published."""


class EncoderMismatchError(RagrayError):
    """Two sets of vectors come from different encoders and cannot be compared."""

    exit_code = 5


class ModelNotFoundError(RagrayError):
    """A model name is neither a local folder nor packaged weights, and the hub has no such model or cannot be reached."""

    exit_code = 6


class ModelError(RagrayError):
    """A model or its tokenizer cannot be used: its chat template fails, or its weights or outputs are not finite."""

    exit_code = 6


class MissingPackageError(RagrayError):
    """An optional package is needed; the message holds the command that installs it."""

    exit_code = 6


class TrainingError(RagrayError):
    """A training run cannot start or cannot go on."""

    exit_code = 7


class ServingError(RagrayError):
    """A service cannot start, for instance because its port is taken."""

    exit_code = 8


class OverloadedError(RagrayError):
    """As many requests are waiting as the service admits; try again after ``retry_after_s`` seconds."""

    exit_code = 9

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ClusterError(RagrayError):
    """A Ray cluster cannot be joined, or it has fewer CPUs or GPUs than a stage wants."""

    exit_code = 10


def pack(error: RagrayError | None) -> tuple[str, str]:
    """Return kind and message of an error, to send it to another process as text; both are empty without an error."""
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
    """Return the first line of a library's error message, or the error's type where it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__

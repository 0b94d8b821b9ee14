"""The weights that train, on disk and in place. In: the components of a run. Out: a safetensors file; the weights of such a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ragray.artifact.files import atomic_path
from ragray.errors import CorruptArtifactError, first_line
from ragray.train.components import Components


def save_weights(path: Path, components: Components) -> None:
    """Write the weights that train."""
    tensors = {name: parameter.detach().contiguous() for name, parameter in components.trainable()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary)


@torch.no_grad()
def load_weights(path: Path, components: Components) -> None:
    """Put weights that `save_weights` wrote into components of the same settings.

    Raises:
        CorruptArtifactError: the file is missing or damaged, or holds other weights.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as err:
        raise CorruptArtifactError(f"{path}: cannot be read ({first_line(err)}); begin again with --restart") from err
    for name, parameter in components.trainable():
        if name not in tensors or tensors[name].shape != parameter.shape:
            raise CorruptArtifactError(f"{path}: has no weights for '{name}'; begin again with --restart")
        parameter.copy_(tensors[name])


@contextmanager
def with_weights(path: Path, components: Components) -> Iterator[None]:
    """Compute a block with the weights of a file, without gradients and dropout; afterwards everything is as it was."""
    before = {name: parameter.detach().to("cpu", copy=True) for name, parameter in components.trainable()}
    training = components.training
    with torch.no_grad():
        try:
            load_weights(path, components.eval())
            yield
        finally:
            for name, parameter in components.trainable():
                parameter.copy_(before[name])
            components.train(training)

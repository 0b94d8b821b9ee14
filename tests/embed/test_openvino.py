"""Whatever computes the vectors, and in whatever precision: they are those of torch in float32 and carry the same fingerprint."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ragray.config import EmbedConfig
from ragray.embed.encoder import Encoder
from ragray.embed.load import load_passage_encoder
from ragray.errors import MissingPackageError
from tests.helpers import sentence

TEXTS = [" ".join(sentence(n) for n in range(length)) for length in random.Random(0).choices(range(1, 9), k=24)] + [
    "",
    "A",
]


@pytest.fixture(scope="module")
def exact(tiny_encoder: Path) -> Encoder:
    return load_passage_encoder(EmbedConfig(model=str(tiny_encoder), dtype="float32"), device="cpu")


def difference(vectors: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest cosine difference of two rows."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected, axis=1)
    return float((1 - (vectors * expected).sum(axis=1) / lengths).max())


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAGRAY_CACHE", str(folder))
        yield folder


def test_openvino_gives_the_vectors_of_torch_for_any_length_and_batch(tiny_encoder: Path, cache: Path) -> None:
    settings = {"model": str(tiny_encoder), "batch_tokens": 128}
    torch_encoder = load_passage_encoder(EmbedConfig.model_validate(settings), device="cpu")
    encoder = load_passage_encoder(EmbedConfig.model_validate(settings | {"engine": "openvino"}), threads=1)
    np.testing.assert_allclose(encoder.encode(TEXTS), torch_encoder.encode(TEXTS), atol=1e-5)
    assert encoder.fingerprint == torch_encoder.fingerprint
    assert encoder.encode([]).shape == (0, 16)


def test_a_model_is_converted_once(tiny_encoder: Path, cache: Path) -> None:
    config = EmbedConfig(model=str(tiny_encoder), engine="openvino")
    first = load_passage_encoder(config).encode(TEXTS)
    (path,) = cache.rglob("model.xml")
    written = path.stat().st_mtime_ns
    np.testing.assert_array_equal(load_passage_encoder(config).encode(TEXTS), first)
    assert path.stat().st_mtime_ns == written
    assert not list(cache.rglob("*.tmp"))


def test_openvino_that_is_not_installed_is_named_with_the_line_that_installs_it(
    tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingPackageError, match="run: pip install openvino"):
        load_passage_encoder(EmbedConfig(model=str(tiny_encoder), engine="openvino"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_reduced_precision_stays_near_float32_and_keeps_the_fingerprint(
    tiny_encoder: Path, exact: Encoder, dtype: str
) -> None:
    reduced = load_passage_encoder(
        EmbedConfig.model_validate({"model": str(tiny_encoder), "dtype": dtype}), device="cpu"
    )
    vectors = reduced.encode(TEXTS)
    assert 0 < difference(vectors, exact.encode(TEXTS)) <= 1e-3
    assert vectors.dtype == np.float32
    assert reduced.fingerprint == exact.fingerprint


def test_auto_is_float32_on_a_cpu(tiny_encoder: Path, exact: Encoder) -> None:
    auto = load_passage_encoder(EmbedConfig(model=str(tiny_encoder)), device="cpu")
    np.testing.assert_array_equal(auto.encode(TEXTS), exact.encode(TEXTS))

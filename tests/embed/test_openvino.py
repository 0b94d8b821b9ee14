"""Whatever computes the vectors, and in whatever precision: they are those of torch in float32 and carry the same fingerprint."""

import importlib.util
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from ragray.config import EmbedConfig, EncoderConfig
from ragray.embed.encoder import Encoder, encoder_fingerprint
from ragray.embed.load import Engine, load_passage_encoder, load_question_encoder
from ragray.embed.openvino import OpenVinoEncoder
from ragray.embed.saving import save_encoder
from ragray.embed.transformer import TransformerEncoder
from ragray.errors import MissingPackageError, ModelError
from tests.helpers import sentence

TEXTS = [" ".join(sentence(n) for n in range(length)) for length in random.Random(0).choices(range(1, 9), k=24)] + [
    "",
    "A",
]


@pytest.fixture(scope="module")
def exact(tiny_encoder: Path) -> Encoder:
    return load_passage_encoder(EmbedConfig(model=str(tiny_encoder), dtype="float32"), device="cpu")


def load_encoder_on(engine: Engine, config: EncoderConfig) -> Encoder:
    return load_question_encoder(config, device="cpu", engine=engine)


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


def test_questions_are_encoded_on_openvino_by_itself_on_a_cpu_where_it_is_installed(
    tiny_encoder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EncoderConfig(model=str(tiny_encoder), question_prefix="query: ")
    plain, auto = load_question_encoder(config), load_question_encoder(config, engine="auto")
    assert (type(plain), type(auto)) == (TransformerEncoder, OpenVinoEncoder)
    assert difference(auto.encode_questions(TEXTS), plain.encode_questions(TEXTS)) < 1e-5
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert isinstance(load_question_encoder(config, engine="auto"), TransformerEncoder)


def test_a_trained_question_encoder_is_converted_by_its_own_weights(
    tiny_encoder: Path, cache: Path, tmp_path: Path
) -> None:
    passages = EncoderConfig(model=str(tiny_encoder))
    fingerprint = encoder_fingerprint(passages)
    trained = TransformerEncoder.load(passages, device="cpu")
    with torch.no_grad():
        for weight in trained.module.parameters():
            weight.mul_(1.1)
    save_encoder(trained, tmp_path)
    how = {"weights": tmp_path, "fingerprint": fingerprint}
    before, torchs, found = (
        load_question_encoder(passages, device="cpu", engine=engine, **given).encode_questions(TEXTS)  # type: ignore[arg-type]
        for engine, given in (("openvino", {}), ("torch", how), ("openvino", how))
    )
    assert difference(found, torchs) < 1e-5 < 1e-3 < difference(found, before)
    assert load_question_encoder(passages, engine="openvino", **how).fingerprint == fingerprint  # type: ignore[arg-type]


def test_vectors_of_dpr_are_those_of_torch(tiny_dpr: Path, cache: Path) -> None:
    config = EncoderConfig(model=str(tiny_dpr), normalize=False)
    plain, found = (load_encoder_on(engine, config).encode_questions(TEXTS) for engine in ("torch", "openvino"))
    np.testing.assert_allclose(found, plain, atol=1e-5)


def test_a_model_that_openvino_computes_otherwise_is_refused_and_left_to_torch(
    tiny_encoder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAGRAY_CACHE", str(tmp_path))
    monkeypatch.setattr("ragray.embed.openvino.LEAST_COSINE", 2.0)
    config = EncoderConfig(model=str(tiny_encoder))
    with pytest.raises(ModelError, match=r"its vectors have a cosine of 1\.0.* with those of torch\); use torch"):
        load_encoder_on("openvino", config)
    assert isinstance(load_encoder_on("auto", config), TransformerEncoder)
    assert "questions are encoded by torch: " in caplog.text
    assert not list(tmp_path.rglob("model.xml"))


def test_several_threads_may_encode_at_once(tiny_encoder: Path, cache: Path) -> None:
    encoder = load_encoder_on("openvino", EncoderConfig(model=str(tiny_encoder)))
    alone = [encoder.encode_questions([text]) for text in TEXTS]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: encoder.encode_questions([text]), TEXTS))
    np.testing.assert_array_equal(found, alone)


def test_openvino_that_is_not_installed_is_named_with_the_line_that_installs_it(
    tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingPackageError, match="run: pip install openvino"):
        load_passage_encoder(EmbedConfig(model=str(tiny_encoder), engine="openvino"))
    with pytest.raises(MissingPackageError, match=r"serve\.question_engine=openvino: openvino cannot be imported"):
        load_encoder_on("openvino", EncoderConfig(model=str(tiny_encoder)))


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

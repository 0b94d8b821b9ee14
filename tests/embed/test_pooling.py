"""The pooling is read from what sentence-transformers wrote, in its old and its new form; what ragray lacks is refused by name."""

import json
from pathlib import Path

import pytest

from ragray.config import EncoderConfig
from ragray.embed.encoder import encoder_fingerprint
from ragray.embed.pooling import model_pooling, require_known_modules
from ragray.errors import ConfigError
from ragray.models import resolve_model


def folder_with(tmp_path: Path, settings: object) -> Path:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    return tmp_path


@pytest.mark.parametrize(
    ("settings", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "cls", "embedding_dimension": 384}, "cls"),
        ({"pooling_mode": ["mean"]}, "mean"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True}, "lasttoken"),
        ({"pooling_mode": "lasttoken", "include_prompt": True}, "lasttoken"),
    ],
)
def test_the_pooling_is_the_one_that_is_switched_on(tmp_path: Path, settings: object, pooling: str) -> None:
    assert model_pooling(folder_with(tmp_path, settings)) == pooling


def test_without_a_pooling_file_it_is_the_mean(tmp_path: Path) -> None:
    assert model_pooling(tmp_path) == "mean"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"pooling_mode_max_tokens": True}, "max_tokens"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "cls_token and mean_tokens"),
        ({"pooling_mode": "weightedmean"}, "weightedmean"),
        ({"pooling_mode": ["mean", "max"]}, "mean and max"),
        ({"pooling_mode_mean_tokens": False}, "nothing"),
    ],
)
def test_another_pooling_is_refused_by_name(tmp_path: Path, settings: object, named: str) -> None:
    with pytest.raises(ConfigError, match=f"the model pools by {named}, ragray by cls, mean or lasttoken"):
        model_pooling(folder_with(tmp_path, settings))


@pytest.mark.parametrize("content", ["[]", "{", "null"])
def test_a_damaged_pooling_file_is_refused(tmp_path: Path, content: str) -> None:
    path = folder_with(tmp_path, {}) / "1_Pooling" / "config.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"1_Pooling/config\.json"):
        model_pooling(tmp_path)


@pytest.mark.parametrize(
    "module", ["sentence_transformers.models.Dense", "sentence_transformers.base.modules.dense.Dense", "my.own.Head"]
)
def test_a_module_that_ragray_does_not_compute_is_refused_by_name(tmp_path: Path, module: str) -> None:
    kinds = ["sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling", module]
    (tmp_path / "modules.json").write_text(json.dumps([{"type": kind} for kind in kinds]))
    with pytest.raises(ConfigError, match=rf"modules\.json: the model has a module {module}"):
        require_known_modules(tmp_path)


def test_a_model_with_such_a_module_is_refused_before_it_is_loaded(tmp_path: Path, tiny_encoder: Path) -> None:
    (tmp_path / "config.json").write_text((tiny_encoder / "config.json").read_text())
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Dense"}]))
    with pytest.raises(ConfigError, match=r"a module sentence_transformers\.models\.Dense"):
        encoder_fingerprint(EncoderConfig(model=str(tmp_path)))


def test_the_packaged_model_is_pooled_by_its_mean() -> None:
    folder = resolve_model("all-minilm-l6-v2")
    require_known_modules(folder)
    assert model_pooling(folder) == "mean"

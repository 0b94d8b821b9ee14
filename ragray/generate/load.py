"""Opens a generator. In: the configuration and perhaps a run. Out: the `Generator` that they name."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path

from ragray.config import GenerateConfig
from ragray.convert.to_gguf import why_not_gguf
from ragray.errors import ConfigError
from ragray.generate.engines.apart import ApartGenerator
from ragray.generate.engines.fake import FirstSentenceGenerator
from ragray.generate.generator import Generator
from ragray.generate.template import PromptTemplate, make_template
from ragray.models import load_model_config, load_tokenizer, resolve_model
from ragray.run import Run

FAKE = "first-sentence"
"""Model name of the fake generator, which needs no weights."""


def load_generator(
    config: GenerateConfig, run: Path | None = None, *, device: str = "auto", threads: int = 0
) -> Generator:
    """Load the fine-tuned generator of a run, else the configured model; OpenVINO takes so many threads (0: all).

    OpenVINO runs in a process of its own, which ends when the generator is dropped.

    Raises:
        ModelNotFoundError, ModelError, ConfigError: the model cannot be loaded, or its prompts cannot be made.
        ArtifactError: the run cannot be opened.
    """
    if run is None and config.model == FAKE:
        return FirstSentenceGenerator(numbered=config.strategy == "together")
    settings, weights = effective(config, run)
    if engine_of(settings, weights, device) == "openvino":
        from ragray.generate.engines.openvino import SETTING, OpenVinoGenerator

        load = partial(OpenVinoGenerator.load, settings, weights=weights, threads=threads)
        return ApartGenerator(load, _template(settings, weights).check, name=SETTING)
    from ragray.generate.engines.transformer import TransformerGenerator

    return TransformerGenerator.load(settings, weights=weights, device=device)


def load_template(config: GenerateConfig, run: Path | None = None) -> PromptTemplate | None:
    """Load the prompt template of the generator that `load_generator` loads, without its weights; None for the fake generator.

    Raises as `load_generator` does.
    """
    if run is None and config.model == FAKE:
        return None
    return _template(*effective(config, run))


def _template(settings: GenerateConfig, weights: Path | None) -> PromptTemplate:
    folder = weights or resolve_model(settings.model)
    return make_template(load_tokenizer(folder), load_model_config(folder), settings)


def effective(config: GenerateConfig, run: Path | None) -> tuple[GenerateConfig, Path | None]:
    """Return the settings that are in force, and the weights of the run, if there is one.

    A run brings its own settings, as `Run.generate_settings` says. Raises `ConfigError` where engine and strategy do not fit.
    """
    opened = Run.open(run) if run else None
    settings = opened.generate_settings(config) if opened else config
    if settings.engine == "openvino" and settings.strategy != "together":
        raise ConfigError(
            f"generate.engine=openvino gives no probabilities, which generate.strategy={settings.strategy} needs; "
            "set generate.strategy=together, or generate.engine=torch"
        )
    return settings, opened.generator if opened else None


def engine_of(config: GenerateConfig, weights: Path | None, device: str) -> str:
    """Return what runs the model: what ``generate.engine`` names; with auto, OpenVINO where it can, else torch."""
    if config.engine != "auto":
        return config.engine
    if config.strategy != "together" or importlib.util.find_spec("openvino_genai") is None:
        return "torch"
    from ragray.device import pick_device

    if pick_device(device).type != "cpu":
        return "torch"
    return "torch" if why_not_gguf(load_model_config(weights or resolve_model(config.model))) else "openvino"

"""Opens a generator. In: the configuration and perhaps a run. Out: the `Generator` that they name."""

from __future__ import annotations

from pathlib import Path

from ragray.config import GenerateConfig
from ragray.generate.engines.fake import FirstSentenceGenerator
from ragray.generate.generator import Generator
from ragray.generate.template import PromptTemplate, make_template
from ragray.models import load_model_config, load_tokenizer, resolve_model
from ragray.run import Run

FAKE = "first-sentence"
"""Model name of the fake generator, which needs no weights."""


def load_generator(config: GenerateConfig, run: Path | None = None, *, device: str = "auto") -> Generator:
    """Load the fine-tuned generator of a run, else the configured model.

    Raises:
        ModelNotFoundError, ModelError, ConfigError: the model cannot be loaded, or its prompts cannot be made.
        ArtifactError: the run cannot be opened.
    """
    if run is None and config.model == FAKE:
        return FirstSentenceGenerator(numbered=config.strategy == "together")
    from ragray.generate.engines.transformer import TransformerGenerator

    settings, weights = effective(config, run)
    return TransformerGenerator.load(settings, weights=weights, device=device)


def load_template(config: GenerateConfig, run: Path | None = None) -> PromptTemplate | None:
    """Load the prompt template of the generator that `load_generator` loads, without its weights; None for the fake generator.

    Raises as `load_generator` does.
    """
    if run is None and config.model == FAKE:
        return None
    settings, weights = effective(config, run)
    folder = weights or resolve_model(settings.model)
    return make_template(load_tokenizer(folder), load_model_config(folder), settings)


def effective(config: GenerateConfig, run: Path | None) -> tuple[GenerateConfig, Path | None]:
    """Return the settings that are in force, and the weights of the run, if there is one.

    A run brings its own settings, as `Run.generate_settings` says.
    """
    if run is None:
        return config, None
    opened = Run.open(run)
    return opened.generate_settings(config), opened.generator

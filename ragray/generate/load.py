"""Opens a generator. In: the configuration and perhaps a run. Out: whichever `Generator` they name."""

from __future__ import annotations

from pathlib import Path

from ragray.config import GenerateConfig
from ragray.generate.generator import FirstSentenceGenerator, Generator
from ragray.run import Run

FAKE = "first-sentence"
"""Model name of the fake generator, which needs no weights."""


def load_generator(config: GenerateConfig, run: Path | None = None, *, device: str = "auto") -> Generator:
    """Load the fine-tuned generator of a run, else the configured model.

    A run brings its own prompt, marginalisation and temperature; only lengths and batch size are taken from ``config``.
    """
    if run is None and config.model == FAKE:
        return FirstSentenceGenerator()
    from ragray.generate.transformer import TransformerGenerator

    if run is None:
        return TransformerGenerator.load(config, device=device)
    opened = Run.open(run)
    settings = opened.facts.generate.model_copy(
        update={"max_new_tokens": config.max_new_tokens, "batch_size": config.batch_size}
    )
    return TransformerGenerator.load(settings, weights=opened.generator, device=device)

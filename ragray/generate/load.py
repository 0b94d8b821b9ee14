"""Opens a generator. In: the configuration and perhaps a run. Out: the `Generator` that they name."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ragray.config import GenerateConfig
from ragray.convert.rag import marginalize_of, rag_config, read_model_config
from ragray.convert.to_gguf import why_not_gguf
from ragray.errors import ConfigError
from ragray.generate.engines.apart import ApartGenerator
from ragray.generate.engines.fake import FirstSentenceGenerator
from ragray.generate.generator import Generator
from ragray.generate.template import RAG_DOC_SEP, RAG_TITLE_SEP, PromptTemplate, make_template
from ragray.models import load_model_config, load_tokenizer, resolve_model, resolve_part
from ragray.run import Run

FAKE = "first-sentence"
"""Model name of the fake generator, which needs no weights."""


def load_generator(
    config: GenerateConfig, run: Path | None = None, *, device: str = "auto", threads: int = 0, wait: bool = True
) -> Generator:
    """Load the fine-tuned generator of a run, else the configured model; OpenVINO takes so many threads (0: all).

    OpenVINO runs in a process of its own, which ends when the generator is dropped; without ``wait`` it may still be loading, and
    the first batch waits for it and raises what is wrong with the model.

    Raises:
        ModelNotFoundError, ModelError, ConfigError: the model cannot be loaded, or its prompts cannot be made.
        ArtifactError: the run cannot be opened.
    """
    if run is None and config.model == FAKE:
        return FirstSentenceGenerator(numbered=config.strategy == "together")
    settings, weights = effective(config, run)
    if engine_of(settings, weights, device) == "openvino":
        from ragray.generate.engines.openvino import SETTING, OpenVinoGenerator

        load = functools.partial(OpenVinoGenerator.load_alone, settings, weights=weights, threads=threads)
        template = functools.cache(
            functools.partial(_template, settings, weights)
        )  # many a caller checks questions elsewhere
        generator = ApartGenerator(load, lambda *question: template().check(*question), name=SETTING)
        if wait:
            generator.wait()
        return generator
    from ragray.generate.engines.transformer import TransformerGenerator

    require_encoder_decoder(load_model_config(weights or resolve_part(settings.model, "generator")), settings)
    return TransformerGenerator.load(settings, weights=weights, device=device)


def load_template(config: GenerateConfig, run: Path | None = None) -> PromptTemplate | None:
    """Load the prompt template of the generator that `load_generator` loads, without its weights; None for the fake generator.

    Raises as `load_generator` does.
    """
    if run is None and config.model == FAKE:
        return None
    return _template(*effective(config, run))


def _template(settings: GenerateConfig, weights: Path | None) -> PromptTemplate:
    folder = weights or resolve_part(settings.model, "generator")
    model = load_model_config(folder)
    require_encoder_decoder(model, settings)
    return make_template(load_tokenizer(folder), model, settings)


def effective(config: GenerateConfig, run: Path | None) -> tuple[GenerateConfig, Path | None]:
    """Return the settings that are in force, and the weights of the run, if there is one that has a generator.

    A run brings its own settings, as `Run.generate_settings` says, and so does a RAG model, as `of_model` says. Raises `ConfigError`
    where settings do not fit each other.
    """
    opened = Run.open(run) if run else None
    settings = opened.generate_settings(config) if opened else of_model(config)
    _require_decoding(settings)
    if settings.engine == "openvino" and settings.strategy != "together":
        raise ConfigError(
            f"generate.engine=openvino gives no probabilities, which generate.strategy={settings.strategy} needs; "
            "set generate.strategy=together, or generate.engine=torch"
        )
    return settings, opened.generator if opened and opened.has_generator else None


def of_model(config: GenerateConfig) -> GenerateConfig:
    """Return the settings that hold where ``generate.model`` is a RAG model of `transformers`: those it was trained with, unless given.

    Raises:
        ConfigError: RAG-Sequence is asked of a model of RAG-Token, or the other way round; its prompts are joined in another way.
    """
    rag = None if config.model == FAKE else rag_config(resolve_model(config.model))
    if rag is None:
        return config
    trained = rag_settings(rag)
    for name, sign in (("title_sep", RAG_TITLE_SEP), ("doc_sep", RAG_DOC_SEP)):
        if rag.get(name, sign) != sign:
            raise ConfigError(
                f"{config.model}: {name} is {rag[name]!r} in config.json, and ragray joins prompts by {sign!r}; choose another"
            )
    kind = trained.get("marginalize", config.marginalize)
    if "marginalize" in config.model_fields_set and config.marginalize != kind:
        raise ConfigError(
            f"generate.marginalize={config.marginalize}: {config.model} is a model of RAG-{str(kind).capitalize()}; "
            f"set generate.marginalize={kind}, or name another model"
        )
    open_keys = {key: value for key, value in trained.items() if key not in config.model_fields_set}
    return config.model_copy(update=open_keys)


def rag_settings(rag: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the configuration of a RAG model says of prompts and passages, by the names of the section `generate`."""
    kind = marginalize_of(rag)
    generator = rag.get("generator") or {}
    return {
        "prompt": "rag",
        "instruction": rag.get("prefix") or generator.get("prefix") or "",
        "max_prompt_tokens": int(rag.get("max_combined_length", 300)),
        "passage_temperature": 1.0,
        **({"marginalize": kind} if kind else {}),
    }


def _require_decoding(config: GenerateConfig) -> None:
    """Raise `ConfigError` where the settings of the search for an answer do not fit the strategy or the engine."""
    if config.decoding != "joint" and (config.strategy != "marginal" or config.marginalize != "sequence"):
        raise ConfigError(
            f"generate.decoding={config.decoding} is a way to decode RAG-Sequence; set generate.strategy=marginal and "
            "generate.marginalize=sequence, or generate.decoding=joint"
        )
    if config.spans and (config.num_beams > 1 or config.decoding != "joint" or config.engine == "openvino"):
        raise ConfigError(
            "generate.spans=true chooses among the tokens of passages one at a time: set generate.num_beams=1, "
            "generate.decoding=joint and generate.engine=torch, or generate.spans=false"
        )
    if config.engine == "openvino" and config.num_beams > 1:
        raise ConfigError(
            f"generate.num_beams={config.num_beams} needs generate.engine=torch: OpenVINO gives ragray no probabilities to search by"
        )


def require_encoder_decoder(model: Any, config: GenerateConfig) -> None:
    """Raise `ConfigError` where Fusion-in-Decoder is asked of a model, given its configuration, that has no encoder."""
    if config.strategy == "fid" and not model.is_encoder_decoder:
        raise ConfigError(
            f"generate.strategy=fid needs an encoder-decoder, and generate.model={config.model} is decoder-only; "
            "choose a model of the T5 or BART family, or generate.strategy=marginal"
        )


def engine_of(config: GenerateConfig, weights: Path | None, device: str) -> str:
    """Return what runs the model: what ``generate.engine`` names; with auto, OpenVINO where it can, else torch."""
    if config.engine != "auto":
        return config.engine
    if (
        config.strategy != "together"
        or config.num_beams > 1
        or config.spans
        or importlib.util.find_spec("openvino_genai") is None
    ):
        return "torch"
    if why_not_gguf(read_model_config(weights or resolve_part(config.model, "generator"))) or not _on_cpu(device):
        return "torch"
    return "openvino"


def _on_cpu(device: str) -> bool:
    if device == "auto" and os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return True  # a worker that reserves no GPU; torch, which takes seconds to import, would find none
    from ragray.device import pick_device

    return pick_device(device).type == "cpu"

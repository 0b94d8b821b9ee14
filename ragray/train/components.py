"""What is trained and saved. In: question encoder, passage encoder, generator, as far as a run has them. Out: one module of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ragray.config import TrainConfig
from ragray.embed.saving import save_encoder
from ragray.embed.transformer import TransformerEncoder
from ragray.errors import TrainingError
from ragray.generate.engines.model import GeneratorModel
from ragray.run import ENCODER_FOLDER, GENERATOR_FOLDER, PASSAGE_ENCODER_FOLDER

NO_DECAY = ("bias", "norm", "Norm")
"""Parts of the names of weights that AdamW does not decay: decay pulls towards zero, which is no neutral value for these."""

FOLDERS = {"question_encoder": ENCODER_FOLDER, "passage_encoder": PASSAGE_ENCODER_FOLDER}

B = TypeVar("B")
T = TypeVar("T")


class Components(nn.Module):
    """The models of a run; any may be absent. Owns which weights train, at what learning rate, and how they are saved.

    ``train.generator_lr`` and ``train.tune`` are for the generator, ``train.encoder_lr`` and ``train.encoder_tune`` for both encoders.
    Question encoder and passage encoder may be one object: its weights then learn from questions and passages alike.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        question_encoder: TransformerEncoder | None = None,
        passage_encoder: TransformerEncoder | None = None,
        generator: GeneratorModel | None = None,
    ) -> None:
        """Freeze what the settings freeze, and add adapters where they want them.

        Raises:
            TrainingError: no weight is left to train, or ``train.tune=last`` or ``train.encoder_tune=last`` finds no layers.
        """
        super().__init__()
        given = {"question_encoder": question_encoder, "passage_encoder": passage_encoder}
        self.encoders = {name: encoder for name, encoder in given.items() if encoder is not None}
        self.question_encoder = question_encoder.module if question_encoder else None
        self.passage_encoder = passage_encoder.module if passage_encoder else None
        self.generator = generator
        self._config = config
        self._freeze_encoders()
        self._freeze_generator()
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise TrainingError("nothing to train: train.generator_lr and train.encoder_lr are both 0; raise one")

    def forward(self, loss: Callable[[B], T], batch: B) -> T:
        """Return ``loss(batch)``.

        DistributedDataParallel prepares the averaging of gradients in its own forward, which calls this one. So the loss is
        computed in here, though an objective knows how.
        """
        return loss(batch)

    def autocast(self) -> torch.autocast:
        """Return the context in which a loss is computed in the type that ``train.precision`` names."""
        device, wanted = next(self.parameters()).device.type, self._config.precision
        in_bfloat16 = device == "cuda" if wanted == "auto" else wanted == "bfloat16"
        return torch.autocast(device, torch.bfloat16, enabled=in_bfloat16)

    @property
    def computes_aside(self) -> bool:
        """Whether the weights are where this process only hands work over: on a GPU."""
        return next(self.parameters()).device.type == "cuda"

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the parameters that training changes."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the trainable parameters as groups of an optimizer, by peak learning rate and weight decay."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.trainable():
            rate = self._config.generator_lr if name.startswith("generator.") else self._config.encoder_lr
            decay = 0.0 if any(word in name for word in NO_DECAY) else self._config.weight_decay
            groups.setdefault((rate, decay), []).append(parameter)
        return [
            {"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ]

    def weight_not_finite(self) -> str:
        """Return which weight of which component is not finite, or ""."""
        for name, parameter in self.named_parameters():
            if not bool(parameter.isfinite().all()):
                component, _, weight = name.partition(".")
                return f"the {component.replace('_', ' ')}'s weight '{weight}' holds NaN or infinity"
        return ""

    def gradient_not_finite(self) -> str:
        """Return which components have a gradient that is not finite, or ""."""
        spoilt = dict.fromkeys(
            name.partition(".")[0].replace("_", " ")
            for name, parameter in self.trainable()
            if parameter.grad is not None and not bool(parameter.grad.isfinite().all())
        )
        return f"the gradient of the {' and the '.join(spoilt)} is not finite" if spoilt else ""

    def save(self, folder: Path) -> None:
        """Write every component as a `transformers` folder below ``folder``; adapters are merged into the weights."""
        if self.generator is not None:
            model = _merged(self.generator.model)
            model.save_pretrained(folder / GENERATOR_FOLDER)
            self.generator.tokenizer.save_pretrained(folder / GENERATOR_FOLDER)
        for name, encoder in self.encoders.items():
            encoder.module.model = _merged(encoder.module.model)
            save_encoder(encoder, folder / FOLDERS[name])

    def frozen_passage_encoder(self) -> TransformerEncoder:
        """Return a copy of the passage encoder as it is now, with its adapters merged, that training does not change.

        Raises:
            TrainingError: there is no passage encoder.
        """
        encoder = self.encoders.get("passage_encoder")
        if encoder is None:
            raise TrainingError("the components have no passage encoder; set train.passage_encoder=true")
        frozen = copy.copy(encoder)
        frozen.module = copy.deepcopy(encoder.module).requires_grad_(False)
        frozen.module.model = _merged(frozen.module.model)
        return frozen

    def _freeze_encoders(self) -> None:
        config = self._config
        for module in {id(encoder): encoder.module for encoder in self.encoders.values()}.values():
            for name, parameter in module.named_parameters():
                # A pooler takes no part in mean or first-token pooling: it would never get a gradient.
                parameter.requires_grad_(config.encoder_lr > 0 and ".pooler." not in name)
            if config.encoder_lr > 0:
                module.model = _tuned(
                    module.model, config.encoder_tune, config.encoder_last_layers, config, "encoder_tune"
                )

    def _freeze_generator(self) -> None:
        if self.generator is None:
            return
        if self._config.generator_lr == 0:
            self.generator.model.requires_grad_(False)
        else:
            config = self._config
            self.generator.model = _tuned(self.generator.model, config.tune, config.last_layers, config, "tune")


def _tuned(model: Any, tune: str, num_layers: int, config: TrainConfig, setting: str) -> Any:
    """Return a model of which only the wanted weights train: all, the last layers, or adapters that are added to it."""
    if config.gradient_checkpointing:
        # transformers 5.23 has renamed it
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    if tune == "lora":
        return _with_adapters(model, config)
    if tune == "last":
        model.requires_grad_(False)
        _unfreeze_last(model, num_layers, setting)
    return model


def _merged(model: Any) -> Any:
    """Return a model with its adapters merged into its weights, if it has any."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def _with_adapters(model: Any, config: TrainConfig) -> Any:
    from peft import LoraConfig, get_peft_model

    has_pooler = any(".pooler." in f".{name}" for name, _ in model.named_modules())
    settings = LoraConfig(
        r=config.lora_rank,
        lora_alpha=2 * config.lora_rank,
        target_modules="all-linear",
        exclude_modules=r".*\bpooler\..*" if has_pooler else None,  # it would never get a gradient
    )
    return get_peft_model(model, settings)


def _unfreeze_last(model: Any, num_layers: int, setting: str) -> None:
    """Let the last layers of the longest stack of layers learn (the decoder's, for an encoder-decoder), and the final norm."""
    stacks = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) > 1
        and not (model.config.is_encoder_decoder and "encoder." in name)
    ]
    if not stacks:
        raise TrainingError(
            f"train.{setting}=last: this model has no stack of layers to choose from; use train.{setting}=full"
        )
    for layer in max(stacks, key=len)[-num_layers:]:
        layer.requires_grad_(True)
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in ("norm", "final_layer_norm", "ln_f"):
            module.requires_grad_(True)

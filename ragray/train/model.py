"""What is trained. In: a question encoder and a generator. Out: one module whose forward is the loss of a batch.

B questions, K passages, R = B K rows, L answer tokens, D dim.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ragray.config import TrainConfig
from ragray.embed.transformer import TransformerEncoder
from ragray.errors import TrainingError
from ragray.generate.engines.model import GeneratorModel
from ragray.run import ENCODER_FOLDER, GENERATOR_FOLDER
from ragray.train.losses import doc_log_probs, rag_sequence_loss

NO_DECAY = ("bias", "norm", "Norm")


@dataclass(frozen=True, slots=True)
class TrainBatch:
    """One micro-batch: tokenised questions, their passages' vectors (B, K, D), and prompts with answers (R rows)."""

    question_ids: Tensor
    question_mask: Tensor
    passages_BKD: Tensor
    rows: dict[str, Tensor]


class RagModel(nn.Module):
    """Question encoder and generator, trained together through the passages' probabilities.

    ``encoder`` is None where the index was made with an encoder that has no weights; then only the generator trains.
    """

    def __init__(
        self,
        encoder: TransformerEncoder | None,
        generator: GeneratorModel,
        config: TrainConfig,
        *,
        passage_temperature: float,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.question_encoder = encoder.module if encoder else None
        self.generator = generator
        self._passage_temperature = passage_temperature
        self._freeze(config)

    def forward(self, batch: TrainBatch) -> Tensor:
        """Return the RAG-Sequence loss of a micro-batch, averaged over its questions."""
        passages_BKD = batch.passages_BKD.float()
        if self.question_encoder is None:
            doc_logp_BK = torch.zeros(passages_BKD.shape[:2], device=passages_BKD.device).log_softmax(-1)
        else:
            question_BD = self.question_encoder(batch.question_ids, batch.question_mask)
            doc_logp_BK = doc_log_probs(question_BD.float(), passages_BKD, self._passage_temperature)
        token_logp_RL: Tensor = self.generator(batch.rows)
        return rag_sequence_loss(doc_logp_BK, token_logp_RL.view(*doc_logp_BK.shape, -1))

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the parameters that training changes."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

    def parameter_groups(self, config: TrainConfig) -> list[dict[str, Any]]:
        """Split the trainable parameters by learning rate and weight decay."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.trainable():
            rate = config.encoder_lr if name.startswith("question_encoder.") else config.generator_lr
            decay = 0.0 if any(word in name for word in NO_DECAY) else config.weight_decay
            groups.setdefault((rate, decay), []).append(parameter)
        return [
            {"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ]

    def weight_not_finite(self) -> str:
        """Return which weight of which component is not finite, or nothing."""
        for name, parameter in self.named_parameters():
            if not bool(parameter.isfinite().all()):
                component, _, weight = name.partition(".")
                return f"the {component.replace('_', ' ')}'s weight '{weight}' holds NaN or infinity"
        return ""

    @torch.no_grad()
    def not_finite(self, batch: TrainBatch) -> str:
        """Return which component computes something that is not finite of a batch, or has such a gradient, or nothing."""
        if found := self.weight_not_finite():
            return found
        if not bool(batch.passages_BKD.isfinite().all()):
            return "the index's vectors are not finite"
        if self.question_encoder is not None:
            vectors = self.question_encoder(batch.question_ids, batch.question_mask)
            if not bool(vectors.isfinite().all()):
                return "the question encoder's vectors are not finite"
        if not bool(self.generator(batch.rows).isfinite().all()):
            return "the generator's log-probabilities are not finite"
        spoilt = dict.fromkeys(
            name.partition(".")[0].replace("_", " ")
            for name, parameter in self.trainable()
            if parameter.grad is not None and not bool(parameter.grad.isfinite().all())
        )
        return f"the gradient of the {' and the '.join(spoilt)} is not finite" if spoilt else ""

    def save(self, folder: Path) -> None:
        """Write both models as `transformers` folders below ``folder``; adapters are merged into the weights."""
        generator = self.generator.model
        if hasattr(generator, "merge_and_unload"):
            generator = generator.merge_and_unload()
        generator.save_pretrained(folder / GENERATOR_FOLDER)
        self.generator.tokenizer.save_pretrained(folder / GENERATOR_FOLDER)
        if self.encoder is not None:
            self._encoder_model.save_pretrained(folder / ENCODER_FOLDER)
            self.encoder.tokenizer.save_pretrained(folder / ENCODER_FOLDER)

    @property
    def _encoder_model(self) -> Any:
        assert self.encoder is not None
        return self.encoder.module.model

    def _freeze(self, config: TrainConfig) -> None:
        if self.question_encoder is not None:
            for name, parameter in self.question_encoder.named_parameters():
                # A pooler takes no part in mean or first-token pooling: it would never get a gradient.
                parameter.requires_grad_(config.encoder_lr > 0 and ".pooler." not in name)
        if config.tune == "lora" and config.generator_lr > 0:
            self.generator.model = _with_adapters(self.generator.model, config)
        elif config.tune == "last" or config.generator_lr == 0:
            self.generator.model.requires_grad_(False)
            if config.generator_lr > 0:
                _unfreeze_last(self.generator.model, config.last_layers)
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise TrainingError("nothing to train: train.generator_lr and train.encoder_lr are both 0; raise one")


def _with_adapters(model: Any, config: TrainConfig) -> Any:
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=config.lora_rank, lora_alpha=2 * config.lora_rank, target_modules="all-linear")
    return get_peft_model(model, settings)


def _unfreeze_last(model: Any, num_layers: int) -> None:
    """Let the last layers of the longest stack of layers learn (the decoder's, for an encoder-decoder), and the final norm."""
    stacks = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) > 1 and "encoder." not in name
    ]
    if not stacks:
        raise TrainingError(
            "train.tune=last: this generator has no stack of layers to choose from; use train.tune=full"
        )
    for layer in max(stacks, key=len)[-num_layers:]:
        layer.requires_grad_(True)
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in ("norm", "final_layer_norm", "ln_f"):
            module.requires_grad_(True)

"""A generator's weights. In: a model folder. Out: next-token log-probabilities, for decoder-only and encoder-decoder models alike.

R rows (a question with one passage each), T prompt tokens, L answer tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ragray.config import GenerateConfig
from ragray.device import at_least_float32, pick_device
from ragray.embed.batching import length_groups
from ragray.errors import ModelError
from ragray.generate.template import PromptTemplate, left_pad, make_template, right_pad
from ragray.models import load_model_config, load_tokenizer, load_weights

IGNORE = -100
"""Label of a position that is no part of the answer."""

GROUP_TOKENS = {"cpu": 128, "cuda": 4096}
"""What a group of rows that are computed together costs besides its tokens, in tokens: a CPU reads the weights once more and adds
their gradients (16 bytes of memory traffic per weight, against 6 operations per weight and token), a GPU is not full with fewer."""


class GeneratorModel(nn.Module):
    """A `transformers` model that writes; hides the differences between decoder-only and encoder-decoder models."""

    def __init__(self, model: nn.Module, tokenizer: Any) -> None:
        super().__init__()
        self.model: Any
        self.model = model
        self.tokenizer = tokenizer
        self.is_encoder_decoder = bool(self.model.config.is_encoder_decoder)
        pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        if pad_id is None:
            raise ModelError(
                f"{tokenizer.name_or_path}: the tokenizer names neither a padding nor an end token; set eos_token"
            )
        self.pad_id = int(pad_id)

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto", dtype: torch.dtype | None = None) -> GeneratorModel:
        """Load weights and tokenizer; float32 on a CPU, bfloat16 on a GPU unless ``dtype`` says otherwise.

        Raises:
            ModelError: a file of the folder cannot be used, or weights are missing.
        """
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

        target = pick_device(device)
        dtype = dtype or (torch.bfloat16 if target.type == "cuda" else torch.float32)
        family = AutoModelForSeq2SeqLM if load_model_config(folder).is_encoder_decoder else AutoModelForCausalLM
        return cls(load_weights(family, folder, dtype=dtype).to(target).eval(), load_tokenizer(folder))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def stop_ids(self) -> set[int]:
        """Return the ids that end an answer."""
        found = self.model.generation_config.eos_token_id
        ids = found if isinstance(found, list) else [found]
        return {int(token) for token in [*ids, self.tokenizer.eos_token_id] if token is not None}

    def prompt_template(self, config: GenerateConfig) -> PromptTemplate:
        """Make the prompt template for this model (see `make_template`)."""
        return make_template(self.tokenizer, self.model.config, config)

    def explain_not_finite(self, found: str) -> str:
        """Return a message on an output that is not finite, with the first weight that is none either, if there is one."""
        for name, parameter in self.model.named_parameters():
            if not bool(parameter.isfinite().all()):
                return f"{self.model.name_or_path}: {found}: its weight '{name}' holds NaN or infinity; use undamaged weights"
        return f"{self.model.name_or_path}: {found}, though its weights are finite; load it in float32, or use another model"

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return log p(y_l | prompt, y_<l) of the labelled tokens, (R, L) float32, zero where there is no label."""
        return chosen(self.log_probs(batch), batch["labels"])

    def log_probs(self, batch: dict[str, Tensor], *, fused: Sequence[int] = ()) -> Tensor:
        """Return log p(v | prompt, y_<l) of every token v of the vocabulary, (R, L, V), in float32 or the model's larger type.

        Rows of similar length are computed together, so that little is padded. With ``fused`` an answer is written from so many
        prompts of the batch (see `fuse`), R counts the answers, and all are computed at once.
        """
        lengths = batch["attention_mask"].sum(-1).tolist()
        groups = [] if fused else length_groups(lengths, GROUP_TOKENS.get(self.device.type, GROUP_TOKENS["cpu"]))
        if len(groups) <= 1:
            return at_least_float32(self._logits(batch, fused)).log_softmax(-1)
        found: dict[int, Tensor] = {}
        for rows in groups:
            found |= zip(rows, self._logits(self._part(batch, rows, lengths[rows[0]])), strict=True)
        return at_least_float32(torch.stack([found[row] for row in range(len(lengths))])).log_softmax(-1)

    def _part(self, batch: dict[str, Tensor], rows: Sequence[int], length: int) -> dict[str, Tensor]:
        """Return some rows of a batch, whose prompts are cut to ``length`` tokens; what is cut is padding."""
        if not self.is_encoder_decoder:
            length = max(length, batch["labels"].shape[1] + 1)
        cut = slice(length) if self.is_encoder_decoder else slice(-length, None)
        kept = torch.tensor(rows, device=self.device)
        return {
            name: values[kept][:, cut] if name in ("input_ids", "attention_mask") else values[kept]
            for name, values in batch.items()
        }

    def _logits(self, batch: dict[str, Tensor], fused: Sequence[int] = ()) -> Tensor:
        """Return the logits of all answer tokens, (R, L, V)."""
        logits: Tensor
        if self.is_encoder_decoder:
            encoded, mask = self.encode(batch["input_ids"], batch["attention_mask"], fused=fused)
            logits = self.model(
                encoder_outputs=encoded,
                attention_mask=mask,
                decoder_input_ids=batch["decoder_input_ids"],
                use_cache=False,
            ).logits
        else:
            logits = self.model(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                position_ids=positions(batch["attention_mask"]),
                use_cache=False,
                logits_to_keep=batch["labels"].shape[1] + 1,
            ).logits[:, :-1]
        return logits

    def encode(self, ids_RT: Tensor, mask_RT: Tensor, *, fused: Sequence[int] = ()) -> tuple[Any, Tensor]:
        """Return what the encoder of an encoder-decoder makes of prompts, and its mask; ``fused`` as in `log_probs`."""
        encoded = self.model.get_encoder()(input_ids=ids_RT, attention_mask=mask_RT)
        if not fused:
            return encoded, mask_RT
        states, mask = fuse(encoded.last_hidden_state, mask_RT, fused)
        return type(encoded)(last_hidden_state=states), mask

    def answer_batch(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Collate R prompts with their R answers for `forward`; an encoder-decoder may have several prompts for an answer.

        Decoder-only rows end together (padding is on the left), so that the answers stand in the last L positions.
        """
        if self.is_encoder_decoder:
            return self._seq2seq_batch(prompts, answers)
        ids, mask = self.pad_prompts([[*p, *a] for p, a in zip(prompts, answers, strict=True)])
        length = max(len(answer) for answer in answers)
        labels = [[IGNORE] * (length - len(answer)) + list(answer) for answer in answers]
        return self._tensors(input_ids=ids, attention_mask=mask, labels=labels)

    def pad_prompts(self, prompts: Sequence[Sequence[int]]) -> tuple[list[list[int]], list[list[int]]]:
        """Pad prompts to one length; return ids and mask, both (R, T).

        An encoder may count positions from the row's first place whatever the mask says (BART does), so its rows begin there. A
        decoder's rows end together, so that answers can follow.
        """
        return (right_pad if self.is_encoder_decoder else left_pad)(prompts, self.pad_id)

    def _seq2seq_batch(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        ids, mask = self.pad_prompts(prompts)
        length = max(len(answer) for answer in answers)
        start = int(self.model.config.decoder_start_token_id)
        decoder = [[start, *answer[:-1], *[self.pad_id] * (length - len(answer))] for answer in answers]
        labels = [[*answer, *[IGNORE] * (length - len(answer))] for answer in answers]
        return self._tensors(input_ids=ids, attention_mask=mask, decoder_input_ids=decoder, labels=labels)

    def num_tokens(self, batch: dict[str, Tensor]) -> Tensor:
        """Return how many tokens of a batch are no padding, those of the answers included."""
        num_prompt, num_answer = batch["attention_mask"].sum(), (batch["labels"] != IGNORE).sum()
        return (num_prompt + num_answer if self.is_encoder_decoder else num_prompt).float()

    def _tensors(self, **columns: list[list[int]]) -> dict[str, Tensor]:
        return {name: torch.tensor(rows, device=self.device) for name, rows in columns.items()}


def chosen(logp_LV: Tensor, labels_L: Tensor) -> Tensor:
    """Return the log-probabilities of the labelled tokens, (..., L, V) -> (..., L), zero where there is no label."""
    chosen_L = logp_LV.gather(-1, labels_L.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return chosen_L.masked_fill(labels_L == IGNORE, 0.0)


def fuse(states_RTD: Tensor, mask_RT: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Put the encoded prompts of each question one behind the other: ``sizes`` of them, B numbers whose sum is R.

    Returns states (B, S, D) and mask (B, S), S = T times the largest size (Fusion-in-Decoder: Izacard and Grave 2021,
    arXiv:2007.01282, section 3).
    """
    states = [rows_KTD.flatten(0, 1) for rows_KTD in torch.split(states_RTD, list(sizes))]
    masks = [rows_KT.flatten() for rows_KT in torch.split(mask_RT, list(sizes))]
    return pad_sequence(states, batch_first=True), pad_sequence(masks, batch_first=True)


def positions(mask_RT: Tensor) -> Tensor:
    """Number the real tokens of left-padded rows from zero, (R, T)."""
    return (mask_RT.cumsum(-1) - 1).clamp(min=0)

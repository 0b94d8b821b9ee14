"""Models small enough for tests: random weights, a vocabulary of words, saved as `transformers` folders."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    DPRConfig,
    DPRQuestionEncoder,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
)
from transformers import T5ForConditionalGeneration as T5Model

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789?.,:'-()"
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]


def _tokenizer(*, ends: bool) -> PreTrainedTokenizerFast:
    """Make a tokenizer of single characters; with ``ends`` it puts <s> and </s> around a text."""
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *LETTERS, *LETTERS.upper()[:26], "▁"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    if ends:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", vocabulary["<s>"]), ("</s>", vocabulary["</s>"])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def byte_tokenizer(*, chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """Make a tokenizer of bytes, with the control tokens and, if given, the template of a chat model."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<|end|>", "<|im_start|>", "<|im_end|>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    fast.chat_template = chat_template
    return fast


def save_decoder(folder: Path) -> Path:
    """Save a decoder-only generator of two layers."""
    torch.manual_seed(1)
    tokenizer = _tokenizer(ends=False)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=512, pad_token_id=0, bos_token_id=1, eos_token_id=2, initializer_range=0.3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_encoder_decoder(folder: Path) -> Path:
    """Save an encoder-decoder generator of two layers, without dropout."""
    torch.manual_seed(2)
    tokenizer = _tokenizer(ends=True)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, dropout_rate=0.0,
        pad_token_id=0, eos_token_id=2, decoder_start_token_id=0,
    )  # fmt: skip
    T5Model(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_encoder(folder: Path) -> Path:
    """Save a text encoder of two layers and 16 dimensions, without dropout."""
    torch.manual_seed(3)
    tokenizer = _tokenizer(ends=True)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=512, pad_token_id=0, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        initializer_range=0.3,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_bart(folder: Path) -> Path:
    """Save an encoder-decoder generator with learned positions, of one layer in each half, without dropout."""
    torch.manual_seed(4)
    tokenizer = _tokenizer(ends=True)
    config = BartConfig(
        vocab_size=len(tokenizer), d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=512, dropout=0.0,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None, init_std=0.3,
    )  # fmt: skip
    BartForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_dpr(folder: Path) -> Path:
    """Save a question encoder of DPR with a projection to 12 dimensions, without dropout."""
    torch.manual_seed(5)
    tokenizer = _tokenizer(ends=True)
    config = DPRConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=512, pad_token_id=0, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        initializer_range=0.3, projection_dim=12,
    )  # fmt: skip
    DPRQuestionEncoder(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder

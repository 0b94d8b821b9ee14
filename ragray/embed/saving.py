"""A trained encoder as a folder. In: an encoder. Out: its weights, tokenizer and pooling, as sentence-transformers saves them."""

from __future__ import annotations

from pathlib import Path

from ragray.artifact.files import write_json
from ragray.embed.pooling import OWN, POOLING_FILE
from ragray.embed.prompts import PROMPT_FILE
from ragray.embed.transformer import TransformerEncoder

MODES = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken"}
NAMES = ("Transformer", "Pooling", "Normalize")
PATHS = ("", "1_Pooling", "2_Normalize")


def save_encoder(encoder: TransformerEncoder, folder: Path) -> None:
    """Write a folder that `AutoModel.from_pretrained` loads, and sentence-transformers with the same vectors.

    A model of DPR makes its vectors itself, and is saved for `transformers` alone.
    """
    module = encoder.module
    model = module.model
    model.save_pretrained(folder)  # type: ignore[operator] # any model of `transformers`
    encoder.tokenizer.save_pretrained(folder)
    if module.pooling == OWN:
        return
    config, kinds = encoder.config, NAMES if module.normalize else NAMES[:2]
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(zip(kinds, PATHS, strict=False))
    ]
    modes = {f"pooling_mode_{mode}": pooling == module.pooling for pooling, mode in MODES.items()}
    write_json(folder / "modules.json", modules)
    write_json(folder / POOLING_FILE, {"word_embedding_dimension": encoder.fingerprint.dim, **modes})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": config.max_length, "do_lower_case": False})
    prompts = {"query": config.question_prefix, "document": config.passage_prefix}
    measure = "cosine" if module.normalize else "dot"
    write_json(folder / PROMPT_FILE, {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": measure})
    (folder / PATHS[2]).mkdir(exist_ok=True)

"""A trained encoder's folder gives the same vectors in plain `transformers` and in sentence-transformers."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, DPRContextEncoder, DPRQuestionEncoder

from ragray.config import EncoderConfig
from ragray.embed.saving import save_encoder
from ragray.embed.transformer import TransformerEncoder
from ragray.errors import ConfigError

TEXTS = ["the river flows through the town", "cats sleep", "a"]


@pytest.mark.parametrize(("pooling", "normalize"), [("mean", True), ("cls", False), ("lasttoken", True)])
def test_the_saved_folder_says_how_its_vectors_are_made(
    pooling: str, normalize: bool, tiny_encoder: Path, tmp_path: Path
) -> None:
    config = EncoderConfig(
        model=str(tiny_encoder), pooling=pooling, normalize=normalize, max_length=48, question_prefix="find: ", passage_prefix="text: "
    )  # fmt: skip
    encoder = TransformerEncoder.load(config, device="cpu")
    save_encoder(encoder, tmp_path)
    again = TransformerEncoder.load(
        EncoderConfig(model=str(tmp_path), normalize=normalize, max_length=48), device="cpu"
    )
    np.testing.assert_array_equal(again.encode(TEXTS), encoder.encode(TEXTS))
    np.testing.assert_array_equal(again.encode_questions(TEXTS), encoder.encode_questions(TEXTS))
    plain = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(plain.embeddings.word_embeddings.weight, encoder.module.model.embeddings.word_embeddings.weight)  # type: ignore[union-attr,arg-type]
    if importlib.util.find_spec("sentence_transformers"):
        from sentence_transformers import SentenceTransformer

        theirs = SentenceTransformer(str(tmp_path), device="cpu")
        assert theirs.max_seq_length == 48
        np.testing.assert_allclose(theirs.encode(TEXTS, prompt_name="document"), encoder.encode(TEXTS), atol=1e-6)
        np.testing.assert_allclose(
            theirs.encode(TEXTS, prompt_name="query"), encoder.encode_questions(TEXTS), atol=1e-6
        )


@pytest.mark.parametrize("kind", [DPRQuestionEncoder, DPRContextEncoder])
def test_both_encoders_of_dpr_give_their_own_vectors(kind: type, tiny_dpr: Path, tmp_path: Path) -> None:
    model = kind(DPRQuestionEncoder.from_pretrained(tiny_dpr).config)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_dpr).save_pretrained(tmp_path)
    encoder = TransformerEncoder.load(EncoderConfig(model=str(tmp_path), normalize=False), device="cpu")
    assert (encoder.fingerprint.dim, encoder.fingerprint.pooling) == (12, "pooler")
    with torch.no_grad():
        for text, vector in zip(TEXTS, encoder.encode(TEXTS), strict=True):
            ids = encoder.tokenizer(text, return_tensors="pt")["input_ids"]
            np.testing.assert_allclose(model.eval()(ids).pooler_output[0].numpy(), vector, rtol=1e-4, atol=1e-6)
    save_encoder(encoder, tmp_path / "saved")
    again = TransformerEncoder.load(EncoderConfig(model=str(tmp_path / "saved"), normalize=False), device="cpu")
    np.testing.assert_array_equal(again.encode(TEXTS), encoder.encode(TEXTS))


def test_dpr_has_a_pooling_of_its_own(tiny_dpr: Path) -> None:
    with pytest.raises(ConfigError, match=r"embed\.pooling=mean: .* pooling of its own"):
        TransformerEncoder.load(EncoderConfig(model=str(tiny_dpr), pooling="mean"), device="cpu")

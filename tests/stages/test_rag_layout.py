"""RAG models of `transformers` become runs, and runs become RAG models: the same vectors, the same answers, weight for weight."""

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoTokenizer,
    BartForConditionalGeneration,
    DPRQuestionEncoder,
    RagRetriever,
    RagSequenceForGeneration,
    RagTokenForGeneration,
    RagTokenizer,
)

from ragray.artifact.manifest import publish
from ragray.config import EncoderConfig, GenerateConfig, TrainConfig, load_config
from ragray.embed.encoder import encoder_fingerprint
from ragray.embed.transformer import TransformerEncoder
from ragray.errors import ConfigError, EncoderMismatchError, ModelError, ModelNotFoundError
from ragray.generate.engine import GenerationRequest
from ragray.generate.engines.model import GeneratorModel
from ragray.generate.load import effective, load_generator
from ragray.index.search.reader import IndexReader
from ragray.retrieve.load import load_retriever, question_encoder
from ragray.run import MODEL_FOLDER, Run, RunFacts
from ragray.stages.rag_layout import export_rag, import_rag
from ragray.train.components import Components
from tests import helpers
from tests.helpers import Command

QUESTIONS = ["which river flows through the town?", "who was it?"]
CLASSES = {"sequence": RagSequenceForGeneration, "token": RagTokenForGeneration}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGRAY_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def dpr_index(tiny_dpr: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dpr-index")
    corpus = helpers.write_corpus(folder / "corpus", helpers.some_passages(20))
    config = EncoderConfig(model=str(tiny_dpr), max_length=64, normalize=False)
    return helpers.write_index(
        folder / "index", helpers.write_embeddings(folder / "embeddings", corpus, config=config), corpus
    )


@pytest.fixture(scope="module", params=["sequence", "token"])
def rag(
    request: pytest.FixtureRequest, tiny_dpr: Path, tiny_bart: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A RAG model as `transformers` saves it; its question encoder is not that of the index."""
    torch.manual_seed(7)
    folder = tmp_path_factory.mktemp(f"rag-{request.param}")
    encoder = DPRQuestionEncoder(DPRQuestionEncoder.from_pretrained(tiny_dpr).config)
    generator = BartForConditionalGeneration.from_pretrained(tiny_bart)
    CLASSES[request.param](question_encoder=encoder, generator=generator, n_docs=3).save_pretrained(folder)
    tokenizers = [AutoTokenizer.from_pretrained(source) for source in (tiny_dpr, tiny_bart)]
    RagTokenizer(*tokenizers).save_pretrained(folder)
    return folder


def kind_of(rag: Path) -> str:
    return "token" if "token" in rag.name else "sequence"


def test_a_rag_model_becomes_a_run_with_its_vectors_prompts_and_answers(
    rag: Path, dpr_index: Path, tmp_path: Path
) -> None:
    """The whole way of `transformers`, its retriever's prompts included, against the run's.

    RAG-Sequence gets one passage: with several, transformers 5.23 lets the generator read their padding.
    """
    kind = kind_of(rag)
    k = 1 if kind == "sequence" else 3
    report = import_rag(str(rag), dpr_index, tmp_path / "run", load_config(None, []))
    assert (report.marginalize, report.k, report.reused) == (kind, 3, False)
    assert import_rag(str(rag), dpr_index, tmp_path / "run", load_config(None, [])).reused
    settings = [
        "generate.max_new_tokens=6",
        f"retrieve.k={k}",
        *(["generate.decoding=thorough"] if kind == "sequence" else []),
    ]
    config = Run.open(tmp_path / "run").settings(load_config(None, settings))
    retriever = load_retriever(dpr_index, tmp_path / "run", config, device="cpu")
    results = retriever.search(QUESTIONS, config.retrieve.k)
    generator = load_generator(config.generate, tmp_path / "run", device="cpu")
    requests = [GenerationRequest(q, tuple(r.hits)) for q, r in zip(QUESTIONS, results, strict=True)]
    theirs = CLASSES[kind].from_pretrained(rag, n_docs=k).eval()
    tokenizer = AutoTokenizer.from_pretrained(rag / "generator_tokenizer")
    for request, answer in zip(requests, generator.generate(requests), strict=True):
        inputs = AutoTokenizer.from_pretrained(rag / "question_encoder_tokenizer")(
            request.question, return_tensors="pt"
        )
        vector = theirs.question_encoder(inputs["input_ids"], attention_mask=inputs["attention_mask"])[0]
        passages = np.stack([stored_vector(dpr_index, hit.passage.id) for hit in request.hits])
        scores = vector @ torch.from_numpy(passages).float().T
        assert [hit.dense for hit in request.hits] == pytest.approx(scores[0].tolist(), rel=1e-3)
        contexts = prompts_of_transformers(theirs.config, tokenizer, request)
        found = theirs.generate(
            context_input_ids=contexts["input_ids"], context_attention_mask=contexts["attention_mask"], doc_scores=scores, n_docs=k,
            max_length=7, num_beams=1, eos_token_id=2, pad_token_id=0, decoder_start_token_id=2,
        )  # fmt: skip
        assert answer.text == tokenizer.decode(found[0], skip_special_tokens=True).strip()
        ids = [generator.template.ids(request.question, hit.passage) for hit in request.hits]
        assert ids == [
            row[mask.bool()].tolist()
            for row, mask in zip(contexts["input_ids"], contexts["attention_mask"], strict=True)
        ]


def stored_vector(index: Path, identity: str) -> np.ndarray:
    """Return the vector that the index holds for a passage."""
    found = IndexReader.open(index).search(np.ones((1, 12), dtype=np.float32), 20, with_vectors=True)
    return found.vectors_NKD[0][[hit.passage.id for hit in found.hits[0]].index(identity)]


def prompts_of_transformers(config: Any, tokenizer: Any, request: GenerationRequest) -> Any:
    """Return the prompts that `RagRetriever` makes of a question and its passages, without the padding that all of them have."""
    retriever = SimpleNamespace(config=config, generator_tokenizer=tokenizer)
    docs = [{"title": [h.passage.title for h in request.hits], "text": [h.passage.text for h in request.hits]}]
    ids, mask = RagRetriever.postprocess_docs(
        retriever, docs, [request.question], "", len(request.hits), return_tensors="pt"
    )
    longest = int(mask.sum(1).max())
    return {"input_ids": ids[:, :longest], "attention_mask": mask[:, :longest]}


def test_a_run_written_back_is_the_model_it_was_made_of(rag: Path, dpr_index: Path, tmp_path: Path) -> None:
    import_rag(str(rag), dpr_index, tmp_path / "run", load_config(None, []))
    report = export_rag(tmp_path / "run", tmp_path / "back")
    assert (report.marginalize, report.k, report.reused) == (kind_of(rag), 3, False)
    assert export_rag(tmp_path / "run", tmp_path / "back").reused
    kind = CLASSES[kind_of(rag)]
    before, after = (kind.from_pretrained(folder) for folder in (rag, tmp_path / "back"))
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name]), name
    assert after.config.n_docs == 3
    tokenizer = RagTokenizer.from_pretrained(tmp_path / "back")
    assert (
        tokenizer.generator("who?")["input_ids"]
        == AutoTokenizer.from_pretrained(rag / "generator_tokenizer")("who?")["input_ids"]
    )


def test_sequence_and_token_are_not_mistaken_for_each_other(rag: Path, dpr_index: Path, tmp_path: Path) -> None:
    kind = kind_of(rag)
    other = "sequence" if kind == "token" else "token"
    with pytest.raises(ConfigError, match=rf"marginalize={other}: .* is a model of RAG-{kind.capitalize()}"):
        import_rag(str(rag), dpr_index, tmp_path / "run", load_config(None, [f"generate.marginalize={other}"]))
    with pytest.raises(ConfigError, match="RAG-"):
        effective(GenerateConfig(model=str(rag), marginalize=other), None)
    found, _ = effective(GenerateConfig(model=str(rag)), None)
    assert (found.marginalize, found.prompt, found.passage_temperature, found.max_prompt_tokens) == (
        kind,
        "rag",
        1.0,
        300,
    )


def test_what_is_no_rag_model_or_does_not_fit_the_index_is_refused(
    rag: Path, tiny_bart: Path, hash_index: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelNotFoundError, match="is no RAG model"):
        import_rag(str(tiny_bart), hash_index, tmp_path / "run", load_config(None, []))
    with pytest.raises(EncoderMismatchError, match="12 dimensions"):
        import_rag(str(rag), hash_index, tmp_path / "run", load_config(None, []))
    with pytest.raises(ConfigError, match=r"no passage encoder.*embed\.question_model"):
        encoder_fingerprint(EncoderConfig(model=str(rag)))
    half = shutil.copytree(rag, tmp_path / "half")
    shutil.rmtree(half / "generator_tokenizer")
    with pytest.raises(ModelError, match="the folder generator_tokenizer"):
        import_rag(str(half), hash_index, tmp_path / "run", load_config(None, []))


def test_prompts_that_are_joined_by_other_signs_are_refused(rag: Path, tmp_path: Path) -> None:
    other = shutil.copytree(rag, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "doc_sep": " ## "}))
    with pytest.raises(ConfigError, match=r"doc_sep is ' ## '"):
        effective(GenerateConfig(model=str(other)), None)


def test_a_rag_model_brings_the_question_encoder_of_an_index_without_a_run(
    rag: Path, tiny_dpr: Path, dpr_index: Path
) -> None:
    settings = [
        f"embed.model={tiny_dpr}",
        "embed.max_length=64",
        "embed.normalize=false",
        f"embed.question_model={rag}",
    ]
    encoder = question_encoder(IndexReader.open(dpr_index), None, load_config(None, settings), device="cpu")
    inputs = AutoTokenizer.from_pretrained(tiny_dpr)(QUESTIONS[0], return_tensors="pt")
    expected = CLASSES[kind_of(rag)].from_pretrained(rag).question_encoder(inputs["input_ids"])[0]
    np.testing.assert_allclose(encoder.encode_questions(QUESTIONS[:1]), expected.detach().numpy(), rtol=1e-5)


def run_of(folder: Path, encoder: Path, generator: Path, *, normalize: bool = False, **settings: Any) -> Path:
    """A run as `ragray train` leaves it, its weights untouched."""
    config = EncoderConfig(model=str(encoder), pooling="cls", normalize=normalize, max_length=64)
    question = TransformerEncoder.load(config, device="cpu")
    model = GeneratorModel.load(generator, device="cpu")
    Components(TrainConfig(), question_encoder=question, generator=model).save(folder / MODEL_FOLDER)
    facts = RunFacts(
        generate=GenerateConfig(model=str(generator), passage_temperature=0.25, **settings), k=4, encoder=question.fingerprint,
        snapshot="s", num_steps=1, num_examples=1, final_loss=1.0,
    )  # fmt: skip
    files = [path for path in sorted((folder / MODEL_FOLDER).rglob("*")) if path.is_file()]
    publish(folder, kind="run", fingerprint="0123", facts=facts.model_dump(mode="json"), files=files)
    return folder


def test_a_trained_run_is_written_with_its_temperature_in_the_question_encoder(
    tiny_encoder: Path, tiny_encoder_decoder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_of(tmp_path / "run", tiny_encoder, tiny_encoder_decoder, marginalize="token")
    with caplog.at_level(logging.WARNING, logger="ragray"):
        export_rag(run, tmp_path / "rag")
    assert ["generate.prompt=instruct" in record.getMessage() for record in caplog.records] == [True]
    theirs = RagTokenForGeneration.from_pretrained(tmp_path / "rag")
    inputs = AutoTokenizer.from_pretrained(tiny_encoder)(QUESTIONS[0], return_tensors="pt")
    config = EncoderConfig(model=str(tiny_encoder), pooling="cls", normalize=False, max_length=64)
    [ours] = TransformerEncoder.load(config, device="cpu").encode_questions(QUESTIONS[:1])
    np.testing.assert_allclose(
        theirs.question_encoder(inputs["input_ids"])[0][0].detach().numpy() * 0.25, ours, rtol=1e-4, atol=1e-6
    )
    assert (theirs.config.n_docs, theirs.config.max_combined_length) == (4, 512)


def test_an_encoder_that_transformers_does_not_compute_is_written_with_a_warning(
    tiny_encoder: Path, tiny_encoder_decoder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_of(tmp_path / "run", tiny_encoder, tiny_encoder_decoder, normalize=True)
    with caplog.at_level(logging.WARNING, logger="ragray"):
        export_rag(run, tmp_path / "rag")
    assert "of your own, inner products divided by 0.25" in caplog.records[-1].getMessage()
    RagSequenceForGeneration.from_pretrained(tmp_path / "rag")


@pytest.mark.parametrize(("kind", "settings"), [("decoder", {}), ("encoder_decoder", {"strategy": "fid"})])
def test_a_run_that_the_layout_cannot_hold_is_refused(
    kind: str, settings: dict[str, Any], tiny_encoder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run = run_of(tmp_path / "run", tiny_encoder, request.getfixturevalue(f"tiny_{kind}"), **settings)
    with pytest.raises(ConfigError, match=r"an encoder-decoder that were trained with generate\.strategy=marginal"):
        export_rag(run, tmp_path / "rag")


def test_the_command_line_imports_and_exports(
    tiny_dpr: Path, tiny_bart: Path, dpr_index: Path, tmp_path: Path, run_command: Command
) -> None:
    encoder, generator = (
        DPRQuestionEncoder.from_pretrained(tiny_dpr),
        BartForConditionalGeneration.from_pretrained(tiny_bart),
    )
    RagSequenceForGeneration(question_encoder=encoder, generator=generator).save_pretrained(tmp_path / "rag")
    RagTokenizer(*(AutoTokenizer.from_pretrained(f) for f in (tiny_dpr, tiny_bart))).save_pretrained(tmp_path / "rag")
    made = run_command("run", "import", tmp_path / "rag", "--index", dpr_index, "--out", tmp_path / "run")
    assert (made.code, made.output.strip()) == (0, f"{tmp_path}/run: RAG-Sequence, 5 passages per question")
    written = run_command("run", "export", tmp_path / "run", "--out", tmp_path / "back")
    assert (written.code, written.output.strip()) == (0, f"{tmp_path}/back: RAG-Sequence, 5 passages per question")
    refused = run_command(
        "run",
        "import",
        tmp_path / "rag",
        "--index",
        dpr_index,
        "--out",
        tmp_path / "other",
        "generate.marginalize=token",
    )
    assert refused.code == 2 and "is a model of RAG-Sequence" in refused.errors[-1]

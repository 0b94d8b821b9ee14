"""Settings of the stages that use an index: retrieve, generate, evaluate, serve. In: values. Out: frozen models."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, PositiveInt, field_validator, model_validator

from ragray.config.base import LEAST_CPUS, MAX_ACTORS, MAX_THREADS, MAX_WAIT_S, ORIGIN, Gpus, Section
from ragray.config.tasks import Task

MeasureName = Literal[
    "bleu",
    "chrf",
    "rouge1",
    "rouge2",
    "rougeL",
    "label_accuracy",
    "macro_f1",
    "citation_recall",
    "citation_precision",
]
"""What `evaluate.metrics` may name."""


class RetrieveConfig(Section):
    """How passages are found."""

    k: int = Field(3, ge=1, le=1000, description="passages per question")
    num_shards: int = Field(
        1,
        ge=1,
        le=MAX_ACTORS,
        description="shards of a retriever pool, in training and in serving; each holds some of the segments",
    )
    num_replicas: int = Field(1, ge=1, le=MAX_ACTORS, description="copies of the retriever, each with all shards")
    cpus_per_actor: float = Field(0.5, ge=0, le=1024, description="CPUs that each actor of a retriever pool reserves")
    threads: int = Field(1, ge=1, le=MAX_THREADS, description="search threads per retriever")
    mode: Literal["dense", "lexical", "hybrid"] = Field(
        "dense", description="search by vectors, by BM25, or by both, joined as retrieve.fusion says"
    )
    where: str = Field(
        "",
        description="filter by metadata, for instance: lang == en and year >= 2020; only matching passages are found; empty: all",
    )
    candidates: int = Field(
        100,
        ge=1,
        description="passages that dense and lexical search each give to the fusion, and that are given to the reranker",
    )
    fusion: Literal["convex", "rrf"] = Field(
        "convex",
        description="how mode=hybrid joins the two searches: a convex combination of BM25 as a share of what it can be at most and "
        "the inner product in units of how far apart the index's vectors lie, or reciprocal-rank fusion",
    )
    dense_weight: float = Field(
        0.45,
        ge=0,
        le=1,
        description="weight of the dense scores in the convex combination; the BM25 scores have the rest",
    )
    pair_weight: float = Field(
        0.25,
        ge=0,
        le=1,
        description="what the share of a query's pairs of neighbouring terms that are neighbours in a passage too adds to its share of "
        "BM25 in the convex combination, for the 20 passages that are best without it; 0: nothing",
    )
    rrf_k: int = Field(60, ge=1, description="constant of reciprocal-rank fusion: score = sum of 1 / (rrf_k + rank)")
    rerank_model: str = Field(
        "", description="cross-encoder that reorders the candidates: local folder or hub id; empty: none"
    )


class GenerateConfig(Section):
    """How an answer is written from a question and its passages."""

    model: str = Field("smollm2-135m-instruct", description="generator: local folder, packaged name or hub id")
    instruction: str = Field("Answer with a few words.", description="system message of the prompt")
    task: Task = Field(
        "",
        description="preset of a task: its instruction, limits of tokens and evaluate.metrics, each unless it is given; empty: none",
    )
    prompt: Literal["instruct", "rag"] = Field(
        "instruct",
        description="instruct: instruction, passage, question, in the model's chat template where it has one; rag: as the RAG classes "
        "of transformers: title / text // question, behind the instruction; a RAG model in generate.model brings rag with it",
    )
    strategy: Literal["marginal", "together", "fid"] = Field(
        "marginal",
        description="marginal: one prompt per passage, decoded jointly; together: all passages numbered in one prompt, cited as [n] in "
        "the answer, where max_prompt_tokens bounds what is read of all of them; fid: Fusion-in-Decoder, one prompt per passage, "
        "all read by the decoder at once (an encoder-decoder model)",
    )
    engine: Literal["auto", "torch", "openvino"] = Field(
        "torch",
        description="what runs the model; openvino (a CPU, models of the Llama family) needs strategy=together and the package "
        "openvino-genai; auto: openvino where all of that holds, else torch",
    )
    marginalize: Literal["sequence", "token"] = Field(
        "sequence",
        description="how the predictions of several passages become one answer: RAG-Sequence or RAG-Token (Lewis et al. 2020)",
    )
    num_beams: int = Field(
        1,
        ge=1,
        le=64,
        description="answers that are searched side by side (beam search, scores per token); 1: the most probable token each time",
    )
    decoding: Literal["joint", "thorough", "fast"] = Field(
        "joint",
        description="how RAG-Sequence finds its answer: joint: all passages write one answer together, token by token; thorough: each "
        "passage writes its own by beam search, every one is scored with all passages; fast: scored only with the passages that "
        "wrote it (Lewis et al. 2020, section 2.5). thorough and fast write nothing before the answer is complete",
    )
    spans: bool = Field(
        False,
        description="write only what stands in a passage, whole words of its title or text, behind it perhaps its citation: p(answer | "
        "passage) is 0 for all else. For generators trained to answer with spans (extractive questions)",
    )
    max_prompt_tokens: int = Field(
        512, ge=32, description="tokens per prompt at most; a passage that does not fit loses its end, a question never"
    )
    max_new_tokens: int = Field(32, ge=1, description="tokens per answer at most")
    passage_temperature: float = Field(
        0.05,
        gt=0,
        description="temperature of the prior over passages: p(passage | question) = softmax(inner product / passage_temperature)",
    )
    prior: Literal["dense", "score"] = Field(
        "dense",
        description="what the prior over passages is made from: dense: inner products of question and passage; score: the scores that "
        "ranked the passages, such as those of retrieve.mode=hybrid, divided by passage_temperature alike (0.03 fits hybrid scores)",
    )
    batch_size: int = Field(8, ge=1, description="questions answered at the same time")


class EvaluateConfig(Section):
    """How a system is measured."""

    num_workers: int = Field(2, ge=1, le=MAX_ACTORS, description="actors that answer questions")
    cpus_per_worker: float = Field(1, ge=LEAST_CPUS, le=1024, description="CPUs per actor, and its number of threads")
    gpus_per_worker: Gpus = Field(0, description="GPUs per actor; 0: none is reserved")
    recall_at: tuple[PositiveInt, ...] = Field((1, 5, 20), description="ranks at which recall is reported")
    metric: str = Field(
        "auto",
        pattern="^(auto|squad|cmrc|mlqa(-(ar|de|en|es|hi|vi|zh))?)$",
        description="metric of answers: squad, cmrc, mlqa or mlqa-LANGUAGE; auto chooses by the script of each reference: cmrc where "
        "it writes no spaces, squad for Latin, else mlqa",
    )
    metrics: tuple[MeasureName, ...] = Field(
        (),
        description="measures beside exact match, F1, accuracy and those of retrieval, as a list or separated by commas: "
        f"{', '.join(get_args(MeasureName))}; BLEU, chrF and ROUGE need ragray[metrics]",
    )
    entailment: str = Field(
        "lexical",
        description="what decides for citation_recall and citation_precision whether passages support a sentence: lexical (shared "
        "words, a hint only), or a model for natural language inference: local folder or hub id",
    )
    shots: int = Field(
        0,
        ge=0,
        le=64,
        description="solved examples of evaluate.exemplars in every prompt, the same for all; never the question itself",
    )
    exemplars: str = Field(
        "", description="file, folder, glob or URI of the examples that evaluate.shots shows, such as those of training"
    )
    limit: int = Field(0, ge=0, description="examples used at most, spread evenly over the file; 0: all")

    @field_validator("metrics", mode="before")
    @classmethod
    def _separated(cls, names: Any) -> Any:
        """Take names that are separated by commas."""
        return [name.strip() for name in names.split(",") if name.strip()] if isinstance(names, str) else names


class ServeConfig(Section):
    """How a run is served."""

    host: str = Field("127.0.0.1", description="address that the HTTP proxy listens on")
    port: int = Field(8000, ge=1, le=65535, description="port that the HTTP proxy listens on")
    follow_index: bool = Field(
        True,
        description="serve what `ragray index promote`, `rollback` and `sync` make current: it is opened beside the served snapshot, "
        "checked, and switched to between requests",
    )
    retriever: Literal["deployment", "gateway"] = Field(
        "deployment",
        description="where passages are looked up: in processes of their own, which can be many, or in that of the Gateway, which "
        "saves a hop of some 10 ms and a process",
    )
    question_engine: Literal["auto", "torch", "openvino"] = Field(
        "auto",
        description="library that encodes questions; auto: openvino where it is installed and they are encoded on a CPU, else torch",
    )
    gateway_replicas: int = Field(
        1,
        ge=1,
        le=MAX_ACTORS,
        description="copies of the Gateway; each counts the limits of keys on its own",
    )
    retriever_max_replicas: int = Field(
        0,
        ge=0,
        le=MAX_ACTORS,
        description="copies of the Retriever under load at most; it begins with retrieve.num_replicas; 0: always as many",
    )
    generator_replicas: int = Field(
        1, ge=0, le=MAX_ACTORS, description="copies of the Generator at least; 0: none runs until it is asked"
    )
    generator_max_replicas: int = Field(
        0, ge=0, le=MAX_ACTORS, description="copies of the Generator under load at most; 0: always generator_replicas"
    )
    upscale_delay_s: float = Field(
        5, ge=0, le=MAX_WAIT_S, description="seconds that the load must ask for more copies before one is started"
    )
    downscale_delay_s: float = Field(
        120, ge=0, le=MAX_WAIT_S, description="seconds that the load must ask for fewer copies before one is ended"
    )
    retriever_gpus: Gpus = Field(
        0, description="GPUs per Retriever, for the question encoder and the reranker; 0: they run on the CPU"
    )
    generator_gpus: Gpus = Field(0, description="GPUs per Generator; 0: it runs on the CPU")
    max_queued_requests: int = Field(
        64, ge=1, description="requests that may wait per deployment; further ones are answered with status 429"
    )
    request_timeout_s: float = Field(
        60,
        gt=0,
        description="seconds that a request may take; one that would not be answered by then, as things are, is refused with status 429",
    )
    degraded_k: int = Field(
        0,
        ge=0,
        le=1000,
        description="passages per answer at most, and no reranking, while answers take more than 0.4 of request_timeout_s; the header "
        "x-ragray-degraded says so; 0: never",
    )
    drain_timeout_s: float = Field(
        30, ge=0, description="seconds that a service which is told to stop waits for the answers in flight"
    )
    max_question_chars: int = Field(4000, ge=1, description="characters per question; a longer one is refused")
    max_body_bytes: int = Field(
        1 << 20, ge=1, description="bytes per request body; a larger one is refused with status 413"
    )
    cors_origins: tuple[str, ...] = Field(
        (), description="origins (https://app.example) whose web pages may use the service; `*`: all; empty: none"
    )

    keys_file: str = Field(
        "",
        description="file of `ragray keys`: only requests with one of its keys are answered; empty: everybody's are",
    )
    insecure: bool = Field(
        False, description="let the service listen where other machines reach it although it has no keys_file"
    )
    access_log: str = Field(
        "", description="file to which a line of JSON is appended for each request, or stderr; empty: none"
    )
    log_questions: bool = Field(
        False, description="write the texts of questions and queries into the access log; otherwise it holds none"
    )

    @model_validator(mode="after")
    def _can_place(self) -> ServeConfig:
        if not self.generator_replicas and not self.generator_max_replicas:
            raise ValueError("generator_replicas=0 lets none run at all; set generator_max_replicas to 1 or more, too")
        if self.retriever == "gateway" and self.retriever_max_replicas:
            raise ValueError("retriever_max_replicas has no effect with retriever=gateway; choose retriever=deployment")
        return self

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"'{origin}' is not an origin, expected scheme://host or scheme://host:port without a path"
                )
        return origins

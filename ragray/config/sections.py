"""Everything that can be set, a section a stage: frozen models that refuse what they do not know."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from ragray.config.codec import Codec

MAX_SEED = 2**31 - 2
"""numpy, torch and FAISS all take a seed from 0 to here, and the one after it."""

MAX_ACTORS = 10_000
MAX_THREADS = 1024
MAX_WAIT_S = 7 * 86_400
LEAST_CPUS = 1e-4
"""Ray counts CPUs and GPUs in steps of this size."""


def _gpus(number: float) -> float:
    """Refuse what Ray cannot reserve: several GPUs are given whole."""
    if number > 1 and number != int(number):
        raise ValueError("more than one GPU is given in whole numbers")
    if 0 < number < LEAST_CPUS:
        raise ValueError(f"the least share of a GPU is {LEAST_CPUS:g}; 0 is none")
    return number


Gpus = Annotated[float, Field(ge=0, le=64), AfterValidator(_gpus)]

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s,]+")
"""What a browser sends as Origin: no path, no slash at the end."""


class Section(BaseModel):
    """Base of every section: frozen, and a key that it does not know is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _can_be_encoded(cls, value: Any) -> Any:
        """Refuse a lone surrogate, as an argument that is not UTF-8 and a YAML escape give it."""
        texts = (value,) if isinstance(value, str) else value if isinstance(value, tuple) else ()
        try:
            "".join(text for text in texts if isinstance(text, str)).encode()
        except UnicodeEncodeError as err:
            raise ValueError(f"character {err.start + 1} cannot be written as UTF-8; mend or remove it") from err
        return value


class IngestConfig(Section):
    """How sources become passages."""

    id_field: str = Field(
        "id", description="field of a record that holds the document id; records without it get one from their content"
    )
    text_field: str = Field("text", description="field of a record that holds the text")
    title_field: str = Field("title", description="field of a record that holds the title, if it has one")
    max_tokens: int = Field(200, ge=8, description="tokens of the encoder that a passage may have, its title included")
    overlap_tokens: int = Field(
        32, ge=0, description="tokens that two neighbouring passages of a document share at most"
    )
    encoding: Codec = Field("auto", description="of text without byte order mark; auto: UTF-8, else what is detected")
    min_chars: int = Field(20, ge=0, description="shorter passages go to quarantine; one CJK character counts as three")
    max_chars: int = Field(10_000_000, ge=1, description="longer documents go to quarantine")
    max_symbol_ratio: float = Field(
        1,
        gt=0,
        le=1,
        description="share of a document's visible characters that may be neither letters nor digits; 1: any",
    )
    languages: tuple[str, ...] = Field(
        (), description="ISO 639-1 codes; documents in another language go to quarantine; empty: any language"
    )
    deduplicate: bool = Field(
        True, description="passages with the same text (case and white space aside) are kept once"
    )
    near_duplicates: float = Field(
        0,
        ge=0,
        le=1,
        description="passages whose word 3-grams overlap by this share (Jaccard, MinHash) are kept once; 0: off",
    )
    max_damaged: int = Field(
        0, ge=0, description="unreadable records that `ragray ingest` accepts; with more it exits with an error"
    )
    shard_rows: int = Field(50_000, ge=1, description="passages a Parquet shard")
    num_workers: int = Field(2, ge=1, le=MAX_ACTORS, description="source files read at a time")

    @model_validator(mode="after")
    def _overlap_is_smaller(self) -> IngestConfig:
        if self.overlap_tokens * 2 > self.max_tokens:
            raise ValueError(
                f"overlap_tokens={self.overlap_tokens} must be at most half of max_tokens={self.max_tokens}"
            )
        return self


class EncoderConfig(Section):
    """A text encoder: what decides which vector a text gets."""

    model: str = Field(
        "all-minilm-l6-v2", description="local folder, packaged name or hub id; `hash:64` is a fake of 64 dimensions"
    )
    pooling: Literal["auto", "mean", "cls"] = Field(
        "auto", description="auto reads the model's own pooling file, else mean"
    )
    normalize: bool = Field(True, description="scale vectors to length one, so that inner product is cosine")
    max_length: int = Field(256, ge=8, description="tokens; longer texts are cut")
    passage_prefix: str = Field("", description="put before every passage (E5 models: 'passage: ')")
    question_prefix: str = Field("", description="put before every question (E5 models: 'query: ')")


class EmbedConfig(EncoderConfig):
    """How passages become vectors."""

    batch_tokens: int = Field(1024, ge=64, description="padded tokens a batch; batches are sorted by length")
    block_rows: int = Field(
        256, ge=1, description="passages a block: the unit of work, and what a crash can cost an actor"
    )
    num_workers: int = Field(2, ge=1, le=MAX_ACTORS, description="encoder actors")
    cpus_per_worker: float = Field(1, ge=LEAST_CPUS, le=1024, description="CPUs, and threads, of an encoder actor")
    gpus_per_worker: Gpus = Field(
        0,
        description="GPUs of an encoder actor; 0 reserves none: on a node that has some, all actors share the first",
    )
    engine: Literal["torch", "openvino"] = Field(
        "torch", description="what runs the encoder over passages; openvino needs the extra `openvino`"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of the arithmetic: auto is bfloat16 on a GPU that has it, else float32"
    )
    max_crashes: int = Field(
        2, ge=1, description="actors that a block may kill before its passages are tried one at a time"
    )


IndexType = Literal["flat", "ivf", "ivf_sq", "ivf_pq", "ivf_rabitq", "hnsw"]


class IndexConfig(Section):
    """How vectors become an index."""

    type: Literal["auto"] | IndexType = Field(
        "auto", description="auto: exact search up to exact_up_to_rows, else what the budgets below allow"
    )
    exact_up_to_rows: int = Field(50_000, ge=1, description="largest segment that `auto` searches exactly")
    memory_gib: float = Field(
        0, ge=0, description="memory that the searched vectors of all segments may take; 0: no limit"
    )
    p95_ms: float = Field(
        0, ge=0, description="95th percentile of a search, its segments spread over as many threads; 0: no limit"
    )
    min_recall: float = Field(
        0.95, ge=0, le=1, description="recall@10 that search is tuned to reach; below it nothing is published"
    )
    nlist: int = Field(0, ge=0, description="IVF lists; 0 chooses from the number of rows")
    nprobe: int = Field(0, ge=0, description="IVF lists searched; 0: tuned with passages of the index as queries")
    over_retrieve: int = Field(
        0, ge=0, description="candidates re-scored from the fp16 vectors for every result; 0: tuned"
    )
    segment_rows: int = Field(1_000_000, ge=1, description="rows of a segment, the unit of building and of sharding")
    train_rows: int = Field(200_000, ge=1, description="sample that the IVF quantizer is trained on")
    lexical: Literal["none", "plain", "english"] = Field(
        "english", description="BM25 beside the vectors: english leaves stop words out and stems, plain does neither"
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="seed of the sample and of k-means")


class RetrieveConfig(Section):
    """How passages are looked up."""

    k: int = Field(3, ge=1, le=1000, description="passages a question")
    num_shards: int = Field(1, ge=1, le=MAX_ACTORS, description="parts that a retriever pool spreads the segments over")
    num_replicas: int = Field(1, ge=1, le=MAX_ACTORS, description="copies of every shard")
    cpus_per_actor: float = Field(0.5, ge=0, le=1024, description="CPUs that a retriever actor reserves")
    threads: int = Field(1, ge=1, le=MAX_THREADS, description="search threads of a retriever")
    mode: Literal["dense", "lexical", "hybrid"] = Field(
        "dense", description="by vectors, by BM25, or by both, joined by reciprocal-rank fusion"
    )
    where: str = Field("", description="only passages whose metadata match, for instance: lang == en and year >= 2020")
    candidates: int = Field(
        100, ge=1, description="passages that each of the two modes gives to the fusion, and fusion to the reranker"
    )
    rrf_k: int = Field(60, ge=1, description="constant of reciprocal-rank fusion: 1 / (rrf_k + rank)")
    rerank_model: str = Field(
        "", description="cross-encoder that orders the candidates anew: local folder or hub id; empty: none"
    )


class GenerateConfig(Section):
    """How an answer is written from a question and its passages."""

    model: str = Field("smollm2-135m-instruct", description="local folder, packaged name or hub id")
    instruction: str = Field("Answer with a few words.", description="system message of the prompt")
    marginalize: Literal["sequence", "token"] = Field(
        "sequence", description="RAG-Sequence or RAG-Token (Lewis et al. 2020)"
    )
    max_prompt_tokens: int = Field(
        512, ge=32, description="longer passages are cut at their end; the question never is"
    )
    max_new_tokens: int = Field(32, ge=1, description="length of an answer at most")
    temperature: float = Field(
        0.05, gt=0, description="of the passage scores: p(passage) = softmax(score / temperature)"
    )
    batch_size: int = Field(8, ge=1, description="questions answered together")


class TrainConfig(Section):
    """How question encoder and generator are fine-tuned."""

    epochs: float = Field(1.0, gt=0, description="passes over the examples; a fraction is fine")
    max_steps: int = Field(0, ge=0, description="stop after this many optimizer steps; 0: epochs decide")
    batch_size: int = Field(4, ge=1, description="examples a worker and micro-batch")
    gradient_accumulation: int = Field(1, ge=1, description="micro-batches an optimizer step")
    k: int = Field(2, ge=1, le=1000, description="passages an example is marginalised over")
    generator_lr: float = Field(1e-4, ge=0, description="peak learning rate of the generator; 0 freezes it")
    encoder_lr: float = Field(1e-5, ge=0, description="peak learning rate of the question encoder; 0 freezes it")
    warmup_ratio: float = Field(
        0.1, ge=0, le=1, description="share of the steps over which the rate rises; then it falls linearly"
    )
    weight_decay: float = Field(0.01, ge=0, description="AdamW; not on biases and norms")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this length")
    tune: Literal["full", "last", "lora"] = Field(
        "full", description="which generator weights: all, the last layers, or low-rank adapters"
    )
    last_layers: int = Field(6, ge=1, description="layers trained with tune=last")
    lora_rank: int = Field(8, ge=1, description="rank with tune=lora")
    temperature: float = Field(
        0.05, gt=0, description="of the passage scores, in training and in the answers of this run"
    )
    max_answer_tokens: int = Field(
        32, ge=2, description="tokens of an answer, its end token included; longer ones are cut, and teach no end"
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="order of the examples, dropout, initial adapters")
    logging_steps: int = Field(5, ge=1, description="steps between two lines of metrics")
    checkpoint_steps: int = Field(50, ge=1, description="steps between two checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="checkpoints kept")
    max_failures: int = Field(3, ge=0, description="worker deaths survived before the run gives up")
    num_workers: int = Field(1, ge=1, le=MAX_ACTORS, description="data-parallel workers")
    cpus_per_worker: float = Field(1, ge=LEAST_CPUS, le=1024, description="CPUs of a worker")
    gpus_per_worker: Gpus = Field(0, description="GPUs of a worker")
    threads_per_worker: int = Field(
        0, ge=0, le=MAX_THREADS, description="torch threads of a worker; 0 shares the machine's cores evenly"
    )


class ExamplesConfig(Section):
    """Which fields of a record hold an example; what is empty goes by the names of the common formats."""

    id_field: str = Field("", description="field that holds the id; empty: id, _id, qid, question_id or query_id")
    question_field: str = Field("", description="field that holds the question; empty: question, query or (KILT) input")
    answers_field: str = Field(
        "",
        description="field that holds the accepted answers: a text, a number, a list, or an object of SQuAD, TriviaQA or KILT; "
        "empty: answers, answer, golden_answers or (KILT) output",
    )
    gold_field: str = Field(
        "", description="field that holds the ids of passages or documents with the answer; empty: gold_ids or gold_id"
    )


class EvaluateConfig(Section):
    """How a system is measured."""

    num_workers: int = Field(2, ge=1, le=MAX_ACTORS, description="actors that answer questions")
    cpus_per_worker: float = Field(1, ge=LEAST_CPUS, le=1024, description="CPUs, and threads, of an actor")
    gpus_per_worker: Gpus = Field(0, description="GPUs of an actor")
    recall_at: tuple[PositiveInt, ...] = Field((1, 5, 20), description="ranks at which recall is reported")
    limit: int = Field(0, ge=0, description="use only this many examples, spread evenly over the file; 0: all")


class ServeConfig(Section):
    """How a run is served."""

    host: str = Field("127.0.0.1", description="address that the HTTP proxy listens on")
    port: int = Field(8000, ge=1, le=65535, description="port that the HTTP proxy listens on")
    retriever_replicas: int = Field(1, ge=1, le=MAX_ACTORS, description="copies of the Retriever deployment")
    generator_replicas: int = Field(1, ge=1, le=MAX_ACTORS, description="copies of the Generator deployment")
    max_queued_requests: int = Field(64, ge=1, description="waiting requests, past which callers get 429")
    request_timeout_s: float = Field(60, gt=0, description="longest time a request may take")
    drain_timeout_s: float = Field(
        30, ge=0, description="longest time that a service which is told to stop waits for the answers it is writing"
    )
    max_question_chars: int = Field(4000, ge=1, description="longer questions are refused")
    max_body_bytes: int = Field(1 << 20, ge=1, description="larger bodies of requests are refused with 413")
    cors_origins: tuple[str, ...] = Field(
        (), description="origins (https://app.example) whose web pages may use the service; `*`: all; empty: none"
    )

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"'{origin}' is no origin, expected scheme://host or scheme://host:port without a path"
                )
        return origins


class ClusterConfig(Section):
    """The Ray cluster that a stage runs on."""

    wait_s: float = Field(
        900,
        ge=0,
        le=MAX_WAIT_S,
        description="longest wait for CPUs and GPUs that other jobs hold, or that an autoscaling cluster has yet to start",
    )


class Config(Section):
    """Everything that can be set, a section a stage."""

    ingest: IngestConfig = IngestConfig()
    embed: EmbedConfig = EmbedConfig()
    index: IndexConfig = IndexConfig()
    retrieve: RetrieveConfig = RetrieveConfig()
    generate: GenerateConfig = GenerateConfig()
    examples: ExamplesConfig = ExamplesConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    serve: ServeConfig = ServeConfig()
    cluster: ClusterConfig = ClusterConfig()

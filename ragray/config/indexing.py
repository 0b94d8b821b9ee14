"""Settings of the stages that make an index: ingest, embed, index. In: values. Out: frozen models with meanings, defaults and limits."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ragray.config.base import LEAST_CPUS, MAX_ACTORS, MAX_SEED, Gpus, Section
from ragray.config.codec import Codec
from ragray.text.analyzer import newest


class IngestConfig(Section):
    """How sources become passages."""

    id_field: str = Field(
        "id",
        description="field of a record that holds the document id; a record without it gets an id made from its content",
    )
    text_field: str = Field("text", description="field of a record that holds the text")
    title_field: str = Field("title", description="field of a record that holds the title, if it has one")
    max_tokens: int = Field(
        200, ge=8, description="tokens per passage at most, counted by the encoder's tokenizer, the title included"
    )
    overlap_tokens: int = Field(
        32, ge=0, description="tokens that two neighbouring passages of a document share at most"
    )
    encoding: Codec = Field(
        "auto",
        description="encoding of text files without byte order mark; auto: UTF-8, else the encoding that is detected",
    )
    min_chars: int = Field(
        20,
        ge=0,
        description="characters of a document's text at least, counted after cleaning and without the title; a Chinese, Japanese "
        "or Korean character counts as three; a shorter document goes to quarantine",
    )
    max_chars: int = Field(
        10_000_000,
        ge=1,
        description="characters of a document's text at most, counted as read and without the title; "
        "a longer document goes to quarantine",
    )
    max_symbol_ratio: float = Field(
        1,
        gt=0,
        le=1,
        description="largest share of a document's visible characters that are neither letters nor digits; "
        "a document above it goes to quarantine; 1: no limit",
    )
    languages: tuple[str, ...] = Field(
        (),
        description="ISO 639-1 codes of the languages to keep; a document in another language goes to quarantine, zh includes Cantonese "
        "and Wu, and very short texts are kept; empty: all",
    )
    deduplicate: bool = Field(
        True,
        description="keep only the first of passages with the same text and metadata, letter case and white space of the text ignored",
    )
    near_duplicates: float = Field(
        0,
        ge=0,
        le=1,
        description="keep only the first of passages whose word 3-grams overlap by this share (Jaccard, estimated by MinHash) "
        "and whose metadata are the same; 0: off",
    )
    duplicates_ignore: tuple[str, ...] = Field(
        (),
        description="metadata fields in which duplicates and near duplicates may differ, such as url; *: all of them",
    )
    max_damaged: int = Field(
        0, ge=0, description="unreadable records that `ragray ingest` accepts; with more it exits with an error"
    )
    shard_rows: int = Field(50_000, ge=1, description="passages per Parquet shard of the corpus")
    num_workers: int = Field(2, ge=1, le=MAX_ACTORS, description="source files read at the same time")

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
        "all-minilm-l6-v2",
        description="encoder: local folder, packaged name or hub id; `hash:64` is a fake without weights, of 64 dimensions",
    )
    question_model: str = Field(
        "",
        description="encoder of the questions where it is not that of the passages, as with DPR: a model whose vectors are compared with "
        "those of embed.model, or a RAG model of transformers; empty: the same",
    )
    pooling: Literal["auto", "mean", "cls", "lasttoken"] = Field(
        "auto",
        description="how token vectors become one vector; auto: as the model's own pooling file says, else mean; DPR has its own",
    )
    normalize: bool = Field(
        True,
        description="scale every vector to length 1, so that the inner product is the cosine similarity; DPR was trained without",
    )
    max_length: int = Field(256, ge=8, description="tokens per text that the encoder reads; a longer text is cut")
    passage_prefix: str = Field(
        "auto",
        description="text put before every passage (E5 models: 'passage: '); auto: as the model's own file of prompts says, else none",
    )
    question_prefix: str = Field(
        "auto",
        description="text put before every question (E5 models: 'query: '); auto: as the model's own file of prompts says, else none",
    )


class EmbedConfig(EncoderConfig):
    """How passages become vectors."""

    batch_tokens: int = Field(
        0,
        ge=0,
        description="padded tokens per batch at most; texts of similar length share a batch; 0: 1024 on a CPU, 16384 on a GPU",
    )
    block_rows: int = Field(
        256, ge=1, description="passages per block, the unit of work; a crash loses at most one block per actor"
    )
    num_workers: int = Field(2, ge=1, le=MAX_ACTORS, description="encoder actors")
    cpus_per_worker: float = Field(
        1, ge=LEAST_CPUS, le=1024, description="CPUs per encoder actor, and its number of threads"
    )
    gpus_per_worker: Gpus = Field(
        0, description="GPUs per encoder actor; a fraction lets several actors share a GPU; 0: they run on the CPU"
    )
    engine: Literal["torch", "openvino"] = Field(
        "torch", description="library that runs the encoder over passages; openvino needs the extra `openvino`"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="number format of the encoder's arithmetic; auto: bfloat16 on a GPU that has it, else float32",
    )
    max_crashes: int = Field(
        2, ge=1, description="actors that may die over the same block before its passages are tried one by one"
    )


IndexType = Literal["flat", "ivf", "ivf_sq", "ivf_pq", "ivf_rabitq", "hnsw"]


class IndexConfig(Section):
    """How vectors become an index."""

    type: Literal["auto"] | IndexType = Field(
        "auto",
        description="kind of FAISS index; auto: exact search up to exact_up_to_rows, above it what memory_gib, p95_ms and min_recall allow",
    )
    exact_up_to_rows: int = Field(50_000, ge=1, description="rows of the largest segment that `auto` searches exactly")
    memory_gib: float = Field(
        0, ge=0, description="memory in GiB that the searched vectors of all segments may take; 0: no limit"
    )
    p95_ms: float = Field(
        0,
        ge=0,
        description="95th percentile of the time per search at most, in milliseconds, with one thread per planned shard; 0: no limit",
    )
    min_recall: float = Field(
        0.95,
        ge=0,
        le=1,
        description="recall@10 against exact search that the search parameters are tuned to reach; an index below it is not published",
    )
    nlist: int = Field(0, ge=0, description="IVF lists per segment; 0: chosen from the number of rows")
    nprobe: int = Field(
        0, ge=0, description="IVF lists searched per query; 0: tuned, with passages of the index as queries"
    )
    over_retrieve: int = Field(
        0, ge=0, description="candidates per requested result that are re-scored with the fp16 vectors; 0: tuned"
    )
    segment_rows: int = Field(
        1_000_000, ge=1, description="rows per segment, the unit of building and of sharding, at most"
    )
    train_rows: int = Field(200_000, ge=1, description="rows sampled to train the IVF quantizer")
    lexical: Literal["none", "plain", "english"] = Field(
        "english",
        description="BM25 index beside the vectors; english: stop words removed and words stemmed, plain: neither, none: no BM25 index",
    )
    fold_traditional: bool = Field(
        False,
        description="BM25 takes traditional Chinese characters for their simplified ones, in passages and queries; needs the extra `zh`",
    )
    chinese_words: bool = Field(
        False,
        description="BM25 compares Chinese words of three characters and more, by a dictionary, beside single characters and pairs; "
        "needs the extra `zh`",
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="random seed of the sample and of k-means")

    @model_validator(mode="after")
    def _options_need_bm25(self) -> IndexConfig:
        for key in ("fold_traditional", "chinese_words"):
            if self.lexical == "none" and getattr(self, key):
                raise ValueError(
                    f"{key}=true has no effect with lexical=none; set lexical=plain or english, or leave it out"
                )
        return self

    @property
    def analyzer(self) -> str:
        """The name of the newest analyzer with these settings, as a snapshot records it."""
        return newest(self.lexical, fold_traditional=self.fold_traditional, chinese_words=self.chinese_words)

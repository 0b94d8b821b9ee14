"""Everything that can be set. In: values, a section per stage. Out: one frozen `Config`."""

from __future__ import annotations

from pydantic import Field

from ragray.config.answering import EvaluateConfig, GenerateConfig, RetrieveConfig, ServeConfig
from ragray.config.base import MAX_WAIT_S, Section
from ragray.config.indexing import EmbedConfig, IndexConfig, IngestConfig
from ragray.config.training import ExamplesConfig, MineConfig, TrainConfig


class ClusterConfig(Section):
    """The Ray cluster that a stage runs on."""

    wait_s: float = Field(
        900,
        ge=0,
        le=MAX_WAIT_S,
        description="seconds to wait for CPUs and GPUs that other jobs hold, or that an autoscaling cluster has yet to start",
    )


class Config(Section):
    """Everything that can be set, a section per stage."""

    ingest: IngestConfig = IngestConfig()
    embed: EmbedConfig = EmbedConfig()
    index: IndexConfig = IndexConfig()
    retrieve: RetrieveConfig = RetrieveConfig()
    generate: GenerateConfig = GenerateConfig()
    examples: ExamplesConfig = ExamplesConfig()
    mine: MineConfig = MineConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    serve: ServeConfig = ServeConfig()
    cluster: ClusterConfig = ClusterConfig()

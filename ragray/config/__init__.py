"""Configuration: one frozen model a stage (`sections`), read from YAML and overrides (`files`)."""

from ragray.config.files import known_keys, load_config, to_yaml
from ragray.config.sections import (
    ClusterConfig,
    Config,
    EmbedConfig,
    EncoderConfig,
    EvaluateConfig,
    ExamplesConfig,
    GenerateConfig,
    IndexConfig,
    IndexType,
    IngestConfig,
    RetrieveConfig,
    Section,
    ServeConfig,
    TrainConfig,
)

__all__ = [
    "ClusterConfig",
    "Config",
    "EmbedConfig",
    "EncoderConfig",
    "EvaluateConfig",
    "ExamplesConfig",
    "GenerateConfig",
    "IndexConfig",
    "IndexType",
    "IngestConfig",
    "RetrieveConfig",
    "Section",
    "ServeConfig",
    "TrainConfig",
    "known_keys",
    "load_config",
    "to_yaml",
]

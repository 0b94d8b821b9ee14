"""Configuration: one frozen model per stage (`sections`), read from YAML and overrides (`files`)."""

from ragray.config.answering import EvaluateConfig, GenerateConfig, RetrieveConfig, ServeConfig
from ragray.config.base import Section
from ragray.config.files import known_keys, load_config, to_yaml
from ragray.config.indexing import EmbedConfig, EncoderConfig, IndexConfig, IndexType, IngestConfig
from ragray.config.renamed import with_present_names
from ragray.config.sections import ClusterConfig, Config
from ragray.config.training import FROM_MINED, ExamplesConfig, MineConfig, TrainConfig

__all__ = [
    "FROM_MINED",
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
    "MineConfig",
    "RetrieveConfig",
    "Section",
    "ServeConfig",
    "TrainConfig",
    "known_keys",
    "load_config",
    "to_yaml",
    "with_present_names",
]

"""What `import ragray` offers, and what it costs."""

import subprocess
import sys

import pytest

import ragray

NAMES = [
    "Answer",
    "Citation",
    "Config",
    "Document",
    "Encoder",
    "Example",
    "Generator",
    "Hit",
    "IndexReader",
    "LocalRetriever",
    "Passage",
    "Pipeline",
    "RagrayError",
    "Retriever",
    "Run",
    "build_index",
    "collect_garbage",
    "compact_index",
    "delete_passages",
    "embed_corpus",
    "evaluate_rag",
    "evaluate_retrieval",
    "export_hf",
    "export_parquet",
    "export_rag",
    "import_embeddings",
    "import_rag",
    "ingest",
    "inspect_index",
    "list_snapshots",
    "load_config",
    "load_encoder",
    "load_generator",
    "load_retriever",
    "mine_negatives",
    "promote",
    "rollback",
    "score",
    "session",
    "sync_index",
    "train_rag",
    "verify_index",
]
HEAVY = {"datasets", "faiss", "fastapi", "numpy", "pyarrow", "pydantic", "ray", "torch", "transformers", "typer"}


def in_a_fresh_interpreter(code: str) -> str:
    """Run code where nothing is imported yet; return what it prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_public_names_are_these() -> None:
    assert ragray.__all__ == ["__version__", *NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_resolves_to_the_thing_of_that_name(name: str) -> None:
    assert getattr(ragray, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error_as_in_any_module() -> None:
    with pytest.raises(AttributeError, match="module 'ragray' has no attribute 'serv'"):
        ragray.serv  # noqa: B018 - the access is what is tested


def test_import_ragray_takes_less_than_a_fifth_of_a_second() -> None:
    code = "from time import perf_counter as now; start = now(); import ragray; print(now() - start)"
    assert min(float(in_a_fresh_interpreter(code)) for _ in range(5)) < 0.2


def test_import_ragray_loads_nothing_heavy() -> None:
    loaded = in_a_fresh_interpreter("import ragray, sys; print(*sys.modules)").split()
    assert "ragray" in loaded
    assert HEAVY.isdisjoint(loaded)


def test_reading_a_configuration_loads_neither_torch_nor_ray_nor_transformers() -> None:
    loaded = in_a_fresh_interpreter("import ragray, sys; ragray.load_config(); print(*sys.modules)").split()
    assert "ragray.config" in loaded
    assert {"torch", "ray", "transformers"}.isdisjoint(loaded)

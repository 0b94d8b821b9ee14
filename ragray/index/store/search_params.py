"""How an index is searched. In: what planning, tuning or a file says. Out: one value, which plans, snapshots and searches share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SearchParams:
    """Parameters of a search in a FAISS index; those that its type does not have are 0."""

    nprobe: int = 0
    """IVF lists that a search looks into."""
    ef_search: int = 0
    """Nodes that a search of an HNSW graph keeps."""
    over_retrieve: int = 2
    """Candidates that are re-scored from the fp16 vectors per result."""

    @property
    def effort(self) -> int:
        """Lists searched, or nodes of a graph kept."""
        return self.nprobe or self.ef_search


KEY = "search_params"
NAMES = tuple(field.name for field in fields(SearchParams))


def lifted(raw: Mapping[str, T]) -> dict[str, T | dict[str, T]]:
    """Gather the parameters, which files hold among their other keys, under the key `search_params`; the inverse of `flattened`."""
    others = {key: value for key, value in raw.items() if key not in NAMES}
    return {**others, KEY: {name: raw[name] for name in NAMES if name in raw}}


def flattened(raw: Mapping[str, T]) -> dict[str, T]:
    """Put the parameters among the other keys, as files hold them."""
    flat: dict[str, T] = {}
    for key, value in raw.items():
        flat.update(value if key == KEY and isinstance(value, dict) else {key: value})
    return flat

"""Cost of an index. In: a type with its parameters. Out: bytes, milliseconds, seconds of building; arithmetic from measured rates.

The rates are those of one core of an AMD EPYC with AVX2 and vectors of 384 dimensions (`tests/bench/ann.py`, README); other
machines differ by a factor, the order of the types does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ragray.config import IndexType
from ragray.index.store.search_params import SearchParams

RESULTS = 10
"""Results of the search whose time is estimated."""

HNSW_LINKS = 32

OVER_RETRIEVE: dict[IndexType, int] = {"flat": 2, "ivf": 2, "hnsw": 2, "ivf_sq": 4, "ivf_rabitq": 10, "ivf_pq": 10}
"""Candidates re-scored for every result, before tuning: the coarser the codes, the more the exact scores must sort out."""

CENTROID_BYTES_PER_MS = 10e6
CODE_BYTES_PER_MS: dict[IndexType, float] = {
    "flat": 5e6,
    "ivf": 5e6,
    "ivf_sq": 2e6,
    "ivf_rabitq": 2e6,
    "ivf_pq": 4e6,
    "hnsw": 1.5e6,
}
RESCORE_MS = 0.0003
SEGMENT_MS = 0.1
P95_OF_MEAN = 1.5
FLOPS = 40e9
KMEANS_ROUNDS = 10
ADD_BYTES_PER_S = 200e6
LINK_S = 1.6e-4
"""Linking a row of 384 dimensions into a graph of 100,000."""


@dataclass(frozen=True, slots=True)
class IndexLayout:
    """A type with its parameters, those that the type does not have 0."""

    type: IndexType
    rows: int
    dim: int
    num_segments: int
    segment_rows: int
    nlist: int
    search_params: SearchParams
    train_rows: int

    @property
    def factory(self) -> str:
        """FAISS factory string of a segment."""
        codes = {"ivf": "Flat", "ivf_sq": "SQ8", "ivf_rabitq": "RaBitQ", "ivf_pq": f"PQ{subquantizers(self.dim)}x4fs"}
        if self.type in codes:
            rotation = f"RR{self.dim}," if self.rotated else ""
            return f"{rotation}IVF{self.nlist},{codes[self.type]}"
        return "Flat" if self.type == "flat" else f"HNSW{HNSW_LINKS}"

    @property
    def rotated(self) -> bool:
        """True for codes of less than one byte per dimension: they lose most where few dimensions hold most of a vector.

        Without a rotation RaBitQ found 0.06 of the ten nearest among 20,000 hashed bags of words, with one 0.96; vectors of a
        trained encoder gained little, and lost nothing.
        """
        return self.type in ("ivf_rabitq", "ivf_pq")


def subquantizers(dim: int) -> int:
    """Return the parts that a product quantizer cuts a vector into: of 8 dimensions, or more where 8 does not divide ``dim``."""
    return max(parts for parts in range(1, max(dim // 8, 1) + 1) if dim % parts == 0)


def code_bytes(type_: IndexType, dim: int) -> int:
    """Return the bytes of a vector's code, its graph links included."""
    if type_ == "ivf_sq":
        return dim
    if type_ == "ivf_rabitq":
        return -(-dim // 8) + 8
    if type_ == "ivf_pq":
        return -(-subquantizers(dim) // 2)
    return 4 * dim + (8 * HNSW_LINKS + 16 if type_ == "hnsw" else 0)


def memory_bytes(layout: IndexLayout) -> int:
    """Return the bytes that FAISS keeps for all segments: codes, ids, centroids."""
    each = code_bytes(layout.type, layout.dim)
    if not layout.nlist:
        return layout.rows * each
    padding = 16 * each if layout.type == "ivf_pq" else 0  # fast scan keeps lists in blocks of 32 codes
    lists = layout.nlist * (4 * layout.dim + 16 + padding)
    rotation = 4 * layout.dim**2 if layout.rotated else 0
    return layout.rows * (each + 8) + layout.num_segments * (lists + rotation)


def fits(layout: IndexLayout, memory_gib: float) -> bool:
    """Return whether a layout keeps to a memory; 0 is no limit."""
    return not memory_gib or memory_bytes(layout) <= memory_gib * 2**30


def p95_ms(layout: IndexLayout, num_shards: int) -> float:
    """Estimate the 95th percentile of one search on one thread that has its share of the segments, everything in memory."""
    return -(-layout.num_segments // num_shards) * _segment_ms(layout)


def shards(layout: IndexLayout, limit_ms: float) -> int:
    """Return over how many threads the segments must be spread to search them within a limit (0: none); 0 where none suffice."""
    if not limit_ms:
        return 1
    at_a_time = int(limit_ms / _segment_ms(layout))
    return -(-layout.num_segments // at_a_time) if at_a_time else 0


def _segment_ms(layout: IndexLayout) -> float:
    codes = layout.segment_rows * code_bytes(layout.type, layout.dim)
    coarse = (layout.nlist + layout.rotated * layout.dim) * layout.dim * 4 / CENTROID_BYTES_PER_MS
    if layout.type == "hnsw":
        scanned = layout.search_params.ef_search * HNSW_LINKS * 4.0 * layout.dim
    else:
        scanned = codes * (layout.search_params.nprobe / layout.nlist if layout.nlist else 1)
    rescored = layout.search_params.over_retrieve * RESULTS * (RESCORE_MS + 2 * layout.dim / CODE_BYTES_PER_MS["flat"])
    return P95_OF_MEAN * (SEGMENT_MS + coarse + scanned / CODE_BYTES_PER_MS[layout.type] + rescored)


def build_seconds(layout: IndexLayout) -> float:
    """Estimate the seconds of one core: k-means, the list of every row, codes, writing (texts and BM25 not counted)."""
    total = layout.rows * (2 * layout.dim + code_bytes(layout.type, layout.dim)) / ADD_BYTES_PER_S
    if layout.type == "hnsw":
        return total + layout.rows * LINK_S * layout.dim / 384 * math.log2(max(layout.segment_rows, 2)) / 17
    compared = (min(layout.train_rows, 256 * layout.nlist) * KMEANS_ROUNDS + layout.rows) * layout.nlist
    encoded = layout.rows * 16 if layout.type == "ivf_pq" else 0
    return total + (compared + encoded) * 2 * layout.dim / FLOPS

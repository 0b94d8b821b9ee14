"""How hybrid search joins dense and lexical search over one corpus. In: what `ragray index tune` found. Out: one value in a snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Annotated

from pydantic import Field


@dataclass(frozen=True, slots=True)
class FusionParams:
    """Values of `retrieve` that were chosen for a corpus, under the names that they have there; None: nothing was chosen."""

    dense_weight: Annotated[float, Field(ge=0, le=1)] | None = None
    """Weight of the dense scores in the convex combination."""
    candidates: Annotated[int, Field(ge=1)] | None = None
    """Passages that dense and lexical search each give to the convex combination."""
    k: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Passages per question."""

    def chosen(self) -> Iterator[tuple[str, float | int]]:
        """Yield name and value of what was chosen."""
        for field in fields(self):
            if (value := getattr(self, field.name)) is not None:
                yield field.name, value

    def __str__(self) -> str:
        """Return what was chosen as `dense_weight 0.3, candidates 50`."""
        return ", ".join(f"{name} {value:g}" for name, value in self.chosen())

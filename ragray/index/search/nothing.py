"""Searches that find nothing. In: an open snapshot, a query, the settings. Out: a sentence that says why."""

from __future__ import annotations

from ragray.config import RetrieveConfig
from ragray.index.search.bm25 import LexicalIndex
from ragray.index.search.reader import IndexReader
from ragray.text.analyzer import terms

SHOWN = 8
"""Terms of a query that the sentence names."""


def why_nothing(reader: IndexReader, query: str, settings: RetrieveConfig) -> str:
    """Return why a search for ``query`` with these settings finds no passage of a snapshot."""
    snapshot, where = reader.snapshot, settings.where
    if not snapshot.num_live:
        return f"nothing found: every passage of index snapshot {snapshot.name} is deleted"
    if where and not any(allowed_N.any() for allowed_N in reader.allowed(where)):
        return f"nothing found: the filter `{where}` matches none of {snapshot.num_live:,} passages"
    if settings.mode != "lexical":
        return "nothing found"
    wanted = list(dict.fromkeys(terms(query, snapshot.lexical)))
    if not wanted:
        return "nothing found: the query has no word to look for, marks and stop words aside"
    if not LexicalIndex.open(reader.index, snapshot).known(query):
        shown = ", ".join(wanted[:SHOWN]) + (", ..." if len(wanted) > SHOWN else "")
        return f"nothing found: no term of the query occurs in the index ({shown})"
    return f"nothing found: the filter `{where}` hides all passages that hold a term of the query"

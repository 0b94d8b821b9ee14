"""The kinds of artefact. In: a folder. Out: which kind lies in it, and the command that makes one."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

MANIFEST_NAME = "manifest.json"
CURRENT = "CURRENT"
"""File of an index that names its current snapshot: an index has no manifest, its snapshots are (`ragray.index.store.snapshot`)."""

PRODUCED_BY = {
    "corpus": "ragray ingest SOURCE... --out {folder}",
    "embeddings": "ragray embed CORPUS --out {folder}",
    "index": "ragray index build EMBEDDINGS --corpus CORPUS --out {folder}",
    "run": "ragray train --index INDEX --examples FILE --out {folder}",
    "triples": "ragray mine --index INDEX --examples FILE --out {folder}",
    "report": "ragray evaluate --index INDEX --examples FILE --out {folder}",
}


def kind_in(folder: Path) -> str:
    """Return the kind of the artefact that lies in a folder, "" where there is none that is finished."""
    if (folder / CURRENT).is_file():
        return "index"
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        return str(json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))["kind"])
    return ""


def how_to_make(kind: str, folder: Path) -> str:
    """Return the advice to make an artefact of a kind in a folder."""
    return "run: " + PRODUCED_BY[kind].format(folder=folder) if kind in PRODUCED_BY else f"make it as {kind} first"

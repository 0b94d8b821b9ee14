"""Training data of retrievers on disk. In: mined questions. Out: JSON lines, a triple each, and back.

A line holds ``id`` (of the question), ``question``, ``positive``, ``positive_id``, ``positive_score``, ``gold_ids`` (passages that
answer the question) and, unless it was mined without negatives, ``negative``, ``negative_id``, ``negative_score``; with a reranker also
``score``, its margin between the two. Scores are inner products. The columns ``question``, ``positive``, ``negative`` (and ``score``),
in this order, are what sentence-transformers' MultipleNegativesRankingLoss (and MarginMSELoss) take. A question's lines stand together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from ragray.artifact.files import atomic_path
from ragray.artifact.manifest import open_artifact
from ragray.errors import InputError, first_line
from ragray.jsontext import to_json

KIND = "triples"
TRIPLES_FILE = "triples.jsonl"


class Triple(BaseModel):
    """A line. Texts are what the encoder reads: the title, a line break, the text."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    question: str
    positive: str
    negative: str | None = None
    score: FiniteFloat | None = None
    positive_id: str
    negative_id: str | None = None
    positive_score: FiniteFloat
    negative_score: FiniteFloat | None = None
    gold_ids: tuple[str, ...] = ()


def write_triples(path: Path, triples: Iterable[Triple]) -> None:
    """Write triples, all or none; what a triple does not have is left out of its line."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for triple in triples:
            file.write(to_json(triple.model_dump(mode="json", exclude_none=True), str(path)) + "\n")


def triples_file(path: Path) -> Path:
    """Return the file of a folder that `ragray mine` wrote, or the file itself.

    Raises:
        NotAnArtifactError, CorruptArtifactError: the folder is not whole.
    """
    if not path.is_dir():
        return path
    open_artifact(path, KIND)
    return path / TRIPLES_FILE


def read_triples(path: Path) -> list[list[Triple]]:
    """Read the triples of each question.

    Raises:
        InputError: a line is wrong (names file, line and field), a question's lines stand apart, or there is none.
    """
    found = [list(triples) for _, triples in groupby(_lines(path), key=lambda triple: triple.id)]
    if not found:
        raise InputError(f"{path}: holds no triples; run: ragray mine")
    seen: set[str] = set()
    for [first, *_] in found:
        if first.id in seen:
            raise InputError(f"{path}: the lines of question '{first.id}' do not stand together; sort the file by id")
        seen.add(first.id)
    return found


def _lines(path: Path) -> Iterator[Triple]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                yield _triple(line, f"{path}:{number}")
    except OSError as err:
        raise InputError(f"{path}: cannot be read ({err.strerror or err}); name what ragray mine wrote") from err
    except UnicodeDecodeError as err:
        raise InputError(f"{path}: is not UTF-8 at byte {err.start}; convert the file") from err


def _triple(line: str, where: str) -> Triple:
    try:
        return Triple.model_validate_json(line)
    except ValidationError as err:
        [first, *_] = err.errors()
        field = ".".join(map(str, first["loc"]))
        found = f"field '{field}': {first['msg']}" if field else first_line(ValueError(first["msg"]))
        raise InputError(f"{where}: {found}; write the file with ragray mine") from err

"""Two files with a line for each example, as the RAG fine-tuning of `transformers` reads them. In: `train.source`. Out: raw records.

Line n of `train.source` is a question, line n of `train.target` beside it the answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

from ragray.corpus.read.source import Source, is_uri, local_path
from ragray.errors import InputError

QUESTIONS, ANSWERS = ".source", ".target"


def is_parallel(given: str) -> bool:
    """Return whether a path names one of the two files."""
    return given.endswith((QUESTIONS, ANSWERS))


def parallel_rows(given: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield question and answer of every line, each with its place.

    Raises:
        InputError: one of the files is missing, is not UTF-8, or has fewer lines than the other.
    """
    stem = given.removesuffix(QUESTIONS).removesuffix(ANSWERS)
    questions, answers = (_source(f"{stem}{ending}") for ending in (QUESTIONS, ANSWERS))
    for number, (question, answer) in enumerate(zip_longest(_lines(questions), _lines(answers)), start=1):
        if question is None or answer is None:
            shorter, longer = (questions, answers) if question is None else (answers, questions)
            raise InputError(
                f"{shorter.label}: ends before line {number}, which {longer.label} has; a question and its answer stand in lines of "
                "the same number: mend the shorter file"
            )
        yield f"{questions.label}:{number}", {"question": question, "answers": answer}


def _source(location: str) -> Source:
    path = location if is_uri(location) else str(local_path(location).absolute())
    source = Source(path, path.rpartition("/")[2])
    if not source.exists():
        raise InputError(
            f"{source.label}: no such file; questions ({QUESTIONS}) and answers ({ANSWERS}) lie side by side"
        )
    return source


def _lines(source: Source) -> Iterator[str]:
    with source.open() as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as err:
                raise InputError(
                    f"{source.label}:{number}: is not UTF-8 at byte {err.start}; convert the file"
                ) from err

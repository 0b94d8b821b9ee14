"""Reading pages. In: a file that is one document: text, markdown, HTML, PDF. Out: its text with headings set apart, or a refusal."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ragray.config import IngestConfig
from ragray.corpus.read.record import Record, Refusal, line_limit, refusal, storable, too_long
from ragray.corpus.read.source import Source
from ragray.errors import MissingPackageError
from ragray.types import Document

if TYPE_CHECKING:
    from pypdf import PdfReader

NO_TEXT = "empty: no text in it"
BLOCKS = frozenset(("p", "item", "row", "cell", "lb", "quote", "code", "head", "list", "table"))
"""Elements of a page that trafilatura has cleaned before which a word ends."""
_ATX_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*)")
_UNDERLINE = re.compile(r" {0,3}(={3,}|-{3,})[ \t]*$")
_FENCE = re.compile(r"(`{3,}(?!.*`)|~{3,})")


def read_text(source: Source, config: IngestConfig) -> Iterator[Record | Refusal]:
    """Read text or markdown, whose first heading is the title."""
    if source.num_bytes() > line_limit(config.max_chars):
        yield refusal(source, 1, too_long(config.max_chars), "", document_id=storable(source.name))
        return
    with source.open() as stream:
        data = stream.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        number = data.count(b"\n", 0, err.start) + 1
        line = data.split(b"\n")[number - 1].decode("utf-8", "replace")
        yield refusal(source, number, "not valid UTF-8", line, document_id=storable(source.name))
        return
    title = ""
    if source.format == ".md":
        text, title = _set_headings_apart(text)
    yield Record(1, Document(storable(source.name), text, title))


def _set_headings_apart(markdown: str) -> tuple[str, str]:
    """Put blank lines around headings, underlined ones written with `#`; return the text, and the first heading's."""
    lines: list[str] = []
    title, fence, behind = "", "", False
    for line in markdown.splitlines():
        fence = _fence_behind(line.strip(), fence)
        underline = None if fence or not _is_alone(lines) else _UNDERLINE.match(line)
        if underline:
            line = f"{'#' if underline[1][0] == '=' else '##'} {lines.pop().strip()}"
        heading = None if fence else _ATX_HEADING.match(line)
        if lines and lines[-1].strip() and line.strip() and (behind or heading):
            lines.append("")
        lines.append(line)
        behind = heading is not None
        if heading and not title:
            title = heading[2].strip().rstrip("#").rstrip()
    return "\n".join(lines) + ("\n" if markdown.endswith("\n") else ""), title


def _fence_behind(line: str, fence: str) -> str:
    """Return the fence of the code that is open behind a line: only its own character, as often at least, closes it."""
    if fence:
        return "" if line.startswith(fence) and not line.strip(fence[0]) else fence
    match = _FENCE.match(line)
    return match[1] if match else ""


def _is_alone(lines: list[str]) -> bool:
    """Return whether the last line is a paragraph of its own, and none that could mean something else."""
    return bool(lines) and lines[-1][:1].isalnum() and (len(lines) == 1 or not lines[-2].strip())


def read_html(source: Source, config: IngestConfig) -> Iterator[Record | Refusal]:
    """Read the main text of a web page, without navigation and advertisements, and its title.

    Raises:
        MissingPackageError: trafilatura is not installed.
    """
    try:
        from trafilatura import bare_extraction
    except ImportError as err:
        raise MissingPackageError(
            f"{source.label}: reading HTML needs trafilatura; run: pip install trafilatura"
        ) from err
    identity = storable(source.name)
    if source.num_bytes() > line_limit(config.max_chars):
        yield refusal(source, 1, too_long(config.max_chars), "", document_id=identity)
        return
    with source.open() as stream:
        data = stream.read()
    _quieten("trafilatura", "htmldate", "justext")
    try:
        page = bare_extraction(data, with_metadata=True, include_comments=False) if data.strip() else None
        body = getattr(page, "body", None)
        text = "" if body is None else "\n\n".join(filter(None, map(_block_text, body)))
    except Exception as err:  # as of a damaged PDF
        yield refusal(source, 1, "not a readable page", repr(err), document_id=identity)
        return
    if not text:
        yield refusal(source, 1, NO_TEXT, data[:1000].decode("utf-8", "replace"), document_id=identity)
    else:
        yield Record(1, Document(identity, text, getattr(page, "title", None) or ""))


def _block_text(block: Any) -> str:
    """Write an element of the page's body as one paragraph, a heading as markdown does."""
    text = " ".join("".join(_pieces(block)).split())
    level = str(block.get("rend") or "")[1:]
    return f"{'#' * int(level if level.isdigit() else 2)} {text}" if block.tag == "head" and text else text


def _pieces(element: Any) -> Iterator[str]:
    space = " " if element.tag in BLOCKS else ""
    yield space + (element.text or "")
    for child in element:
        yield from _pieces(child)
        yield child.tail or ""
    yield space


def read_pdf(source: Source, config: IngestConfig) -> Iterator[Record | Refusal]:
    """Read the text of a PDF's pages, a blank line between two; a page that cannot be read is refused by its number.

    Raises:
        MissingPackageError: pypdf is not installed.
    """
    try:
        import pypdf
    except ImportError as err:
        raise MissingPackageError(f"{source.label}: reading PDF needs pypdf; run: pip install pypdf") from err
    _quieten("pypdf")
    identity = storable(source.name)
    with source.open() as stream:
        try:
            reader = pypdf.PdfReader(stream)
            num_pages, title = len(reader.pages), _pdf_title(reader)
        except pypdf.errors.FileNotDecryptedError as err:
            yield refusal(source, 1, "encrypted PDF", str(err), document_id=identity)
            return
        except Exception as err:  # damaged files raise whatever their bytes lead to
            yield refusal(source, 1, "not a readable PDF", repr(err), document_id=identity)
            return
        yield from _pdf_pages(source, reader, num_pages, title, config)


def _pdf_pages(
    source: Source, reader: PdfReader, num_pages: int, title: str, config: IngestConfig
) -> Iterator[Record | Refusal]:
    identity = storable(source.name)
    texts: list[str] = []
    for number in range(num_pages):
        try:
            text = reader.pages[number].extract_text().strip()
        except Exception as err:  # as above
            yield refusal(source, number + 1, "not a readable page of a PDF", repr(err), document_id=identity)
            continue
        texts.append(text)
        if sum(map(len, texts)) > config.max_chars:
            yield refusal(source, 1, too_long(config.max_chars), texts[0], document_id=identity)
            return
    joined = "\n\n".join(filter(None, texts))
    yield (
        Record(1, Document(identity, joined, title))
        if joined
        else refusal(source, 1, NO_TEXT, "", document_id=identity)
    )


def _pdf_title(reader: PdfReader) -> str:
    title = reader.metadata.title if reader.metadata else None
    return title if isinstance(title, str) else ""


def _quieten(*names: str) -> None:
    """Silence a library's log: what it says of a damaged page goes to the quarantine."""
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)

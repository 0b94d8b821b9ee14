"""Reading pages. In: a file that is one document: text, markdown, HTML, PDF. Out: its text with headings set apart, or a refusal."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ragray.config import IngestConfig
from ragray.corpus.read.encoding import Encoding, declared_encoding, encoding_of, not_valid
from ragray.corpus.read.markup import mark_code, page_text
from ragray.corpus.read.record import Record, Refusal, line_limit, refusal, storable, too_long
from ragray.corpus.read.source import Source
from ragray.errors import MissingPackageError
from ragray.text.blocks import closes_fence, opens_fence
from ragray.types import Document

if TYPE_CHECKING:
    from pypdf import PdfReader

NO_TEXT = "empty: no text in it"
_XML_DECLARATION = re.compile(r"^\s*<\?xml[^>]*>\s*")
LIGATURES = {0xFB00 + number: letters for number, letters in enumerate(("ff", "fi", "fl", "ffi", "ffl", "st", "st"))}
"""Glyphs that a PDF shows for letters: of a file in another format they are the author's."""
_ATX_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*)")
_UNDERLINE = re.compile(r" {0,3}(={3,}|-{3,})[ \t]*$")


def read_text(source: Source, config: IngestConfig) -> Iterator[Record | Refusal]:
    """Read text or markdown, whose first heading is the title."""
    if source.num_bytes() > line_limit(config.max_chars):
        yield refusal(source, 1, too_long(config.max_chars), "", document_id=storable(source.name))
        return
    with source.open() as stream:
        data = stream.read()
    encoding = encoding_of(data, config.encoding, label=source.label, is_whole=True)
    try:
        text = data.decode(encoding.codec)
    except UnicodeDecodeError as err:
        yield _not_decoded(source, data, encoding, err)
        return
    title = ""
    if source.format == ".md":
        text, title = _set_headings_apart(text)
    yield Record(1, Document(storable(source.name), text, title))


def _not_decoded(source: Source, data: bytes, encoding: Encoding, err: UnicodeDecodeError) -> Refusal:
    """Refuse a file with the line of its first byte that is none of the encoding; the excerpt names the byte."""
    number = data.count(b"\n", 0, err.start) + 1
    line = data.split(b"\n")[number - 1].decode(encoding.codec, "replace")
    raw = f"byte {err.start} is 0x{data[err.start]:02x}: {line}"
    return refusal(source, number, not_valid(encoding), raw, document_id=storable(source.name))


def _set_headings_apart(markdown: str) -> tuple[str, str]:
    """Put blank lines around headings, underlined ones written with `#`; return the text, and the first heading's."""
    lines: list[str] = []
    title, fence, behind = "", "", False
    for line in markdown.splitlines():
        fence = ("" if closes_fence(line, fence) else fence) if fence else opens_fence(line)
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


def _is_alone(lines: list[str]) -> bool:
    """Return whether the last line is a paragraph of its own, and none that could mean something else."""
    return bool(lines) and lines[-1][:1].isalnum() and (len(lines) == 1 or not lines[-2].strip())


def read_html(source: Source, config: IngestConfig) -> Iterator[Record | Refusal]:
    """Read the main text of a web page, without navigation and advertisements, and its title.

    Raises:
        MissingPackageError: trafilatura is not installed.
    """
    try:
        from trafilatura import bare_extraction, load_html
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
    page: Any = None
    try:
        tree = load_html(_decoded(data, source, config)) if data.strip() else None
        if tree is not None:
            mark_code(tree)
            page = bare_extraction(tree, with_metadata=True, include_comments=False)
        body = getattr(page, "body", None)
        text = "" if body is None else page_text(body)
    except Exception as err:  # as of a damaged PDF
        yield refusal(source, 1, "not a readable page", repr(err), document_id=identity)
        return
    if not text:
        yield refusal(source, 1, NO_TEXT, data[:1000].decode("utf-8", "replace"), document_id=identity)
    else:
        yield Record(1, Document(identity, text, getattr(page, "title", None) or ""))


def _decoded(data: bytes, source: Source, config: IngestConfig) -> str | bytes:
    """Decode a page; one that is not in the encoding that it declares is left to trafilatura."""
    encoding = declared_encoding(data, config.encoding, label=source.label)
    try:
        return _XML_DECLARATION.sub("", data.decode(encoding.codec))
    except UnicodeDecodeError:
        return data


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
            text = reader.pages[number].extract_text().translate(LIGATURES).strip()
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

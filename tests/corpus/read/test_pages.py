"""What pages, PDFs and markdown yield, and what is refused with its page."""

import io
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ragray.config import IngestConfig
from ragray.corpus.clean import is_damage
from ragray.corpus.read.documents import read_source
from ragray.corpus.read.find import find_sources
from ragray.corpus.read.record import Record, Refusal
from ragray.errors import MissingPackageError
from ragray.types import Document

PAGE = """<html><head><title>About tides &amp; time</title></head><body>
<nav><a href="/">Home</a><a href="/shop">Shop</a></nav><article><h1>Tides</h1>
<p>The sea rises and falls <b>twice</b> a day, as anyone who lives on a coast will tell you.</p><h2>Why they are</h2>
<p>The moon pulls at the water, and so does the sun, though it pulls with less than half of that strength.</p>
<ul><li>first item of a list</li><li>second item of a list</li></ul></article><footer>Imprint</footer></body></html>"""
TEXT = """# Tides

The sea rises and falls twice a day, as anyone who lives on a coast will tell you.

## Why they are

The moon pulls at the water, and so does the sun, though it pulls with less than half of that strength.

- first item of a list
- second item of a list"""


def read(path: Path, data: str | bytes, **settings: int) -> list[Record | Refusal]:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    config = IngestConfig.model_validate(settings)
    return [item for source in find_sources([str(path)]) for item in read_source(source, config)]


def pdf(pages: Sequence[str]) -> bytes:
    """A PDF whose pages hold one line each; one that is empty shows nothing."""
    first = 4
    kids = " ".join(f"{first + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET"
        resources = "/Resources << /Font << /F1 3 0 R >> >>"
        contents = f"{first + 2 * number + 1} 0 R"
        objects.append(f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] {resources} /Contents {contents} >>")
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    data, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(data))
        data += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    trailer = f"trailer << /Size {size} /Root 1 0 R >>\nstartxref\n{len(data)}\n%%EOF"
    return data + f"xref\n0 {size}\n0000000000 65535 f \n{table}{trailer}".encode()


def encrypted(data: bytes, password: str) -> bytes:
    from pypdf import PdfWriter

    writer, out = PdfWriter(clone_from=io.BytesIO(data)), io.BytesIO()
    writer.encrypt(password, owner_password="owner")
    writer.write(out)
    return out.getvalue()


@pytest.mark.parametrize("name", ["a.html", "b.HTM"])
def test_a_web_page_is_its_main_text_with_headings_and_the_title_of_its_head(tmp_path: Path, name: str) -> None:
    (item,) = read(tmp_path / name, PAGE)
    assert isinstance(item, Record)
    assert (item.line, item.document.id, item.document.text) == (1, name, TEXT)
    assert item.document.title in ("Tides", "About tides & time")


def test_a_web_page_is_read_in_the_character_set_that_it_names(tmp_path: Path) -> None:
    page = PAGE.replace("<head>", '<head><meta charset="iso-8859-1">').replace("coast", "c\u00f4te").encode("latin-1")
    (item,) = read(tmp_path / "a.html", page)
    assert isinstance(item, Record) and "c\u00f4te" in item.document.text


@pytest.mark.parametrize("data", ["", "<html><body></body></html>", b"\xff\xfe\x00\x00\x01", "<!-- only this -->"])
def test_a_page_without_text_is_refused_and_not_called_damaged(tmp_path: Path, data: str | bytes) -> None:
    (item,) = read(tmp_path / "a.html", data)
    assert isinstance(item, Refusal)
    assert (item.line, item.document_id, item.reason) == (1, "a.html", "empty: no text in it")
    assert not is_damage(item.reason)


def test_a_page_at_which_the_parser_fails_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr("trafilatura.bare_extraction", fail)
    (item,) = read(tmp_path / "a.html", PAGE)
    assert isinstance(item, Refusal) and (item.reason, item.excerpt) == (
        "not a readable page",
        "RecursionError('too deep')",
    )
    assert is_damage(item.reason)


def test_the_pages_of_a_pdf_are_one_document(tmp_path: Path) -> None:
    assert read(tmp_path / "a.pdf", pdf(["First page.", "", "Third page."])) == [
        Record(1, Document("a.pdf", "First page.\n\nThird page."))
    ]


def test_a_pdf_that_anyone_may_open_is_read_though_it_is_encrypted(tmp_path: Path) -> None:
    (item,) = read(tmp_path / "a.pdf", encrypted(pdf(["Open to all."]), ""))
    assert isinstance(item, Record) and item.document.text == "Open to all."


def test_an_encrypted_damaged_or_empty_pdf_is_refused_by_name(tmp_path: Path) -> None:
    whole = pdf(["Some text."])
    found = {
        name: read(tmp_path / f"{name}.pdf", data)
        for name, data in {
            "secret": encrypted(whole, "secret"),
            "cut": whole[:300],
            "garbage": b"no PDF at all",
            "nothing": b"",
            "scan": pdf([""]),
            "long": pdf(["x" * 90]),
        }.items()
    }
    assert all(len(items) == 1 for items in found.values())
    refusals = {name: items[0] for name, items in found.items() if isinstance(items[0], Refusal)}
    assert {name: refusal.reason for name, refusal in refusals.items()} == {
        "secret": "encrypted PDF",
        "cut": "not a readable PDF",
        "garbage": "not a readable PDF",
        "nothing": "not a readable PDF",
        "scan": "empty: no text in it",
    }
    assert refusals["cut"].source == str(tmp_path / "cut.pdf")
    (long,) = read(tmp_path / "long.pdf", pdf(["x" * 90]), max_chars=50)
    assert isinstance(long, Refusal) and long.reason == "longer than max_chars=50"


def test_a_page_that_cannot_be_read_is_refused_by_its_number_and_the_others_stay(tmp_path: Path) -> None:
    data = pdf(["First page.", "Second page.", "Third page."])
    broken = data.replace(b"(Second page.) Tj ET\nendstream", b"(Second page.) Tj ET\nxxxxxxxxx")
    record, *others = sorted(read(tmp_path / "a.pdf", broken), key=lambda item: isinstance(item, Refusal))
    assert isinstance(record, Record) and record.document.text == "First page.\n\nThird page."
    assert [(other.line, other.reason) for other in others if isinstance(other, Refusal)] == [
        (2, "not a readable page of a PDF")
    ]


@pytest.mark.parametrize(("module", "name"), [("pypdf", "a.pdf"), ("trafilatura", "a.html")])
def test_a_missing_package_is_named_with_its_pip_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackageError, match=f"{name}: .* run: pip install {module}$"):
        read(tmp_path / name, "x")


def test_headings_of_markdown_are_set_apart_and_underlined_ones_are_written_with_hashes(tmp_path: Path) -> None:
    text = "The head\n=====\nfirst\n## Second\nmore\n\nThird one\n---\nlast\n\n---\n\n| a |\n---\n```\n# code\n```\n"
    expected = (
        "# The head\n\nfirst\n\n## Second\n\nmore\n\n## Third one\n\nlast\n\n---\n\n| a |\n---\n```\n# code\n```\n"
    )
    assert read(tmp_path / "a.md", text) == [Record(1, Document("a.md", expected, "The head"))]

"""Files that are not UTF-8: what is read as what, and what is refused with the option that helps."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from ragray.config import IngestConfig
from ragray.corpus.read.documents import read_source
from ragray.corpus.read.find import find_sources
from ragray.corpus.read.record import Record, Refusal
from ragray.corpus.staging import WHOLE_FILE, staged_items
from ragray.corpus.tokens import WordTokenizer

CHINESE = "码头通知：所有船只请在今天中午以前停靠北岸，装卸工作顺延一天，由此带来的不便敬请谅解。"
TEXTS = [
    ("gb18030", CHINESE),
    ("gbk", CHINESE),
    ("big5", "碼頭通知：所有船隻請在今天中午以前停靠北岸，裝卸工作順延一天，造成不便敬請見諒。"),
    ("shift_jis", "お知らせ：船はすべて今日の正午までに北岸に停泊してください。荷役は一日延期となります。"),
    ("cp949", "알림: 모든 배는 오늘 정오까지 북쪽 부두에 정박해야 하며 하역은 하루 연기됩니다."),
    ("cp1251", "Объявление: все суда должны до полудня встать у северного берега, погрузка отложена на день."),
    ("cp874", "ประกาศ ขอให้เรือทุกลำจอดที่ฝั่งเหนือก่อนเที่ยงวันนี้ และเลื่อนการขนถ่ายออกไปหนึ่งวัน"),
    ("cp1256", "إعلان: يجب على جميع السفن أن ترسو على الضفة الشمالية قبل ظهر اليوم ويؤجل التفريغ يوما واحدا"),
    (
        "cp1252",
        "Mitteilung: Alle Schiffe müssen bis heute Mittag am nördlichen Ufer anlegen, das Löschen verzögert sich für alle.",
    ),
]


def read(path: Path, **settings: object) -> list[Record | Refusal]:
    config = IngestConfig.model_validate(settings)
    return [item for source in find_sources([str(path)]) for item in read_source(source, config)]


def texts(items: Sequence[Record | Refusal]) -> list[str]:
    return [item.document.text for item in items if isinstance(item, Record)]


@pytest.mark.parametrize(("encoding", "text"), TEXTS)
def test_what_is_detected_with_confidence_is_read_and_noted(
    tmp_path: Path, encoding: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(encoding))
    with caplog.at_level(logging.WARNING, "ragray"):
        assert texts(read(path)) == [text]
    assert str(path) in caplog.text and "ingest.encoding" in caplog.text


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize(("encoding", "text"), TEXTS[:5])
@pytest.mark.parametrize("shift", range(4))
def test_a_long_file_is_detected_wherever_the_sample_cuts_it(
    tmp_path: Path, encoding: str, text: str, end: str, shift: int
) -> None:
    """The sample ends within a character of two or four bytes for some shifts."""
    content = "x" * shift + (text + end) * 3000
    (tmp_path / "a.txt").write_bytes(content.encode(encoding))
    [found] = texts(read(tmp_path / "a.txt"))
    assert found.replace("\n", "") == content.replace("\n", "")


def test_a_text_that_two_encodings_read_alike_well_is_refused(tmp_path: Path) -> None:
    text = "Le café est fermé, la rivière est très longue et très belle.\n" * 30
    (tmp_path / "a.txt").write_bytes(text.encode("latin-1"))
    (item,) = read(tmp_path / "a.txt")
    assert isinstance(item, Refusal) and "ingest.encoding=NAME" in item.reason
    [found] = texts(read(tmp_path / "a.txt", encoding="latin-1"))
    assert found.startswith("Le café est fermé, la rivière")


@pytest.mark.parametrize(("encoding", "text"), TEXTS)
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.json"])
def test_an_encoding_that_is_named_is_read_in_every_format(tmp_path: Path, encoding: str, text: str, name: str) -> None:
    content = {
        "a.txt": text,
        "a.jsonl": f'{{"text": "{text}"}}',
        "a.csv": f'text\n"{text}"\n',
        "a.json": f'[{{"text": "{text}"}}]',
    }
    (tmp_path / name).write_bytes(content[name].encode(encoding))
    assert texts(read(tmp_path / name, encoding=encoding)) == [text]


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("wanted", ["auto", "gb18030"])
def test_a_byte_order_mark_is_honoured_whatever_is_asked_for(tmp_path: Path, mark: str, wanted: str) -> None:
    (tmp_path / "a.txt").write_bytes(CHINESE.encode(mark))
    (tmp_path / "b.tsv").write_bytes(f"id\ttext\r\n1\t{CHINESE}\r\n".encode(mark))
    (tmp_path / "c.jsonl").write_bytes(f'{{"text": "{CHINESE}"}}\n'.encode(mark))
    assert texts(read(tmp_path, encoding=wanted)) == [CHINESE] * 3


def test_a_page_is_read_as_it_declares(tmp_path: Path) -> None:
    for name in ("gb2312", "shift_jis"):
        text = CHINESE if name == "gb2312" else TEXTS[3][1]
        page = f"<html><head><meta charset='{name}'><title>T</title></head><body><article><p>{text}</p></article></body></html>"
        (tmp_path / f"{name}.html").write_bytes(page.encode(name))
        (item,) = read(tmp_path / f"{name}.html")
        assert isinstance(item, Record) and text in item.document.text


def test_what_cannot_be_told_is_refused_with_file_byte_and_option(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"The caf\xe9 is open.")
    (item,) = read(tmp_path / "a.txt")
    assert isinstance(item, Refusal)
    assert item.source == str(tmp_path / "a.txt")
    assert "ingest.encoding=NAME" in item.reason and "byte 7 is 0xe9" in item.excerpt
    assert texts(read(tmp_path / "a.txt", encoding="latin-1")) == ["The café is open."]


def test_a_file_that_cannot_be_read_is_one_refusal_among_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,body\n1,b\n", encoding="utf-8")
    (tmp_path / "b.jsonl.gz").write_bytes(b"no gzip")
    (tmp_path / "c.txt").write_text(CHINESE, encoding="utf-8")
    items = [
        item
        for source in find_sources([str(tmp_path)])
        for item in staged_items(source, WordTokenizer(), IngestConfig())
    ]
    refused = [item for item in items if isinstance(item, Refusal)]
    assert [item.line for item in refused] == [WHOLE_FILE] * 2 and len(items) == 3
    assert "ingest.text_field=COLUMN" in refused[0].reason and "cannot be read as jsonl.gz" in refused[1].reason

"""Ingest from files to a corpus folder: formats, resume, reuse, duplicates, quarantine, bytes."""

import gzip
import json
import logging
import shutil
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ragray.artifact.lock import exclusive
from ragray.config import Config, load_config
from ragray.corpus.read.byte_ranges import cut_source
from ragray.corpus.read.find import find_sources
from ragray.corpus.read.record import Refusal
from ragray.corpus.staging import InputSplit, Stager, plan_splits, staged, staged_refusals, staged_tables
from ragray.corpus.table import Corpus
from ragray.corpus.tokens import load_tokenizer
from ragray.errors import ArtifactBusyError, CorruptArtifactError, InputError, NotAnArtifactError
from ragray.stages import ingest as module
from ragray.stages.ingest import STAGING_FOLDER, IngestReport
from tests.executors import INLINE, UNUSED

ingest = partial(module.ingest, executor=INLINE)

SENTENCE = "Passage number {} says something that no other one says."


def config(*overrides: str) -> Config:
    return load_config(None, ["embed.model=hash:16", "ingest.max_tokens=20", "ingest.overlap_tokens=4", *overrides])


def write_jsonl(path: Path, records: list[dict[str, object] | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def numbered(first: int, count: int) -> list[dict[str, object] | str]:
    return [{"id": f"d{n}", "text": SENTENCE.format(n)} for n in range(first, first + count)]


def quarantine(out: Path) -> list[Refusal]:
    return [Refusal(**json.loads(line)) for line in (out / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()]


def texts(out: Path) -> dict[str, str]:
    return {passage.id: passage.text for passage in Corpus.open(out).iter_passages()}


def splits_of(source: Path, settings: Config) -> list[InputSplit]:
    found, checksums = zip(*(part for found in find_sources([str(source)]) for part in cut_source(found)), strict=True)
    return plan_splits(found, checksums, settings.ingest, load_tokenizer(settings.embed).identity)


def test_every_format_becomes_passages_in_the_order_of_the_sources(tmp_path: Path) -> None:
    source = tmp_path / "in"
    write_jsonl(source / "a.jsonl", [{"id": "a", "title": "A", "text": SENTENCE.format("a"), "year": 1999}])
    (source / "b.jsonl.gz").write_bytes(gzip.compress(json.dumps({"id": "b", "text": SENTENCE.format("b")}).encode()))
    (source / "c.csv").write_text(f"id,text\nc,{SENTENCE.format('c')}\n", encoding="utf-8")
    (source / "d.csv.gz").write_bytes(gzip.compress(f"id,text\nd,{SENTENCE.format('d')}\n".encode()))
    pq.write_table(pa.table({"id": ["e"], "text": [SENTENCE.format("e")]}), source / "e.parquet")
    (source / "f.txt").write_text(" ".join(SENTENCE.format(f"f{n}") for n in range(4)), encoding="utf-8")
    (source / "g.md").write_text(f"# Head\n\n{SENTENCE.format('g')}", encoding="utf-8")

    report = ingest([str(source)], tmp_path / "out", config())

    passages = list(Corpus.open(tmp_path / "out").iter_passages())
    assert [p.document_id for p in passages] == ["a", "b", "c", "d", "e", *["f.txt"] * 2, "g.md"]
    assert (report.documents, report.passages, report.refused, report.reused) == (7, 8, {}, False)
    assert (passages[0].title, passages[0].metadata) == ("A", {"year": "1999"})
    assert passages[-1].title == "Head"
    assert all(passage.id.startswith("f.txt#") for passage in passages[5:7])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".lock",
        "manifest.json",
        "passages",
        "quarantine.jsonl",
    ]


def test_what_is_refused_stands_in_the_quarantine_with_file_line_and_reason(tmp_path: Path) -> None:
    records: list[dict[str, object] | str] = [
        {"id": "good", "text": SENTENCE.format(1)},
        "{broken",
        {"id": "short", "text": "Too short."},
        {"id": "again", "text": SENTENCE.format(1).upper()},
        {"id": "good", "text": SENTENCE.format(2)},
        {"id": "good", "text": " ".join(SENTENCE.format(n) for n in range(3, 6))},
    ]
    path = write_jsonl(tmp_path / "a.jsonl", records)
    report = ingest([str(path)], tmp_path / "out", config())

    assert texts(tmp_path / "out") == {"good": SENTENCE.format(1)}
    assert report.refused == {
        "not valid JSON": 1,
        "shorter than min_chars=20": 1,
        "duplicate content": 1,
        "duplicate id": 3,
    }
    assert quarantine(tmp_path / "out")[:4] == [
        Refusal(str(path), 2, "", "not valid JSON", "{broken"),
        Refusal(str(path), 3, "short", "shorter than min_chars=20", "Too short."),
        Refusal(str(path), 4, "again", "duplicate content", SENTENCE.format(1).upper()),
        Refusal(str(path), 5, "good", "duplicate id", SENTENCE.format(2)),
    ]
    assert [refusal.line for refusal in quarantine(tmp_path / "out")[4:]] == [6, 6]
    assert Corpus.open(tmp_path / "out").manifest.facts["refused"] == report.refused


def test_duplicates_across_files_are_kept_once_the_first_one_wins_and_all_stay_if_wanted(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": "first", "text": SENTENCE.format(1)}])
    write_jsonl(tmp_path / "in" / "b.jsonl", [{"id": "second", "text": SENTENCE.format(1)}])
    ingest([str(tmp_path / "in")], tmp_path / "out", config())
    assert list(texts(tmp_path / "out")) == ["first"]
    ingest([str(tmp_path / "in")], tmp_path / "out", config("ingest.deduplicate=false"))
    assert list(texts(tmp_path / "out")) == ["first", "second"]


TWICE: list[dict[str, object] | str] = [
    {"id": "north", "text": SENTENCE.format(1), "amt": "Bauamt", "thema": ["Straße", "Brücke"]},
    {"id": "south", "text": SENTENCE.format(1), "amt": "Ordnungsamt", "thema": ["Straße"]},
    {"id": "again", "text": SENTENCE.format(1), "thema": ["Brücke", "Straße"], "amt": "Bauamt"},
]


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ([], ["north", "south"]),
        (["ingest.duplicates_ignore=[amt, thema]"], ["north"]),
        (["ingest.duplicates_ignore=['*']"], ["north"]),
        (["ingest.near_duplicates=0.9"], ["north", "south"]),
        (["ingest.deduplicate=false"], ["north", "south", "again"]),
    ],
)
def test_a_text_with_other_metadata_is_kept_for_both_owners(
    tmp_path: Path, settings: list[str], kept: list[str]
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", TWICE)
    ingest([str(source)], tmp_path / "out", config(*settings))
    assert list(texts(tmp_path / "out")) == kept


def test_what_cannot_be_metadata_is_reported_by_field(tmp_path: Path) -> None:
    records: list[dict[str, object] | str] = [
        {"id": f"d{n}", "text": SENTENCE.format(n), "ベクトル": [0.5] * 200, "タグ": ["秘密", "人事"]} for n in range(3)
    ]
    source = write_jsonl(tmp_path / "in.jsonl", records)
    report = ingest([str(source)], tmp_path / "out", config())
    assert report.unkept == {"'ベクトル' (more than 100 values)": 3}
    assert report.unkept_fields == "'ベクトル' (more than 100 values) of 3 records"
    assert ingest([str(source)], tmp_path / "out", config()).unkept == report.unkept
    assert [p.metadata for p in Corpus.open(tmp_path / "out").iter_passages()] == [{"タグ": ("秘密", "人事")}] * 3


def test_two_files_of_one_name_in_two_folders_are_two_documents(tmp_path: Path) -> None:
    for folder in ("berlin", "bonn"):
        (tmp_path / folder / "2024").mkdir(parents=True)
        (tmp_path / folder / "2024" / "notiz.txt").write_text(SENTENCE.format(folder), encoding="utf-8")
    ingest([str(tmp_path / "berlin"), str(tmp_path / "bonn")], tmp_path / "out", config())
    assert texts(tmp_path / "out") == {
        "2024/notiz.txt": SENTENCE.format("berlin"), "bonn/2024/notiz.txt": SENTENCE.format("bonn")
    }  # fmt: skip


def test_documents_on_one_line_are_told_apart_within_a_file_and_across_files(tmp_path: Path) -> None:
    for number, ids in enumerate(["aab", "acd"]):
        records = [{"id": one, "text": SENTENCE.format(f"{number}{place}")} for place, one in enumerate(ids)]
        (tmp_path / f"{number}.json").write_text(json.dumps(records), encoding="utf-8")
    long = " ".join(SENTENCE.format(f"long{n}") for n in range(6))
    squad = {"data": [{"title": title, "paragraphs": [{"context": f"{long} {title}"}]} for title in "XY"]}
    (tmp_path / "2.json").write_text(json.dumps(squad), encoding="utf-8")
    report = ingest([str(tmp_path / "*.json")], tmp_path / "out", config("ingest.deduplicate=false"))
    found = [passage.document_id for passage in Corpus.open(tmp_path / "out").iter_passages()]
    assert found == ["a", "b", "c", "d", *["X-0"] * 6, *["Y-0"] * 6]
    assert (report.documents, report.refused) == (6, {"duplicate id": 2})


def test_a_second_run_has_nothing_to_do(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [*numbered(0, 3), "{broken"])
    first = ingest([str(tmp_path / "a.jsonl")], tmp_path / "out", config())
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    second = ingest([str(tmp_path / "a.jsonl")], tmp_path / "out", config("ingest.num_workers=1"), executor=UNUSED)
    where = f"{tmp_path / 'a.jsonl'}:4: not valid JSON"
    assert second == IngestReport(3, 3, first.refused, second.seconds, True, damaged=1, first_damaged=where, unkept={})
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before


def test_a_touched_file_is_reused_and_a_changed_one_is_read_again(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", numbered(0, 3))
    ingest([str(path)], tmp_path / "out", config())
    path.touch()
    assert ingest([str(path)], tmp_path / "out", config()).reused
    write_jsonl(path, numbered(1, 2))
    assert not ingest([str(path)], tmp_path / "out", config()).reused
    assert list(texts(tmp_path / "out")) == ["d1", "d2"]


def test_nothing_of_the_old_corpus_survives_a_new_one(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", numbered(0, 9))
    ingest([str(path)], tmp_path / "out", config("ingest.shard_rows=2"))
    assert len(Corpus.open(tmp_path / "out").shards) == 5
    ingest([str(path)], tmp_path / "out", config("ingest.shard_rows=5"))
    assert [item.name for item in sorted((tmp_path / "out" / "passages").iterdir())] == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]
    assert len(texts(tmp_path / "out")) == 9


def test_a_run_killed_between_files_is_resumed_where_it_stood(tmp_path: Path) -> None:
    source, settings = tmp_path / "in", config()
    write_jsonl(source / "a.jsonl", numbered(0, 3))
    write_jsonl(source / "b.jsonl", numbered(3, 3))
    splits = splits_of(source, settings)
    staging = tmp_path / "out" / STAGING_FOLDER
    stager = Stager(settings, staging)
    stager.stage(splits[0])
    stager.stage(splits[1])
    (staging / splits[1].key / "done.json").unlink()
    (tmp_path / "out" / ".lock").touch()
    for path in (staging / splits[0].key).glob("part-*.parquet"):
        table = pq.read_table(path)
        marked = pa.array([f"{text} (first run)" for text in table["text"].to_pylist()], pa.large_string())
        pq.write_table(table.set_column(table.schema.get_field_index("text"), table.schema.field("text"), marked), path)

    ingest([str(source)], tmp_path / "out", settings)

    found = texts(tmp_path / "out")
    assert [text.endswith("(first run)") for text in found.values()] == [True] * 3 + [False] * 3
    assert not staging.exists()


def test_a_guessed_encoding_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number in range(3):
        text = f"码头通知：所有船只请在今天中午以前停靠北岸，装卸工作顺延{number}天，由此带来的不便敬请谅解。"
        (source / f"{number}.txt").write_bytes(text.encode("gb18030"))
    assert ingest([str(source)], tmp_path / "out", config()).documents == 3
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 2 and told[0].startswith(f"{source / '0.txt'}: is not UTF-8; read as gb18030")
    assert told[1].endswith("(and 2 more like this)")


def test_a_damaged_file_is_left_out_and_named_and_does_not_cost_the_others(tmp_path: Path) -> None:
    source = tmp_path / "in"
    write_jsonl(source / "a.jsonl", numbered(0, 3))
    (source / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x"}')[:-9])
    (source / "c.csv").write_text("id,body\n1,b\n", encoding="utf-8")
    report = ingest([str(source)], tmp_path / "out", config("ingest.num_workers=1"))
    assert len(texts(tmp_path / "out")) == 3
    assert report.damaged == 2
    assert report.first_damaged.startswith(f"{source / 'b.jsonl.gz'}: cannot be read as jsonl.gz (")
    assert any("ingest.text_field=COLUMN" in reason for reason in report.refused)
    with pytest.raises(InputError, match=r"b\.jsonl\.gz: cannot be read as jsonl\.gz"):
        ingest([str(source / "b.jsonl.gz")], tmp_path / "alone", config())


def test_a_file_without_records_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(InputError, match=r"empty\.jsonl: holds no records"):
        ingest([str(tmp_path / "empty.jsonl")], tmp_path / "out", config())
    with pytest.raises(NotAnArtifactError):
        Corpus.open(tmp_path / "out")


def test_a_large_file_of_blank_lines_is_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_text("   \n" * 1000, encoding="utf-8")
    monkeypatch.setattr(module, "cut_source", partial(cut_source, range_bytes=1000))
    with pytest.raises(InputError, match=r"a\.jsonl: holds no records; fill it or leave it out"):
        ingest([str(tmp_path / "a.jsonl")], tmp_path / "out", config())


def test_a_corpus_without_passages_is_an_error_that_says_why(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ["{broken", {"text": "short"}, {"text": "tiny"}])
    with pytest.raises(InputError) as caught:
        ingest([str(path)], tmp_path / "out", config())
    message = str(caught.value)
    assert "3 records were refused (shorter than min_chars=20: 2, not valid JSON: 1)" in message
    assert f"{path}:1" in message


def test_a_file_that_changes_while_it_is_read_is_not_staged(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", numbered(0, 3))
    (split,) = splits_of(path, config())
    write_jsonl(path, numbered(0, 4))
    with pytest.raises(InputError) as caught:
        Stager(config(), tmp_path / "staging").stage(split)
    assert str(caught.value) == f"{path}: changed while it was read; run again once nobody writes to it"
    assert staged(tmp_path / "staging", split) is None


def test_two_writers_of_one_folder_do_not_meet(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", numbered(0, 3))
    with exclusive(tmp_path / "out"), pytest.raises(ArtifactBusyError, match="is writing here"):
        ingest([str(path)], tmp_path / "out", config())
    assert ingest([str(path)], tmp_path / "out", config()).passages == 3


def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    source = tmp_path / "in"
    for number in range(4):
        write_jsonl(source / f"{number}.jsonl", [*numbered(10 * number, 12), "{broken"])
    for workers in (1, 2):
        settings = config(f"ingest.num_workers={workers}", "ingest.shard_rows=16")
        ingest([str(source)], tmp_path / str(workers), settings)
    one, two = (
        {path.relative_to(out): path.read_bytes() for path in out.rglob("*.parquet")}
        | {"quarantine": (out / "quarantine.jsonl").read_bytes()}
        for out in (tmp_path / "1", tmp_path / "2")
    )
    assert one == two
    assert len(one) == 4


def test_small_text_files_are_staged_together_in_order(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number in range(300):
        (source / f"{number:03}.txt").write_text(SENTENCE.format(number), encoding="utf-8")
    (source / "150.txt").write_bytes(b"caf\xe9")
    write_jsonl(source / "zz.jsonl", numbered(1000, 1))
    splits = splits_of(source, config())
    assert [len(split.sources) for split in splits] == [256, 44, 1]
    report = ingest([str(source)], tmp_path / "out", config())
    assert report.passages == 300
    assert list(texts(tmp_path / "out"))[:2] == ["000.txt", "001.txt"]
    assert [(Path(r.source).name, r.line) for r in quarantine(tmp_path / "out")] == [("150.txt", 1)]


def test_a_lot_is_staged_anew_when_its_attempt_was_not_finished(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [*numbered(0, 3), "{broken"])
    (split,) = splits_of(path, config())
    folder = tmp_path / "staging" / split.key
    folder.mkdir(parents=True)
    shutil.copy(path, folder / "part-000007.parquet")
    assert Stager(config(), tmp_path / "staging").stage(split).num_passages == 3
    assert len(list(folder.glob("part-*.parquet"))) == 1
    assert [refusal.line for refusal in staged_refusals(tmp_path / "staging", split)] == [4]


@pytest.mark.parametrize("name", ["done.json", "part-000000.parquet", "refused.jsonl"])
@pytest.mark.parametrize("num_bytes", [None, 0, 30])
def test_a_lot_whose_staging_is_damaged_is_as_if_it_had_never_been_staged(
    tmp_path: Path, name: str, num_bytes: int | None
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [*numbered(0, 3), "{broken"])
    (split,) = splits_of(path, config())
    done = Stager(config(), tmp_path / "staging").stage(split)
    assert staged(tmp_path / "staging", split) == done
    damaged = tmp_path / "staging" / split.key / name
    data = damaged.read_bytes()
    damaged.unlink()
    if num_bytes is not None:
        damaged.write_bytes(data[:num_bytes])
    assert staged(tmp_path / "staging", split) is None


def test_damaged_pages_of_a_staged_part_say_what_to_remove(tmp_path: Path) -> None:
    (split,) = splits_of(write_jsonl(tmp_path / "a.jsonl", numbered(0, 3)), config())
    Stager(config(), tmp_path).stage(split)
    (part,) = (tmp_path / split.key).glob("part-*.parquet")
    data = part.read_bytes()
    part.write_bytes(data[:4] + b"\xff" * 50 + data[54:])
    with pytest.raises(CorruptArtifactError, match=rf"{part}: cannot be read .*; remove {part.parent} and run again"):
        list(staged_tables(tmp_path, split))


def test_the_newer_formats_the_filters_and_the_parts_of_a_large_file_meet_in_one_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in"
    records = [*numbered(0, 30), "{broken", *numbered(100, 30)]
    large = write_jsonl(source / "a.jsonl", records)
    near = "The tide comes in twice a day on this coast and goes out again as often as it came to us"
    (source / "b.tsv").write_text(f'id\ttext\ttitle\nb\t"{near}"\tB\nc\t"{near} here"\tC\n', encoding="utf-8")
    german = "Der Mond zieht das Wasser an, und auch die Sonne tut es, nur schw\u00e4cher."
    write_jsonl(
        source / "c.jsonl", [{"id": "de", "contents": german}, {"id": "sym", "text": "|-|-|-|-|-|-|-|-|-|-|-|-|"}]
    )
    (source / "d.pdf").write_bytes(b"%PDF-1.4 no more")
    (source / "e.html").write_text(f"<article><h1>Head</h1><p>{SENTENCE.format('e')}</p></article>", encoding="utf-8")
    settings = config(
        "ingest.max_tokens=40",
        "ingest.languages=[en]",
        "ingest.max_symbol_ratio=0.5",
        "ingest.near_duplicates=0.8",
        "ingest.max_damaged=2",
    )
    monkeypatch.setattr(module, "cut_source", partial(cut_source, range_bytes=1000))

    report = ingest([f"file://{source}"], tmp_path / "out", settings)

    corpus = Corpus.open(tmp_path / "out")
    assert report.refused == {
        "not valid JSON": 1,
        "near duplicate": 1,
        "language de": 1,
        "symbols over max_symbol_ratio=0.5": 1,
        "not a readable PDF": 1,
    }
    assert (report.damaged, report.first_damaged) == (2, f"{large}:31: not valid JSON")
    assert [(Path(one.source).name, one.line, one.document_id) for one in quarantine(tmp_path / "out")] == [
        ("a.jsonl", 31, ""),
        ("b.tsv", 3, "c"),
        ("c.jsonl", 1, "de"),
        ("c.jsonl", 2, "sym"),
        ("d.pdf", 1, "d.pdf"),
    ]
    assert quarantine(tmp_path / "out")[1].excerpt.startswith("near b: The tide")
    ids = [passage.id for passage in corpus.iter_passages()]
    assert ids == [*(f"d{n}" for n in (*range(30), *range(100, 130))), "b", "e.html"]
    assert ingest([str(source)], tmp_path / "out", settings).reused

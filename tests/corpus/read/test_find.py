"""Which files a source stands for: files, folders, globs, URIs, saved datasets."""

import contextlib
import functools
import json
import os
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from ragray.config import IngestConfig
from ragray.corpus.read.documents import read_source
from ragray.corpus.read.find import find_sources
from ragray.corpus.read.record import Record
from ragray.corpus.read.source import Source
from ragray.errors import InputError, MissingPackageError


def written(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """A filesystem in memory with three files and one that is hidden."""
    filesystem = fsspec.filesystem("memory")
    for name in ("b.jsonl", "sub/a.jsonl.gz", "sub/c.txt", ".hidden/d.txt", "e.docx"):
        filesystem.pipe(f"/corpus/{name}", b'{"text": "one"}')
    yield filesystem
    filesystem.rm("/corpus", recursive=True)


def test_a_folder_stands_for_its_supported_files_sorted_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.md", "a.jsonl", "notes.docx", ".git/c.txt", ".d.txt"):
        written(tmp_path / name, "x")
    assert [source.name for source in find_sources([str(tmp_path)])] == ["a.jsonl", "a/z.md", "b.txt"]


def test_a_file_named_twice_is_read_once_and_the_output_folder_is_passed_over(tmp_path: Path) -> None:
    written(tmp_path / "a.txt", "x")
    written(tmp_path / "out" / "b.txt", "x")
    found = find_sources([str(tmp_path / "a.txt"), str(tmp_path)], exclude=tmp_path / "out")
    assert [source.name for source in found] == ["a.txt"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.jsonl", "no such file"),
        ("missing*.jsonl", "no file of a supported format"),
        ("notes.docx", r"not supported; convert it to one of \.jsonl"),
        ("empty", "no file of a supported format"),
    ],
)
def test_a_source_that_cannot_be_used_is_named_with_what_to_do(tmp_path: Path, source: str, message: str) -> None:
    written(tmp_path / "notes.docx", "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message) as caught:
        find_sources([str(tmp_path / source)])
    assert source in str(caught.value)


def test_no_source_at_all_is_an_error() -> None:
    with pytest.raises(InputError, match="no source"):
        find_sources([])


def test_files_of_json_are_read_by_name_and_by_glob_but_not_by_folder(tmp_path: Path) -> None:
    for name in ("a.json", "b.txt"):
        written(tmp_path / "docs" / name, "[]")
    written(tmp_path / "only" / "a.json", "[]")
    for given, names in {"docs": ["b.txt"], "docs/a.json": ["a.json"], "docs/*": ["a.json", "b.txt"]}.items():
        assert [source.name for source in find_sources([str(tmp_path / given)])] == names
    with pytest.raises(
        InputError, match=r"\.json files are not read by folder; name them, or use the glob .*/\*\.json"
    ):
        find_sources([str(tmp_path / "only")])


def test_a_dataset_that_lacks_a_file_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "data-00000-of-00002.arrow", "x")
    written(tmp_path / "dataset_info.json", "{}")
    names = [{"filename": f"data-0000{n}-of-00002.arrow"} for n in range(2)]
    written(tmp_path / "state.json", json.dumps({"_data_files": names}))
    with pytest.raises(InputError, match=r"state\.json: lists data-00001-of-00002\.arrow, which is not there"):
        find_sources([str(tmp_path)])
    written(tmp_path / "state.json", "{}")
    with pytest.raises(InputError, match=r"state\.json: is no state of a saved dataset"):
        find_sources([str(tmp_path)])


@pytest.mark.parametrize("given", [".", "**", "**/*.txt", "**/**/*.txt", "*/**/*.txt", "a/**"])
def test_links_to_files_are_read_and_those_to_folders_are_not_followed(tmp_path: Path, given: str) -> None:
    file = written(tmp_path / "in" / "a" / "b" / "file.txt", "x")
    other = written(tmp_path / "other" / "far.txt", "x").parent
    (tmp_path / "in" / "a" / "link.txt").symlink_to(file)
    for name in ("one", "two"):
        (tmp_path / "in" / "a" / name).symlink_to(tmp_path / "in")
    (tmp_path / "in" / "a" / "other").symlink_to(other)
    names = [source.name for source in find_sources([str(tmp_path / "in" / given)])]
    above = "" if given == "a/**" else "a/"
    assert names == [f"{above}b/file.txt", f"{above}link.txt"]
    assert [one.name for one in find_sources([str(tmp_path / "in" / "a" / "other" / "**")])] == ["far.txt"]
    assert [one.name for one in find_sources([str(tmp_path / "in" / "a" / "o*" / "far.txt")])] == ["other/far.txt"]


def test_a_glob_matches_as_in_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a1.txt", "a2.txt", "b/a3.txt", "b/c/a4.txt", "b/.d/a5.txt", "[x].txt"):
        written(tmp_path / name, "x")
    for given, names in {
        "a[13].txt": ["a1.txt"],
        "a?.txt": ["a1.txt", "a2.txt"],
        "[[]x].txt": ["[x].txt"],
        "*/*.txt": ["b/a3.txt"],
        "*/c/a4.txt": ["b/c/a4.txt"],
        "**/a*.txt": ["a1.txt", "a2.txt", "b/a3.txt", "b/c/a4.txt"],
        "**/c/**": ["b/c/a4.txt"],
    }.items():
        assert [source.name for source in find_sources([str(tmp_path / given)])] == names
    monkeypatch.chdir(tmp_path)
    assert [source.name for source in find_sources(["*.txt", "b/**"])] == [
        "[x].txt",
        "a1.txt",
        "a2.txt",
        "a3.txt",
        "c/a4.txt",
    ]
    with pytest.raises(InputError, match=r"^missing: cannot be read \(No such file"):
        find_sources(["missing/*.txt"])


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """Be somebody whom permissions bind: root may read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may read, as those of pytest are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("given", ["", "**/*.txt", "*/*.txt"])
def test_a_folder_that_cannot_be_read_is_named(open_folder: Path, given: str) -> None:
    written(open_folder / "a" / "a.txt", "x")
    secret = written(open_folder / "secret" / "b.txt", "x").parent
    secret.chmod(0)
    message = rf"^{secret}: cannot be read \(Permission denied\); check the path and its perm"
    with pytest.raises(InputError, match=message), without_privileges():
        find_sources([str(open_folder / given)])


def test_two_colons_in_a_local_name_mean_nothing(tmp_path: Path) -> None:
    written(tmp_path / "in" / "a::b.txt", "x")
    assert [source.name for source in find_sources([str(tmp_path / "in" / "a::b.txt")])] == ["a::b.txt"]
    assert [source.name for source in find_sources([str(tmp_path / "in")])] == ["a::b.txt"]


def test_a_file_uri_is_the_path_that_it_names(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "x")
    assert find_sources([f"file://{path}"]) == find_sources([str(path)])
    assert find_sources([f"file://{tmp_path}", str(tmp_path / "*.txt")]) == find_sources([str(path)])


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("memory://corpus", ["b.jsonl", "sub/a.jsonl.gz", "sub/c.txt"]),
        ("memory://corpus/", ["b.jsonl", "sub/a.jsonl.gz", "sub/c.txt"]),
        ("memory://corpus/sub/*", ["a.jsonl.gz", "c.txt"]),
        ("memory://corpus/**/*.txt", ["sub/c.txt"]),
        ("memory://corpus/b.jsonl", ["b.jsonl"]),
    ],
)
def test_a_uri_stands_for_a_file_a_folder_or_a_glob(
    memory: fsspec.AbstractFileSystem, given: str, names: list[str]
) -> None:
    found = find_sources([given])
    assert [source.name for source in found] == names
    assert all(source.is_remote and source.exists() and source.num_bytes() == 15 for source in found)


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """The address of a web server that serves ``tmp_path``."""
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_files_of_a_web_server_are_found_and_read(tmp_path: Path, web: str) -> None:
    written(tmp_path / "a.jsonl", '{"text": "one"}\n{"text": "two"}\n')
    written(tmp_path / "sub" / "b.txt", "three")
    for given, names in {"a.jsonl": ["a.jsonl"], "a.jsonl?v=1": ["a.jsonl"], "": ["a.jsonl", "sub/b.txt"]}.items():
        found = find_sources([f"{web}/{given}"])
        assert [source.name.partition("?")[0] for source in found] == names
        items = [item for source in found for item in read_source(source, IngestConfig())]
        texts = [item.document.text for item in items if isinstance(item, Record)]
        assert texts == ["one", "two", "three"][: len(names) + 1]
        assert all(source.checksum(fresh=True) == source.checksum() for source in found)
    with pytest.raises(InputError, match=r"nothing\.jsonl: no such file"):
        find_sources([f"{web}/nothing.jsonl"])


def test_a_file_on_a_filesystem_in_an_archive_is_found_and_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x/a.jsonl", '{"text": "inside"}')
        archive.writestr("x/b.txt", "text")
    for given in ("zip://", "zip://x", "zip://x/*", "zip://*/*"):
        found = find_sources([f"{given}::file://{tmp_path}/a.zip"])
        assert [source.location for source in found] == [
            f"zip://x/{name}::file://{tmp_path}/a.zip" for name in ("a.jsonl", "b.txt")
        ]
        assert [item.document.text for item in read_source(found[0], IngestConfig()) if isinstance(item, Record)] == [
            "inside"
        ]


def test_what_a_filesystem_says_of_a_file_is_its_identity(memory: fsspec.AbstractFileSystem) -> None:
    (source,) = find_sources(["memory://corpus/b.jsonl"])
    before = source.checksum()
    assert source.checksum(fresh=True) == before
    memory.pipe("/corpus/b.jsonl", b'{"text": "two"}')
    assert source.checksum(fresh=True) != before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("memory://nothing", "memory://nothing: no such file or folder"),
        ("memory://corpus/e.docx", "no such file or folder, or no supported format"),
        ("memory://corpus/*.docx", "holds no file of a supported format"),
        ("nosuch://bucket/a.jsonl", "Protocol not known: nosuch; use a path or a URI"),
        ("zip://a.jsonl::file:///no/such.zip", r"such\.zip: cannot be reached \(.*No such file"),
    ],
)
def test_a_uri_that_cannot_be_used_says_why(memory: fsspec.AbstractFileSystem, given: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_sources([given])


def test_a_filesystem_whose_package_is_missing_is_named_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(
        MissingPackageError, match=r"s3:// needs a package that is not installed; run: pip install s3fs$"
    ):
        find_sources(["s3://bucket/a.jsonl"])


class LostNetwork(MemoryFileSystem):
    """A filesystem that lists the files in memory and cannot open them."""

    protocol = "lost"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.replace("lost://", "memory://")))

    def _open(self, *_: object, **__: object) -> None:
        raise KeyError("the network is gone")


def test_an_error_of_a_remote_file_is_told_with_its_name(memory: fsspec.AbstractFileSystem) -> None:
    fsspec.register_implementation("lost", LostNetwork, clobber=True)
    (source,) = find_sources(["lost://corpus/b.jsonl"])
    with pytest.raises(InputError, match=r"lost://corpus/b\.jsonl: cannot be read as jsonl \(.*network is gone"):
        list(read_source(source, IngestConfig()))


def test_labels_tell_no_secrets() -> None:
    assert Source("ftp://me:secret@host/a.jsonl", "a").label == "ftp://host/a.jsonl"
    signed = Source("https://host/a.jsonl.gz?signature=abc", "a")
    assert (signed.label, signed.suffix, signed.format) == ("https://host/a.jsonl.gz", ".jsonl.gz", ".jsonl")

"""Finding sources. In: files, folders, globs and URIs. Out: the files to read, each once, in a fixed order."""

from __future__ import annotations

import fnmatch
import glob
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ragray.corpus.read.source import FORMATS, Source, is_uri, local_path, open_filesystem, reaching
from ragray.errors import InputError

DATASET_FILES = ("state.json", "dataset_info.json", "dataset_dict.json")
"""What `datasets` writes beside the data of a dataset that is saved on disk."""
_SUPPORTED = ", ".join(FORMATS)
_MAGIC = re.compile(r"[*?[]")


def find_sources(sources: Sequence[str], *, exclude: Path | None = None) -> list[Source]:
    """Turn files, folders, globs and URIs into files, in the order given, sorted within a folder or glob, each file once.

    Of two files with the same name below what was given, the later one gets a longer name, with as many of its folders as
    tell them apart.
    In folders and globs hidden files, and those below ``exclude``, are passed over; in folders so are ``.json`` files,
    which may be anything: they are read by name or glob. As in a shell, below a folder and by ``**`` links to files are
    read, links to folders are not followed: name those. Of a saved Hugging Face dataset the files that its ``state.json``
    lists are taken.

    Raises:
        InputError: a source does not exist, is of an unsupported format, holds no supported file, is an incomplete dataset,
            or has a folder that cannot be read.
        MissingPackageError: the package for a URI is not installed.
    """
    if not sources:
        raise InputError(f"no source was given; name files, folders, globs or URIs of {_SUPPORTED}")
    found: dict[str, Source] = {}
    for given in sources:
        for source in _expand_remote(given) if is_uri(given) else _expand(given, exclude):
            found.setdefault(source.location, source)
    return _with_own_names(found.values())


def _with_own_names(sources: Iterable[Source]) -> list[Source]:
    """Give each file a name of its own, which may become the id of its document: of two the later one is named with its folders."""
    named: dict[str, Source] = {}
    for source in sources:
        parts = [part for part in source.label.split("/") if part]
        depth = source.name.count("/") + 1
        name = source.name
        while name in named and depth < len(parts):
            depth += 1
            name = "/".join(parts[-depth:])
        if name in named:
            raise InputError(
                f"{source.label}: has the same name as {named[name].label}, so that ids would clash; rename one of the two"
            )
        named[name] = replace(source, name=name)
    return list(named.values())


def _expand(given: str, exclude: Path | None) -> list[Source]:
    path = local_path(given)
    if path.is_file():
        source = Source(str(path.absolute()), path.name)
        if not source.suffix:
            raise InputError(f"{path}: the format is not supported; convert it to one of {_SUPPORTED}")
        return [source]
    if path.is_dir():
        root, pattern = path, ["**"]
    elif glob.has_magic(given):
        root = _fixed_part(path)
        pattern = list(path.parts[len(root.parts) :])
    else:
        raise InputError(f"{path}: no such file or folder; check the path")
    away = exclude.resolve() if exclude else None
    try:
        sources = [
            Source(str(match.absolute()), match.relative_to(root).as_posix())
            for match in _matches(root, pattern)
            if match.is_file() and not (away and match.resolve().is_relative_to(away))
        ]
    except OSError as err:
        raise InputError(
            f"{err.filename}: cannot be read ({err.strerror}); check the path and its permissions, or leave it out of the sources"
        ) from err
    return _chosen(given, sources, in_folder=path.is_dir())


def _matches(folder: Path, pattern: Sequence[str]) -> Iterator[Path]:
    """Yield what is in a folder and matches a pattern, given part by part, some of it more than once.

    Unlike `glob` it neither follows links to folders in ``**``, which may lead in circles, nor hides what it cannot read.
    """
    part, *rest = pattern
    if part == "**":
        for below, folders, _ in os.walk(folder, onerror=_raise):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from _matches(Path(below), rest or ["*"])
        return
    names: Iterable[str] = [part]
    if glob.has_magic(part):
        names = fnmatch.filter((entry.name for entry in folder.iterdir()), part)
    for name in names:
        if not rest:
            yield folder / name
        elif (folder / name).is_dir():
            yield from _matches(folder / name, rest)


def _raise(err: OSError) -> None:
    raise err


def _expand_remote(given: str) -> list[Source]:
    """Expand a URI; a match is written as the URI that was given with the rest of its path, so that no detail is lost."""
    source = Source(given, "")
    with reaching(source.label):
        filesystem, root = open_filesystem(given)
        if source.suffix and filesystem.isfile(root):
            return [Source(given, root.rpartition("/")[2])]
        head, chain, chained = given.partition("::")
        in_folder = not _MAGIC.search(root)
        if not in_folder:
            paths = [path for path in filesystem.glob(root) if filesystem.isfile(path)]
            head, root = (_MAGIC.split(pattern, maxsplit=1)[0] for pattern in (head, root))
            head, root = head[: head.rfind("/") + 1], root[: root.rfind("/") + 1]
        elif filesystem.isdir(root):
            paths = filesystem.find(root)
        else:
            raise InputError(f"{source.label}: no such file or folder, or no supported format ({_SUPPORTED})")
        base = head if head.endswith("/") else f"{head}/"
        names = [path.removeprefix(root.rstrip("/")).lstrip("/") for path in paths]
        return _chosen(given, [Source(f"{base}{name}{chain}{chained}", name) for name in names], in_folder=in_folder)


def _chosen(given: str, sources: Iterable[Source], *, in_folder: bool) -> list[Source]:
    """Keep what can be read, sorted by name."""
    visible = [source for source in sources if not any(part.startswith(".") for part in source.name.split("/"))]
    readable = [source for source in _of_datasets(visible) if source.suffix]
    kept = [source for source in readable if not (in_folder and source.format == ".json")]
    if not kept:
        label = Source(given, "").label
        if readable:
            raise InputError(f"{label}: .json files are not read by folder; name them, or use the glob {label}/*.json")
        raise InputError(f"{label}: holds no file of a supported format; expected one of {_SUPPORTED}")
    return sorted(kept, key=lambda source: source.name)


def _of_datasets(sources: Sequence[Source]) -> list[Source]:
    """Leave out what a saved dataset does not list: its descriptions, and results that `datasets` cached in its folder."""
    folders: dict[str, dict[str, Source]] = {}
    for source in sources:
        folder, _, name = source.name.rpartition("/")
        folders.setdefault(folder, {})[name] = source
    kept = []
    for files in folders.values():
        if "state.json" in files and "dataset_info.json" in files:
            listed = _listed(files["state.json"])
            if missing := sorted(listed - files.keys()):
                raise InputError(f"{files['state.json'].label}: lists {missing[0]}, which is not there; copy it again")
            files = {name: source for name, source in files.items() if name in listed}
        kept += [source for name, source in files.items() if name not in DATASET_FILES]
    return kept


def _listed(state: Source) -> set[str]:
    """Read which files hold the data of a saved dataset."""
    try:
        with state.open() as stream:
            fields = json.load(stream)
        names = {entry["filename"] for entry in fields["_data_files"]}
        remapped = fields.get("_indices_data_files")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise InputError(f"{state.label}: is no state of a saved dataset ({err!r}); save the dataset again") from err
    if remapped:
        raise InputError(f"{state.label}: rows are remapped by an index; save dataset.flatten_indices() instead")
    return names


def _fixed_part(pattern: Path) -> Path:
    parts = list(pattern.parts)
    magic = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:magic])

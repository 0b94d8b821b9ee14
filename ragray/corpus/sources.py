"""Finding sources. In: files, folders and globs. Out: the files to read, each once, in a fixed order."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ragray.errors import InputError

FORMATS = (".jsonl", ".jsonl.gz", ".parquet", ".csv", ".csv.gz", ".txt", ".md")
ONE_DOCUMENT_FORMATS = (".txt", ".md")


@dataclass(frozen=True, slots=True)
class Source:
    """One file to read: its absolute path, and its name relative to what the user gave (the id of a text file)."""

    path: Path
    name: str

    @property
    def label(self) -> str:
        """Its path as it stands in a quarantine."""
        return str(self.path).encode("utf-8", "replace").decode()

    @property
    def format(self) -> str:
        """Its entry of `FORMATS`, or nothing where it is not supported."""
        return next((suffix for suffix in sorted(FORMATS, key=len) if self.path.name.lower().endswith(suffix)), "")


def find_sources(sources: Sequence[str], *, exclude: Path | None = None) -> list[Source]:
    """Turn files, folders and globs into files, in the order given, sorted within a folder or glob, each file once.

    Hidden files, and those below ``exclude``, are passed over in folders and globs.

    Raises:
        InputError: a source does not exist, is of an unsupported format, or holds no supported file.
    """
    if not sources:
        raise InputError(f"no source was given; name files, folders or globs of {', '.join(FORMATS)}")
    found: dict[Path, Source] = {}
    for given in sources:
        for source in _expand(given, exclude):
            found.setdefault(source.path, source)
    return list(found.values())


def _expand(given: str, exclude: Path | None) -> list[Source]:
    path = Path(given).expanduser()
    if path.is_file():
        source = Source(path.absolute(), path.name)
        if not source.format:
            raise InputError(f"{path}: the format is not supported; convert it to one of {', '.join(FORMATS)}")
        return [source]
    if path.is_dir():
        root, matches = path, list(path.rglob("*"))
    elif glob.has_magic(given):
        # As in a shell, `**` finds files too; that of pathlib finds folders only.
        root, matches = _fixed_part(path), [Path(match) for match in glob.glob(str(path), recursive=True)]  # noqa: PTH207 - absolute pattern
    else:
        raise InputError(f"{path}: no such file or folder; check the path")
    sources = [Source(match.absolute(), match.relative_to(root).as_posix()) for match in matches if match.is_file()]
    kept = [source for source in sources if source.format and not _is_passed_over(source, exclude)]
    if not kept:
        raise InputError(f"{given}: holds no file of a supported format; expected one of {', '.join(FORMATS)}")
    return sorted(kept, key=lambda source: source.name)


def _fixed_part(pattern: Path) -> Path:
    parts = list(pattern.parts)
    magic = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:magic])


def _is_passed_over(source: Source, exclude: Path | None) -> bool:
    hidden = any(part.startswith(".") for part in Path(source.name).parts)
    return hidden or (exclude is not None and source.path.resolve().is_relative_to(exclude.resolve()))

"""The README's tree names every module of the package once, each with a caption."""

import re
from pathlib import Path

import pytest

import ragray

ROOT = Path(ragray.__file__).parent
README = ROOT.parent / "README.md"
LINE = re.compile(r"(?P<indent> *)(?P<names>\w+(?:/|\.py)(?: \w+\.py)*)(?: {2,}(?P<caption>\S.*))?")


def tree_lines() -> list[str]:
    text = README.read_text(encoding="utf-8")
    block = text[text.index("## The tree") :].split("```")[1]
    return [line for line in block.splitlines() if line.strip()]


def modules_named(lines: list[str]) -> list[str]:
    """Return the paths of the modules below ragray/ that the lines name; raise where a line is no line of a tree."""
    found: list[str] = []
    folders: list[str] = []
    for line in lines:
        match = LINE.fullmatch(line)
        assert match and match["caption"], f"{line!r}: expected a name and, after two spaces, a caption"
        depth = len(match["indent"]) // 2
        folders = folders[:depth]
        for name in match["names"].split(" "):
            if name.endswith("/"):
                folders.append(name.removesuffix("/"))
            elif folders[:1] == ["ragray"]:
                found.append("/".join([*folders[1:], name]))
    return found


def test_a_line_without_a_caption_is_found() -> None:
    assert modules_named(
        ["ragray/   all", "  a.py b.py   two", "  c/   more", "    d.py   one", "jobs/  not of it"]
    ) == [
        "a.py",
        "b.py",
        "c/d.py",
    ]
    with pytest.raises(AssertionError, match=r"a\.py"):
        modules_named(["ragray/   all", "  a.py"])


def test_the_tree_of_the_readme_is_the_package() -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py") if not path.name.startswith("__")}
    named = modules_named(tree_lines())
    assert sorted(set(named)) == sorted(named)
    assert set(named) == modules

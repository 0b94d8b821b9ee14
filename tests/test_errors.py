"""The error tree: what the docstring draws is what there is, and every error survives its trip through Ray."""

import inspect
import pickle
import re

import pytest

from ragray import errors
from ragray.errors import ArtifactError, CorruptArtifactError, RagrayError, first_line, pack, unpack

CLASSES = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)]
NODE = re.compile(r"^(?P<stem>[ │├└─]*)(?P<name>\w+Error)\b", re.MULTILINE)


def drawn_parents(docstring: str) -> dict[str, str]:
    """Read a tree drawn with lines: the parent of every class in it, by name."""
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for match in NODE.finditer(docstring):
        depth, name = len(match["stem"]), match["name"]
        above = [(column, parent) for column, parent in above if column < depth]
        parents[name] = above[-1][1] if above else "Exception"
        above.append((depth, name))
    return parents


def test_the_tree_drawn_in_the_docstring_is_the_tree_that_exists() -> None:
    assert drawn_parents(errors.__doc__ or "") == {error.__name__: error.__base__.__name__ for error in CLASSES}


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_survives_pickling_with_its_message_and_class(error: type[RagrayError]) -> None:
    thawed = pickle.loads(pickle.dumps(error("corpus.jsonl:3: no field 'text'")))
    assert type(thawed) is error
    assert str(thawed) == "corpus.jsonl:3: no field 'text'"


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_survives_packing(error: type[RagrayError]) -> None:
    found = unpack(*pack(error("corpus.jsonl:3: no field 'text'")))
    assert (type(found), str(found)) == (error, "corpus.jsonl:3: no field 'text'")
    assert pack(None) == ("", "")
    assert type(unpack("FromElsewhereError", "x")) is RagrayError


def test_an_error_without_a_message_has_a_first_line() -> None:
    assert [first_line(error) for error in (MemoryError(), OSError("a\nb"))] == ["MemoryError", "a"]


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_takes_exactly_one_message(error: type[RagrayError]) -> None:
    with pytest.raises(TypeError):
        error()  # type: ignore[call-arg] # refused, as is tested
    with pytest.raises(TypeError):
        error("what", "where")  # type: ignore[call-arg] # refused, as is tested


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_ends_the_command_line_with_a_code_that_a_shell_sees_as_failure(error: type[RagrayError]) -> None:
    assert 1 <= error.exit_code < 126


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_says_when_it_is_raised(error: type[RagrayError]) -> None:
    assert error.__doc__ and error.__doc__ != error.__base__.__doc__


def test_catching_a_branch_catches_its_leaves() -> None:
    with pytest.raises(ArtifactError):
        raise CorruptArtifactError("part.parquet: 3 bytes, the manifest says 5")


class ElsewhereError(ArtifactError):
    """An error that is defined outside of `ragray.errors`."""


def test_an_error_defined_elsewhere_survives_packing() -> None:
    found = unpack(*pack(ElsewhereError("x")))
    assert (type(found), found.exit_code) == (ElsewhereError, ArtifactError.exit_code)


@pytest.mark.parametrize("kind", ["", "no.such.module:Error", "os:PathLike", "os.path:join", ":"])
def test_what_is_no_error_of_ours_is_unpacked_as_the_base(kind: str) -> None:
    assert type(unpack(kind, "x")) is RagrayError

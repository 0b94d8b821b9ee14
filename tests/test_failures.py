"""What code of others raises, in one line that names the path and what to do."""

import errno
import traceback
from pathlib import Path

import pytest

from ragray.errors import ArtifactError, InputError, RagrayError, TrainingError
from ragray.failures import described, keep_traceback, storage_errno, told


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), errno.ENOSPC),
        (OSError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device"), errno.ENOSPC),
        (RuntimeError("Error in write_index: write error in x.faiss: No space left on device"), errno.ENOSPC),
        (Exception("I/O error: No space left on device (os error 28)"), errno.ENOSPC),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), errno.EDQUOT),
        (PermissionError(errno.EACCES, "Permission denied", "/etc/x"), errno.EACCES),
        (RuntimeError("Read-only file system"), errno.EROFS),
        (OSError(errno.EFBIG, "File too large"), errno.EFBIG),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), None),
        (ConnectionError("no route"), None),
        (ValueError("no space for that"), None),
    ],
)
def test_storage_that_fails_is_known_in_every_librarys_words(error: Exception, number: int | None) -> None:
    assert storage_errno(error) == number


def test_an_error_on_purpose_is_told_as_it_is() -> None:
    error = InputError("corpus.jsonl:3: no field 'text'")
    assert told(error, "elsewhere") is error


def test_a_full_disk_names_the_path_the_room_there_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "not" / "yet" / "there"
    error = told(OSError(errno.ENOSPC, "No space left on device", str(path)), "out", then="go on")
    assert type(error) is ArtifactError
    assert str(error).startswith(f"{path}: disk full (")
    assert str(error).endswith(" MiB free now); free space there, then go on")


def test_a_folder_closed_to_this_user_is_named(tmp_path: Path) -> None:
    error = told(PermissionError(errno.EACCES, "Permission denied"), tmp_path)
    assert str(error) == f"{tmp_path}: cannot be read or written (permission denied); mend that, then run again"


def test_anything_else_is_one_line_with_its_type_and_the_line_of_code() -> None:
    try:
        raise ValueError("no such token\nand a second line")
    except ValueError as err:
        error = told(err, "run/x", kind=TrainingError, then="go on")
    assert type(error) is TrainingError
    assert str(error).startswith("run/x: ValueError: no such token (at test_failures.py:")
    assert str(error).endswith("; mend that, then go on") and "\n" not in str(error)


def test_an_error_without_words_is_its_type() -> None:
    assert described(MemoryError()) == "MemoryError"
    assert type(told(MemoryError(), "x")) is RagrayError


def test_the_traceback_is_kept_in_a_file() -> None:
    try:
        raise ValueError("no such token")
    except ValueError as err:
        path = keep_traceback(err)
        expected = "".join(traceback.format_exception(err))
    assert path and path.read_text(encoding="utf-8") == expected
    path.unlink()

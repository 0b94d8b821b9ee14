"""Keys of a service. In: names, filters, limits. Out: a file that holds the SHA-256 of each key, never the key itself."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pyarrow as pa
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from ragray.artifact.files import atomic_path
from ragray.errors import ConfigError, InputError
from ragray.failures import naming_storage
from ragray.index.search.filter import parse_filter
from ragray.index.store.segment import PAIRS

DEFAULT_FILE = "~/.ragray/keys.json"
"""Where `ragray keys` keeps the keys, unless ``serve.keys_file`` names another place."""

WITHOUT_FIELDS = pa.table({"id": [""], "document_id": [""], "title": [""], "metadata": pa.array([[]], PAIRS)})
"""A passage that has nothing in its fields."""

PREFIX = "sk-ragray-"
KEY_BYTES = 32
OWNER_ONLY = 0o600


class Key(BaseModel):
    """A key without its secret: who has it, what it finds, how often it may ask (0: as often as it likes), until when."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[\w.@-]{1,64}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    where: str = ""
    requests_per_minute: int = Field(0, ge=0)
    tokens_per_minute: int = Field(0, ge=0)
    expires: AwareDatetime | None = None
    created: AwareDatetime

    def is_expired(self, now: datetime) -> bool:
        """Return whether the key works no longer."""
        return self.expires is not None and now >= self.expires


class KeyFile(BaseModel):
    """What the file holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    keys: tuple[Key, ...] = ()


def digest(key: str) -> str:
    """Return the SHA-256 of a key, in hexadecimal digits."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def require_bounding(where: str) -> None:
    """Check the filter of a key; "" is none.

    Raises:
        InputError: it cannot be read, or a passage that has none of its fields matches it: with a misspelt field, or an index that
            lacks the field, it would bound nothing.
    """
    if where and parse_filter(where).mask(WITHOUT_FIELDS).any():
        raise InputError(
            f"filter {where!r}: also matches passages that lack its fields; say what the key may find, for instance: team == ops"
        )


def read_keys(path: Path) -> tuple[Key, ...]:
    """Read a file of keys.

    Raises:
        ConfigError: it is not there, cannot be read, or is damaged; the message names the place in it.
    """
    try:
        found = KeyFile.model_validate_json(path.read_bytes()).keys
    except FileNotFoundError as err:
        raise ConfigError(
            f"{path}: there is no such file of keys; make one with `ragray keys add NAME serve.keys_file={path}`"
        ) from err
    except OSError as err:
        raise ConfigError(f"{path}: cannot be read ({err.strerror}); check serve.keys_file") from err
    except ValidationError as err:
        first = err.errors(include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(f"{path}: {place}: {first['msg']}; mend it, or move it away and add the keys anew") from err
    _require_usable(path, found)
    return found


def _require_usable(path: Path, keys: Sequence[Key]) -> None:
    for name, count in Counter(key.name for key in keys).items():
        if count > 1:
            raise ConfigError(f"{path}: {count} keys have the name '{name}'; keep one of them")
    for key in keys:
        try:
            require_bounding(key.where)
        except InputError as err:
            raise ConfigError(f"{path}: key '{key.name}': {err}") from err


def add_key(
    path: Path,
    name: str,
    *,
    where: str = "",
    requests_per_minute: int = 0,
    tokens_per_minute: int = 0,
    expires: datetime | None = None,
    now: datetime | None = None,
) -> str:
    """Make a key of 256 random bits, add its digest to a file, return the key: it is kept nowhere.

    Raises:
        InputError: the name is taken or no name, the filter is wrong, or the key would have expired already.
        ConfigError: the file is damaged.
    """
    require_bounding(where)
    now = now or datetime.now(UTC)
    if expires and expires <= now:
        raise InputError(f"--expires {expires.isoformat()}: is over already; name a later date")
    secret = PREFIX + secrets.token_urlsafe(KEY_BYTES)
    try:
        key = Key(
            name=name,
            sha256=digest(secret),
            where=where,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            expires=expires,
            created=now.replace(microsecond=0),
        )
    except ValidationError as err:
        raise InputError(f"key {name!r}: a name has 1 to 64 letters, digits and . _ @ -; choose another") from err
    with _locked(path):
        known = read_keys(path) if path.exists() else ()
        if name in (each.name for each in known):
            raise InputError(f"{path}: has a key '{name}' already; choose another name, or `ragray keys revoke {name}`")
        _write(path, (*known, key))
    return secret


def revoke_key(path: Path, name: str) -> None:
    """Remove a key from a file; raises `InputError` where there is none of that name, `ConfigError` where the file is damaged."""
    with _locked(path):
        known = read_keys(path)
        left = tuple(key for key in known if key.name != name)
        if len(left) == len(known):
            names = ", ".join(key.name for key in known) or "none"
            raise InputError(f"{path}: has no key '{name}'; there are {names}")
        _write(path, left)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with naming_storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f".{path.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _write(path: Path, keys: tuple[Key, ...]) -> None:
    with atomic_path(path) as temporary:
        temporary.touch(mode=OWNER_ONLY)
        temporary.write_text(KeyFile(keys=keys).model_dump_json(indent=2) + "\n", encoding="utf-8")

"""`ragray keys ...`: who may ask a service."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ragray.cli.options import AsJson, ConfigFile, Overrides, WhereOption, say, say_json
from ragray.config import load_config

HELP = """Make, list and revoke the keys of a service.

They lie in the file that serve.keys_file names, by default ~/.ragray/keys.json; `ragray serve ... serve.keys_file=FILE` then answers
only requests with one of them. A running service sees a change within a second or so. Each Gateway replica counts the requests and
tokens of a key for itself.
"""

keys_app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode=None)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is.", show_default=False)]

logger = logging.getLogger("ragray")


@keys_app.command("add")
def keys_add(
    name: NameArgument,
    overrides: Overrides = None,
    where: WhereOption = None,
    requests_per_minute: Annotated[int, typer.Option(help="Requests per minute at most; 0: no limit.", min=0)] = 0,
    tokens_per_minute: Annotated[
        int, typer.Option(help="Tokens that models read and write per minute at most; 0: no limit.", min=0)
    ] = 0,
    expires: Annotated[
        datetime | None,
        typer.Option(
            help="When it stops to work (UTC), for instance 2030-01-31.",
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"],
            show_default="never",
        ),
    ] = None,
    index: Annotated[
        Path | None, typer.Option(help="Warn where this index lacks a field that --where names.", show_default=False)
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Make a key and print it, this once: the file holds only its SHA-256. With --where it finds only passages that match."""
    from ragray.serve.access.keys import add_key

    path = _file(config, overrides, "keys add")
    secret = add_key(
        path,
        name,
        where=where or "",
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        expires=expires and expires.replace(tzinfo=UTC),
    )
    if index and where:
        _warn_of_unknown_fields(index, where)
    logger.info("%s: key '%s' added; serve with serve.keys_file=%s", path, name, path)
    say(secret)


@keys_app.command("list")
def keys_list(overrides: Overrides = None, as_json: AsJson = False, config: ConfigFile = None) -> None:
    """List the keys by name, with their filters, limits and dates."""
    from ragray.serve.access.keys import Key, read_keys

    def line(key: Key) -> str:
        limits = {"requests/minute": key.requests_per_minute, "tokens/minute": key.tokens_per_minute}
        facts = [f"created {key.created:%Y-%m-%d}"]
        if key.expires:
            facts.append(
                f"{'expired' if key.is_expired(datetime.now(UTC)) else 'expires'} {key.expires:%Y-%m-%d %H:%M}"
            )
        facts += [f"{number} {what}" for what, number in limits.items() if number]
        return f"{key.name}  {', '.join(facts)}{f'  where {key.where}' if key.where else ''}"

    keys = read_keys(_file(config, overrides, "keys list"))
    if as_json:
        say_json([key.model_dump(mode="json", exclude={"sha256"}) for key in keys])
        return
    for key in keys:
        say(line(key))


@keys_app.command("revoke")
def keys_revoke(name: NameArgument, overrides: Overrides = None, config: ConfigFile = None) -> None:
    """Remove a key; requests that bring it are refused from then on."""
    from ragray.serve.access.keys import revoke_key

    path = _file(config, overrides, "keys revoke")
    revoke_key(path, name)
    say(f"{path}: key '{name}' is revoked")


def _file(config: Path | None, overrides: list[str] | None, command: str) -> Path:
    from ragray.serve.access.keys import DEFAULT_FILE

    settings = load_config(config, overrides or [], command=command)
    return Path(settings.serve.keys_file or DEFAULT_FILE).expanduser()


def _warn_of_unknown_fields(index: Path, where: str) -> None:
    from ragray.index.search.filter import parse_filter
    from ragray.index.search.reader import IndexReader

    fields = set().union(*(opened.segment.metadata_keys for opened in IndexReader.open(index).segments))
    if unknown := parse_filter(where).unknown_field(fields):
        logger.warning("%s", unknown)

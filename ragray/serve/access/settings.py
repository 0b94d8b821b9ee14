"""Settings of access, checked before a service starts. In: settings, the address it listens on. Out: the same with whole paths."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from ragray.config import ServeConfig
from ragray.errors import ConfigError

STDERR = "stderr"
"""The place of an access log that is no file."""


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address; a name other than localhost counts as reachable by others."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def checked_access(config: ServeConfig, host: str) -> ServeConfig:
    """Return the settings with paths that hold in every process.

    Raises:
        ConfigError: others reach the service, and it asks for no key; or its keys cannot be read.
    """
    if not (is_loopback(host) or config.keys_file or config.insecure):
        raise ConfigError(
            f"serve: others reach the service on host {host or '0.0.0.0'}, and it asks for no key; make one with `ragray keys add NAME` "
            "and name its file with serve.keys_file=FILE, or let everybody in with --insecure (serve.insecure=true)"
        )
    paths = {"keys_file": config.keys_file, "access_log": config.access_log}
    whole = {name: str(Path(path).expanduser().resolve()) for name, path in paths.items() if path not in ("", STDERR)}
    if keys_file := whole.get("keys_file"):
        from ragray.serve.access.keys import read_keys  # slow to import, and not every service has keys

        read_keys(Path(keys_file))
    return config.model_copy(update=whole)

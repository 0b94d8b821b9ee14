"""Whether a service is open to others. In: the address that it listens on, its settings. Out: an error where nothing protects it. Pure."""

from __future__ import annotations

import ipaddress

from ragray.config import ServeConfig
from ragray.errors import ConfigError


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address; a name other than localhost counts as reachable."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def require_protected(host: str, config: ServeConfig) -> None:
    """Raise `ConfigError` where others reach a service that asks for no key, unless `serve.insecure` allows it."""
    if not (is_loopback(host) or config.keys_file or config.insecure):
        raise ConfigError(
            f"serve: on host {host or '0.0.0.0'} others reach the service, and it asks for no key; make one with `ragray keys add NAME` "
            "and name its file with serve.keys_file=FILE, or allow everybody in with --insecure (serve.insecure=true)"
        )

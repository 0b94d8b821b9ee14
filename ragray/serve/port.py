"""The port of a service. In: host and port. Out: a socket that listens there beside Ray's proxy, or an error.

Ray Serve's proxy binds its port with SO_REUSEPORT, so that another socket of the same user may listen on it too. A
program in the kernel (classic BPF, Linux) then says which of the two gets a new connection.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ragray.config import ServeConfig
from ragray.errors import ServingError

logger = logging.getLogger("ragray.serve")

WAIT_S = 15.0
"""Seconds to wait for a port that processes of a killed service still hold; Ray needs some seconds to end them."""

STRANGER_S = 1.0
POLL_S = 0.2
BACKLOG = 512
SO_ATTACH_REUSEPORT_CBPF = 51
BPF_RETURN = 0x06
LISTENING = "0A"
OURS, PROXY = 0, 1
"""Which socket of the port a new connection is for, in the order in which they began to listen."""


def require_free_port(config: ServeConfig, *, wait_s: float = WAIT_S) -> None:
    """Raise `ServingError` unless the address can be listened on, waiting for a killed service to let it go."""
    claim_port(config, wait_s=wait_s).close()


def claim_port(config: ServeConfig, *, wait_s: float = WAIT_S) -> socket.socket:
    """Return a socket that alone is bound to the port; raises `ServingError` where another one holds it for too long."""
    started = time.monotonic()
    strange_since: float | None = None
    said = False
    while True:
        try:
            return _bind(config.host, config.port)
        except OSError as err:
            now = time.monotonic()
            dying = err.errno == errno.EADDRINUSE and left_by_ray(config.port)
            strange_since = None if dying else strange_since or now
            if strange_since and (err.errno != errno.EADDRINUSE or now - strange_since > min(STRANGER_S, wait_s)):
                raise _taken(config, err) from err
            if now - started > wait_s:
                raise _taken(config, err) from err
            if dying and not said:
                logger.warning(
                    "serve: port %d is still held by a service that was killed; waiting up to %.0f s for it",
                    config.port,
                    wait_s,
                )
                said = True
        time.sleep(POLL_S)


def share(bound: socket.socket) -> Callable[[int], None] | None:
    """Listen on a bound socket so that Ray's proxy may listen beside it.

    Returns a function that directs new connections: to this socket (`OURS`) or to the one that listens after it
    (`PROXY`; while there is none, this one). None, and the socket closed, where the system cannot do that.
    """
    try:
        # Set after `bind`, which without it fails where any other socket listens on the port. From here on the proxy may join.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Before `listen`: without the program the kernel spreads connections over the sockets by a hash of their addresses.
        _direct(bound, OURS)
        bound.listen(BACKLOG)
    except (OSError, AttributeError):
        bound.close()
        return None
    return lambda index: _direct(bound, index)


def left_by_ray(port: int) -> bool:
    """Return whether all processes that listen on a port are workers of a Ray whose raylet has ended."""
    parents = [_parent_of_ray(process) for process in _listeners(port)]
    return bool(parents) and all(parent is not None and "raylet" not in parent for parent in parents)


def _bind(host: str, port: int) -> socket.socket:
    """Bind as Ray's proxy does, but exclusively: until `share`, no other socket may bind the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def _taken(config: ServeConfig, err: OSError) -> ServingError:
    other = config.port + 1 if config.port < 65535 else config.port - 1
    what = "is in use" if err.errno == errno.EADDRINUSE else f"cannot be listened on ({err.strerror or err})"
    return ServingError(
        f"port {config.port} on {config.host} {what}; stop what listens there or choose another with serve.port={other}"
    )


def _direct(listening: socket.socket, index: int) -> None:
    """Attach the program `return index` to all sockets that share the port."""
    if sys.platform != "linux":
        raise OSError(errno.ENOPROTOOPT, "no program can be attached to a socket")
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RETURN, 0, 0, index))
    program = struct.pack("HL", 1, ctypes.addressof(instruction))
    listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, program)


def _listeners(port: int) -> Iterator[Path]:
    """Yield the processes (their folders in /proc) that listen on a port, as far as this user may see them."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(port)}
    for process in Path("/proc").glob("[0-9]*") if sockets else ():
        try:
            if any(str(file.readlink()) in sockets for file in (process / "fd").iterdir()):
                yield process
        except OSError:  # it ended meanwhile, or belongs to another user
            continue


def _inodes(port: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for columns in map(str.split, lines):
            if columns[3] == LISTENING and int(columns[1].rpartition(":")[2], 16) == port:
                yield columns[9]


def _parent_of_ray(process: Path) -> str | None:
    """Return the command of the parent of a worker of Ray; None if the process is none."""
    try:
        if not (process / "cmdline").read_bytes().startswith(b"ray::"):
            return None
        parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
        return Path("/proc", parent, "cmdline").read_bytes().partition(b"\0")[0].decode(errors="replace")
    except OSError:  # it ended meanwhile
        return ""

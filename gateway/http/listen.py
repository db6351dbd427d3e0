# SPDX-License-Identifier: Apache-2.0
"""Addresses to listen at.

Answers for the forms `127.0.0.1:9292`, `[::1]:9292`, `name:port` and `unix:/path`, and for binding. Does not accept.

Threading: used before any thread is started.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from glancefs.errors import ConfigError

BACKLOG = 1024
"""Connections that the kernel holds until they are accepted."""

_HIGHEST_PORT = 65535
_UNIX = "unix:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A place to listen at: a host and port, or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address. Port 0 means any free one. Raises ConfigError."""
        if text.startswith(_UNIX):
            path = text.removeprefix(_UNIX)
            if not path:
                raise ConfigError("unix: must be followed by the path of a socket.")
            return cls(path=path)
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ConfigError(f"In {text!r} the IPv6 address must stand in brackets: [::1]:9292.")
        if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > _HIGHEST_PORT:
            raise ConfigError(f"{text!r} is not an address to listen at; write HOST:PORT or unix:/path.")
        return cls(host=host, port=int(port))

    def __str__(self) -> str:
        if self.path:
            return f"{_UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def bind(address: Address) -> tuple[socket.socket, Address]:
    """Bind and listen. Gives the socket, non-blocking, and the address with its real port.

    Raises ConfigError with one clear sentence when that can't be done.
    """
    try:
        sock = _bind_unix(address.path) if address.path else _bind_inet(address)
    except OSError as error:
        raise ConfigError(f"Can't listen at {address}: {_reason(error)}.") from error
    sock.listen(BACKLOG)
    sock.settimeout(0)
    if address.path:
        return sock, address
    return sock, Address(host=address.host, port=sock.getsockname()[1])


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens there already"
    return (error.strerror or str(error)).lower()


def _bind_inet(address: Address) -> socket.socket:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, target = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it; without, the last piece of a response waits for an acknowledgement.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6 and address.host == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(target)
    except OSError:
        sock.close()
        raise
    return sock


def _bind_unix(path: str) -> socket.socket:
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
    except OSError:
        sock.close()
        raise
    return sock


def _remove_stale(path: str) -> None:
    """Remove a socket that a server left behind; one that somebody listens at stays."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "something that is not a socket is there")
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                Path(path).unlink()
                return
        raise OSError(errno.EADDRINUSE, "in use")

# SPDX-License-Identifier: Apache-2.0
"""What systemd hears of a server: that it is ready, and from then on that it answers (sd_notify(3)).

Answers for a process beside the server's that asks it for ``/healthcheck`` over its own door, as anybody would, and
tells systemd of every answer, whatever it says: a server whose registry is away is alive. One that answers nobody is
started anew by systemd. Does not know what the server does.

Threading: `Watchdog` is used by the thread of the server that made it, beside which there may be others, so it starts a
new program and does not fork; `main` is that program's only thread.
"""

from __future__ import annotations

import select
import socket
import ssl
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final, Self
from urllib.parse import urlsplit

from glancefs.fuse.daemon import tell_systemd

_REQUEST: Final = b"HEAD /healthcheck HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_ANSWER: Final = b"HTTP/1."
_UNIX: Final = "unix:"
_PARTS: Final = 3
"""How often in its time the server is asked: two answers may be late."""


class Watchdog:
    """Tells systemd of one server, while the context lasts; where there is no systemd, nobody of anything."""

    def __init__(self, *, address: str | None, seconds: float | None) -> None:
        """``seconds`` is within how many systemd wants to hear again and again; None: only that it is ready."""
        self._address: Final = address
        self._seconds: Final = seconds
        self._watching: subprocess.Popen[bytes] | None = None

    def announce(self, url: str) -> None:
        """Tell that the server at a URL is ready, and begin to watch it."""
        tell_systemd(self._address, "READY=1")
        if self._address is None or self._seconds is None:
            return
        pause = str(self._seconds / _PARTS)
        words = [sys.executable, "-I", "-m", "glancefs.cli.watchdog", url, self._address, pause]
        # It ends with its standard input, so also when this process is killed.
        self._watching = subprocess.Popen(words, stdin=subprocess.PIPE)  # noqa: S603 - our own program

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._watching is not None:
            self._watching.communicate()


def main(arguments: Sequence[str]) -> int:
    """Watch until whoever started this is gone: the server's URL, systemd's address, and seconds between two looks."""
    url, address, pause = arguments[0], arguments[1], float(arguments[2])
    while True:
        if answers(url, patience=pause):
            tell_systemd(address, "WATCHDOG=1")
        if select.select([sys.stdin], [], [], pause)[0]:
            return 0


def answers(url: str, *, patience: float) -> bool:
    """Whether a server says anything that is HTTP; each step may take ``patience`` seconds."""
    try:
        with _connected(url, patience) as connection:
            connection.sendall(_REQUEST)
            return connection.recv(len(_ANSWER)) == _ANSWER
    except OSError:
        return False


def _connected(url: str, patience: float) -> socket.socket:
    if url.startswith(_UNIX):
        with ExitStack() as closing:
            connection = closing.enter_context(socket.socket(socket.AF_UNIX))
            connection.settimeout(patience)
            connection.connect(url.removeprefix(_UNIX))
            closing.pop_all()
        return connection
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=patience)
    if parts.scheme != "https":
        return connection
    # Its own certificate is for the names by which others call it, and nothing secret is said.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

# SPDX-License-Identifier: Apache-2.0
"""A way to a server on which answers stop in the middle.

Answers for carrying connections to and fro, each until it has got so many bytes, and for holding it then, silent and
open. Understands nothing of what it carries.

Threading: a thread per connection and direction; leaving the context ends them all.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

BLOCK = 65536


class Stingy:
    """Listens at ``url`` and passes on to a server; ``used_up`` is set once a connection has got all that it gets."""

    def __init__(self, target: tuple[str, int], *, limit: int) -> None:
        self._target = target
        self._limit = limit
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        self._threads: list[threading.Thread] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.used_up = threading.Event()

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in self._sockets:
            end.close()

    def _start(self, run: object, *args: object) -> None:
        thread = threading.Thread(target=run, args=args, name="stingy")  # type: ignore[arg-type]  # our own methods
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._sockets += [near, far]
                self._start(self._carry, near, far, None)
                self._start(self._carry, far, near, self._limit)

    def _carry(self, source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        with contextlib.suppress(OSError):
            left = limit
            while left is None or left > 0:
                data = source.recv(BLOCK if left is None else min(BLOCK, left))
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(data)
                left = left if left is None else left - len(data)
            self.used_up.set()

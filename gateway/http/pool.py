# SPDX-License-Identifier: Apache-2.0
"""The worker threads.

Answers for having a thread for each connection that is ready, up to the limit: threads are started when they are
needed. Does not limit transfers; that is admission's part.

Threading: `put` is called by the selector thread and by workers, `get` by workers.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING

from cheroot.workers.threadpool import (  # type: ignore[attr-defined]  # the stub leaves out what makes a worker end
    _SHUTDOWNREQUEST,
    ThreadPool,
    WorkerThread,
)

if TYPE_CHECKING:
    from gateway.http.connection import Connection
    from gateway.http.engine import Engine


class Pool(ThreadPool):
    """cheroot's pool with a queue written in C, and growing by itself."""

    def __init__(self, *, engine: Engine, first: int, most: int) -> None:
        super().__init__(engine, min=first, max=most)
        self._ready: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._free = 0
        """Threads that wait, less connections that wait for one."""
        self._started: list[WorkerThread] = []
        self.get = self._get

    def start(self) -> None:
        """Start the first threads."""
        for _ in range(self.min):
            self._start_thread()

    def put(self, obj: Connection) -> None:
        """Have a thread take the next step of a connection."""
        with self._lock:
            self._free -= 1
            grow = self._free < 0 and len(self._started) < self.max
        self._ready.put(obj)
        if grow:
            self._start_thread()

    def stop(self, timeout: float = 5) -> None:
        """End the threads that wait for work; one that an application keeps is left behind."""
        with self._lock:
            threads, self.max = self._started, 0
        for _ in threads:
            self._ready.put(_SHUTDOWNREQUEST)
        deadline = time.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    @property
    def free(self) -> int:
        """Threads that wait for work, less connections that wait for a thread."""
        return self._free

    def _get(self) -> Connection:
        with self._lock:
            self._free += 1
        return self._ready.get()

    def _start_thread(self) -> None:
        thread = WorkerThread(self.server)  # type: ignore[no-untyped-call]  # cheroot's stub leaves it open
        with self._lock:
            self._started.append(thread)
            thread.name = f"worker {len(self._started)}"
        # A thread that an application never gives back must not keep the process from ending.
        thread.daemon = True
        thread.start()

# SPDX-License-Identifier: Apache-2.0
"""The worker threads.

Answers for how many of them run at a time. Threads that compete for the interpreter's lock slow each other down, so
short requests are answered one after the other by as few threads as keep the queue moving: one, and another for each
time that nobody took the next connection for a while, because the others wait for a database or a disk. Where many
come, they share the selector's core. A transfer steps aside, to any core, and counts no more. Does not limit transfers;
that is admission's part.

Threading: `put` is called by the selector thread and by workers, `tend` by the selector thread, the rest by workers.
The lock is held for a few instructions.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from cheroot.workers.threadpool import (  # type: ignore[attr-defined]  # the stub leaves out what makes a worker end
    _SHUTDOWNREQUEST,
    ThreadPool,
    WorkerThread,
)

from glancefs.cores import Cores

if TYPE_CHECKING:
    from gateway.http.connection import Connection
    from gateway.http.engine import Engine

STALL = 0.002
"""After so many seconds without progress another thread joins."""

_CALM = 0.1
"""After so many seconds without a stall one thread fewer is let run."""


class _Worker(WorkerThread):
    """A thread, and the bell at which it sleeps."""

    def __init__(self, pool: Pool, number: int) -> None:
        super().__init__(pool.server)  # type: ignore[no-untyped-call]  # cheroot's stub leaves it open
        self.name = f"worker {number}"
        # A thread that an application never gives back must not keep the process from ending.
        self.daemon = True
        self.bell = threading.Lock()
        self.bell.acquire()
        self.next: Connection | object | None = None
        """What it does when it wakes."""
        self.counted = False
        """It works at a short request."""
        self.fresh = True
        """It was not started yet."""

    def run(self) -> None:
        """Work until the pool ends. What fails costs its connection, and not, as cheroot would have it, the server."""
        while True:
            try:
                self._process_connections_until_interrupted()  # type: ignore[attr-defined]  # left out by the stub
            except BaseException:
                self.server.log.exception("a worker failed, and goes on")
            else:
                return


class Pool(ThreadPool):
    """cheroot's pool, with a queue that wakes no more threads than are of use."""

    def __init__(self, *, engine: Engine, most: int, cores: Cores) -> None:
        super().__init__(engine, min=1, max=most)
        self._cores = cores
        self._lock = threading.Lock()
        self._waiting: deque[Connection] = deque()
        self._idle: list[_Worker] = []
        self._started: list[_Worker] = []
        self._running = 0
        self._limit = 1
        self._taken = 0
        self._seen = -1
        self._seen_at = 0.0
        self._stalled_at = 0.0
        self._stopped = False
        self.get = self._get

    def start(self) -> None:
        """Take note of the start; threads are started when they are needed."""

    def put(self, obj: Connection) -> None:
        """Have a thread take the next step of a connection, soon."""
        with self._lock:
            self._waiting.append(obj)
            worker = self._next_off()
        self._wake(worker)

    def step_aside(self) -> None:
        """Let others run while the calling worker is busy with a transfer."""
        me = threading.current_thread()
        if not isinstance(me, _Worker) or not me.counted:
            return
        with self._lock:
            me.counted = False
            self._running -= 1
            worker = self._next_off()
        self._wake(worker)
        self._cores.leave()

    def tend(self, now: float) -> bool:
        """Let another thread join when nobody makes progress. Gives whether connections wait for a thread."""
        backlog = bool(self._waiting)
        self._cores.part_in_time()
        if self._taken != self._seen:
            self._cores.note()
        if not backlog or self._taken != self._seen:
            self._seen, self._seen_at = self._taken, now
            if self._limit > 1 and now - self._stalled_at > _CALM:
                self._stalled_at = now
                with self._lock:
                    self._limit -= 1
        elif now - self._seen_at >= STALL:
            self._seen_at = self._stalled_at = now
            with self._lock:
                self._limit = min(self._limit + 1, self.max)
                worker = self._next_off()
            self._wake(worker)
        return backlog

    def stop(self, timeout: float = 5) -> None:
        """End the threads that wait for work; one that an application keeps is left behind."""
        with self._lock:
            self._stopped = True
            idle, self._idle = self._idle, []
            for worker in idle:
                worker.next = _SHUTDOWNREQUEST
                worker.bell.release()
        deadline = time.monotonic() + timeout
        for worker in self._started:
            worker.join(max(0.0, deadline - time.monotonic()))

    def _get(self) -> Connection | object | None:
        """Give the calling worker its next connection, however long that takes to come."""
        me = threading.current_thread()
        assert isinstance(me, _Worker)  # noqa: S101  (only the pool's own threads call this)
        sleeps = False
        with self._lock:
            if me.next is None:
                self._running -= me.counted
                me.counted = False
                if self._stopped:
                    me.next = _SHUTDOWNREQUEST
                elif self._waiting and self._running < self._limit:
                    self._set(me)
                else:
                    self._idle.append(me)
                    sleeps = True
        # Who is among the idle is woken by the bell and by nothing else, however soon there is something to do.
        if sleeps:
            me.bell.acquire()
        task, me.next = me.next, None
        self._cores.enter(is_brief=True)
        return task

    def _next_off(self) -> _Worker | None:
        """Choose who takes the next waiting connection, if somebody may. The lock is held."""
        if not self._waiting or self._running >= self._limit:
            return None
        # The one that slept last has the warmest caches.
        if self._idle:
            worker = self._idle.pop()
        elif len(self._started) < self.max:
            worker = _Worker(self, len(self._started) + 1)
            self._started.append(worker)
        else:
            return None
        self._set(worker)
        return worker

    def _set(self, worker: _Worker) -> None:
        worker.next = self._waiting.popleft()
        worker.counted = True
        self._running += 1
        self._taken += 1

    def _wake(self, worker: _Worker | None) -> None:
        if worker is None:
            return
        if worker.fresh:
            worker.fresh = False
            worker.start()
        else:
            worker.bell.release()

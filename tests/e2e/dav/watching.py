# SPDX-License-Identifier: Apache-2.0
"""File systems of others, mounted for a test: a daemon that does not answer leaves its callers unkillable.

Answers for waiting until one is there, for killing it when it lives too long, and for taking it away at the end.

Threading: the watchdog runs in a thread of its own.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.leaks import mounts_below, unmount
from tests.support.mounting import eventually
from tests.support.processes import Process

LIFE_SECONDS = 500.0
"""How long such a mount may live before the watchdog ends it."""
_PATIENCE = 120.0


@contextmanager
def watched(point: Path, process: Process) -> Iterator[None]:
    """Wait until a daemon that runs in the foreground has mounted, and keep watch over it until the block ends."""

    def there() -> bool:
        if not process.running:
            pytest.fail(f"ended without a mount:\n{process.log()}", pytrace=False)
        return bool(mounts_below(point))

    with leashed(point, process.pid):
        eventually(there, patience=_PATIENCE)
        yield


@contextmanager
def leashed(point: Path, pid: int) -> Iterator[None]:
    """Kill a daemon and take its mount away when it lives too long; at the end, take away what is left of it."""

    def end() -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        unmount(point)

    dog = threading.Timer(LIFE_SECONDS, end)
    dog.daemon = True
    dog.start()
    try:
        yield
    finally:
        dog.cancel()
        if mounts_below(point):
            end()

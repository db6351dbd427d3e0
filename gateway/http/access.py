# SPDX-License-Identifier: Apache-2.0
"""What is told of each request at its end: a line in the access log, and a call to whoever counts.

Answers for the line's form and for keeping control characters out of it. The logger is `glancefs.access`. Does not
count and does not set up logging.

Threading: a `Journal` is shared by all workers; logging has its own lock, an observer must bring one.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Protocol

_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\xff\"\\]|[^\x00-\xff]")


class Observer(Protocol):
    """Whoever counts requests."""

    def __call__(self, *, route: str, method: str, status: int, bytes_in: int, bytes_out: int, seconds: float) -> None:
        """Take note of one finished request.

        `route` is what the application put into `environ["glancefs.route"]`, "" when it said nothing. `bytes_in` counts
        the body that was read, `bytes_out` what was sent with its headers. Called from many threads.
        """


@dataclass(slots=True, kw_only=True)
class Record:
    """One finished request."""

    client: str
    user: str
    method: str
    target: str
    route: str
    status: int
    """0 when the connection ended before there was an answer."""
    bytes_in: int
    bytes_out: int
    seconds: float


class Journal:
    """Tells of finished requests."""

    def __init__(self, *, observer: Observer | None) -> None:
        self._observer = observer
        self._log = logging.getLogger("glancefs.access")
        self._failures = logging.getLogger("glancefs.gateway")

    def note(self, record: Record) -> None:
        """Tell of one request. Never raises: a failing observer is logged, and the request is done anyway."""
        if self._log.isEnabledFor(logging.INFO):
            self._log.info(
                '%s %s "%s %s" %d %d %d %.6f',
                printable(record.client) or "-",
                printable(record.user) or "-",
                printable(record.method) or "-",
                printable(record.target) or "-",
                record.status,
                record.bytes_in,
                record.bytes_out,
                record.seconds,
            )
        if self._observer is None:
            return
        try:
            self._observer(
                route=record.route,
                method=record.method,
                status=record.status,
                bytes_in=record.bytes_in,
                bytes_out=record.bytes_out,
                seconds=record.seconds,
            )
        except Exception:  # noqa: BLE001  (a guard: the request is done, whatever the observer thinks of it)
            self._failures.exception("the observer of requests failed")


def printable(text: str) -> str:
    """Give the text with everything escaped that could forge a line or a field of the log."""
    return _UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", text)

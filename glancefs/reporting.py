# SPDX-License-Identifier: Apache-2.0
"""What the processes of a door tell the one who started them: that they are ready, why not, and what they are moving.

Answers for a private socket between a process and its children, inherited by them and by their forks, on which whole
messages travel. Nobody else can listen, so names may be told. A report that finds no room is left out: the next one
says it all again, but for what has ended, which waits. Does not know what a door is.

Threading: a `Reporter` is made before any fork. Each process may `watch` once; that takes a thread of its own. A
`Reports` belongs to one thread.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from glancefs.errors import ConfigError, GlancefsError, error_named

_log = logging.getLogger(__name__)

_PERIOD: Final = 0.25
"""Seconds between two looks at what is under way."""
_LARGEST: Final = 1 << 17
"""Bytes of a message; the kernel's buffers hold somewhat more."""
_MOST: Final = 100
"""How many transfers a message tells of."""
_LONGEST_NAME: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Data on their way in or out."""

    key: int
    """Tells it from the others of its process."""
    name: str
    is_upload: bool
    done: int
    size: int | None
    """In bytes; None where only the end will tell."""
    seconds: float
    """Since it began."""
    outcome: str = ""
    """Empty while it is under way, then ``done`` or ``failed``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a process is doing, in one moment."""

    under_way: Sequence[Transfer] = ()
    ended: Sequence[Transfer] = ()
    """What has ended since the sample before."""
    read: int = 0
    """Bytes that were read so far, where nobody knows by which transfer."""
    written: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A message of a child."""

    pid: int
    ready: Sequence[str] | None = None
    """The addresses of its doors, once it answers."""
    failure: GlancefsError | None = None
    """Why it can't."""
    sample: Sample | None = None


class Reporter:
    """The side of the children."""

    def __init__(self, end: socket.socket) -> None:
        self._end: Final = end
        self._stopping: Final = threading.Event()
        self._thread: threading.Thread | None = None
        self.before_ready: Callable[[], None] = _nothing
        """Called in the process that is ready, before it says so."""

    def ready(self, addresses: Sequence[str]) -> None:
        """Say that the door answers, and where."""
        self.before_ready()
        self._send({"ready": list(addresses)})

    def failed(self, error: GlancefsError) -> None:
        """Say why it can't."""
        self._send({"failed": [error.code, str(error)[: _LARGEST // 8]]})

    def watch(self, look: Callable[[], Sample]) -> None:
        """Tell what is under way from here on, for as long as this process lives or until `stop`."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._watch, args=(look,), name="reporter", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let go of this process's end; its forks keep theirs."""
        self._end.close()

    def stop(self) -> None:
        """Tell no more."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _watch(self, look: Callable[[], Sample]) -> None:
        told = Sample()
        waiting: list[Transfer] = []
        is_last = False
        while not is_last:
            # What ends a door is what ends its transfers, so there is one more look.
            is_last = self._stopping.wait(_PERIOD)
            try:
                sample = look()
            except Exception:  # noqa: BLE001 - the last guard of its thread: it is logged
                _log.exception("what is under way can't be told")
                return
            waiting = [*waiting, *sample.ended][-_MOST:]
            is_news = bool(waiting) or sample.under_way or told.under_way
            if not is_news and (sample.read, sample.written) == (told.read, told.written):
                continue
            if self._send({"sample": _as_json(sample, waiting)}):
                told, waiting = sample, []

    def _send(self, message: dict[str, Any]) -> bool:
        text = json.dumps({"pid": os.getpid(), **message}).encode()
        try:
            # Nobody waits for an onlooker.
            self._end.send(text, 0 if "sample" not in message else socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True


class Reports:
    """The side of the one who started them."""

    def __init__(self, end: socket.socket) -> None:
        self._end: Final = end
        self._end.settimeout(0)

    def fileno(self) -> int:
        """Give a descriptor that is readable when there is a report."""
        return self._end.fileno()

    def take(self) -> list[Report]:
        """Take what has come."""
        found: list[Report] = []
        while True:
            try:
                text = self._end.recv(_LARGEST)
            except BlockingIOError:
                return found
            if not text:
                return found
            found.append(_report(json.loads(text)))

    def close(self) -> None:
        """Listen no more."""
        self._end.close()


def _nothing() -> None:
    pass


def reporting() -> tuple[Reporter, Reports]:
    """Give both ends; the first is for processes that are forked from here on."""
    # Messages stay whole, whoever of several processes sends them.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Reporter(theirs), Reports(ours)


def _as_json(sample: Sample, ended: Iterable[Transfer]) -> dict[str, Any]:
    def told(transfers: Iterable[Transfer]) -> list[dict[str, Any]]:
        return [{**asdict(one), "name": one.name[:_LONGEST_NAME]} for one in transfers]

    return {
        "under_way": told(sorted(sample.under_way, key=lambda one: -one.seconds)[:_MOST]),
        "ended": told(ended),
        "read": sample.read,
        "written": sample.written,
    }


def _report(message: dict[str, Any]) -> Report:
    failure = sample = None
    if "failed" in message:
        code, text = message["failed"]
        failure = (error_named(code) or ConfigError)(text)
    if "sample" in message:
        said = message["sample"]
        sample = Sample(
            under_way=[Transfer(**one) for one in said["under_way"]],
            ended=[Transfer(**one) for one in said["ended"]],
            read=said["read"],
            written=said["written"],
        )
    return Report(pid=message["pid"], ready=message.get("ready"), failure=failure, sample=sample)

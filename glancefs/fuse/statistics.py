# SPDX-License-Identifier: Apache-2.0
"""What a mount counts of itself.

Answers for the numbers in ``.glance/stats`` and in the line that SIGUSR1 asks for. Counts nothing on its own.

Threading: written by the loop's thread; other threads may read, and see each number whole.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from glancefs.reporting import Sample, Transfer

_TOLD: Final = 100
"""How many files are kept that were written, for who asks for them."""


@dataclass(slots=True, kw_only=True)
class Statistics:
    """Numbers since the mount began."""

    pid: int = field(default_factory=os.getpid)
    started: float = field(default_factory=time.monotonic)
    requests: Counter[str] = field(default_factory=Counter)
    """By the name of the operation."""
    errors: Counter[str] = field(default_factory=Counter)
    """By the name of the errno."""
    bytes_read: int = 0
    bytes_written: int = 0
    cache_hits: int = 0
    """Reads that were answered at once, from memory."""
    hops: int = 0
    """Times that work was handed to a thread."""
    open_files: int = 0
    open_folders: int = 0
    passed_through: int = 0
    """Opens after which the kernel reads by itself; what it reads so is counted nowhere here."""
    inodes: int = 0
    published: int = 0
    invalidated: int = 0
    under_way: Callable[[], Sequence[Transfer]] = tuple
    """Tells which files are being written."""
    ended: deque[Transfer] = field(default_factory=lambda: deque(maxlen=_TOLD))
    """Files that were written, until `sample` takes them."""

    others: list[Statistics] = field(default_factory=list)
    """Those of the other users of a mount on which everybody acts as themselves."""

    def sample(self) -> Sample:
        """Give what the mount is doing, and what has ended since this was asked before; for one asker."""
        all_of_them = [self, *self.others]
        return Sample(
            under_way=[transfer for one in all_of_them for transfer in one.under_way()],
            ended=[one.ended.popleft() for one in all_of_them for _ in range(len(one.ended))],
            read=sum(one.bytes_read for one in all_of_them),
            written=sum(one.bytes_written for one in all_of_them),
        )

    def numbers(self) -> Mapping[str, object]:
        """Give all of them, by name."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "pid": self.pid,
            "seconds": round(time.monotonic() - self.started, 1),
            "requests": self.requests.total(),
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
            "cache_hits": self.cache_hits,
            "hops": self.hops,
            "open_files": self.open_files,
            "open_folders": self.open_folders,
            "passed_through": self.passed_through,
            "inodes": self.inodes,
            "published": self.published,
            "invalidated": self.invalidated,
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
            "peak_memory": usage.ru_maxrss * 1024,
            "by_request": dict(sorted(self.requests.items())),
            "by_error": dict(sorted(self.errors.items())),
        }

    def document(self) -> bytes:
        """Give them as JSON."""
        return json.dumps(self.numbers(), indent=2).encode() + b"\n"

    def line(self) -> str:
        """Give them in one line."""
        return " ".join(f"{name}={value}" for name, value in self.numbers().items() if not isinstance(value, dict))

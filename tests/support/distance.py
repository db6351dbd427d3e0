# SPDX-License-Identifier: Apache-2.0
"""An image far away, in this process: what is asked for is written down, and it can be slow, away or wrong.

Answers for being a `RangeSource` whose every trouble a test can bring about. The real one, over HTTP, has tests of its
own.

Threading: may be asked from many threads.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from datetime import UTC, datetime
from itertools import pairwise

from glancefs.model import Image, ImageStatus, ImageType

_TIME = datetime(2026, 1, 1, tzinfo=UTC)


class Distance:
    """The source of an image of so many bytes; every answer takes so many seconds."""

    def __init__(self, size: int, *, seconds: float = 0.0, is_sparse: bool = False, seed: int = 7) -> None:
        self.size = size
        self.data = bytes(size) if is_sparse else random.Random(seed).randbytes(size)
        self.checksum: str | None = f"sha256:{hashlib.sha256(self.data).hexdigest()}"
        self.seconds = seconds
        self.asked: list[tuple[int, int]] = []
        self.most_at_once = 0
        self.error: Exception | None = None
        self.cut = 0
        """So many bytes are missing from each answer."""
        self.gate: threading.Event | None = None
        """What answers wait for."""
        self._turn = threading.Lock()
        self._at_once = 0

    @property
    def image(self) -> Image:
        """The image, as a registry knows it."""
        return Image(
            id="1",
            name="far",
            type=ImageType.RAW,
            status=ImageStatus.AVAILABLE,
            size=self.size,
            checksum=self.checksum,
            store="file",
            owner="local",
            is_public=True,
            created_at=_TIME,
            updated_at=_TIME,
        )

    @property
    def fetched_once(self) -> bool:
        """Whether every byte was asked for, and none twice."""
        return self.nothing_twice and sum(stop - start for start, stop in self.asked) == self.size

    @property
    def nothing_twice(self) -> bool:
        """Whether no byte was asked for twice."""
        asked = sorted(self.asked)
        return all(before[1] <= after[0] for before, after in pairwise(asked))

    def part(self, start: int, stop: int) -> bytes:
        """What reading this range must give."""
        return self.data[start : max(start, stop)]

    def fetch(self, start: int, stop: int) -> bytes:
        """Give a range, or what goes wrong."""
        assert 0 <= start < stop <= self.size
        with self._turn:
            self.asked.append((start, stop))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if self.seconds:
                time.sleep(self.seconds)
            if self.gate is not None:
                self.gate.wait()
            if self.error is not None:
                raise self.error
            return self.data[start : stop - self.cut]
        finally:
            with self._turn:
                self._at_once -= 1

# SPDX-License-Identifier: Apache-2.0
"""What a tree has begun and not finished: staged files, whose turn it is with each, and what people are told of them.

Answers for what several views of one tree share, such as the requests of one WebDAV user.

Threading: thread-safe; nothing in here waits for anything.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from datetime import UTC, datetime
from threading import Lock
from typing import Final
from weakref import ReferenceType, ref

from glancefs.errors import GlancefsError
from glancefs.model import Image
from glancefs.staging import StagedUpload
from glancefs.tree.overlay import Overlay

GRACE: Final = 30.0
"""For how many seconds after a file became an image a copy tool may still be at its attributes."""

_ERRORS_KEPT: Final = 1000

_log = logging.getLogger("glancefs.tree")


class Turns:
    """Who may publish a file, one at a time, and which images were made a moment ago."""

    def __init__(self) -> None:
        self._lock: Final = Lock()
        self._turns: Final[dict[str, Lock]] = {}
        self._fresh: Final[dict[str, float]] = {}

    def of(self, staged: StagedUpload) -> Lock:
        """Give the lock of a file."""
        with self._lock:
            return self._turns.setdefault(staged.key, Lock())

    def forget(self, staged: StagedUpload) -> None:
        """Let go of the lock of a file that is over."""
        with self._lock:
            self._turns.pop(staged.key, None)

    def remember(self, image: Image) -> None:
        """Take down that an image was made just now."""
        now = time.monotonic()
        with self._lock:
            # The oldest come first, and thousands are made within that time.
            while self._fresh and next(iter(self._fresh.values())) < now:
                del self._fresh[next(iter(self._fresh))]
            self._fresh.pop(image.id, None)
            self._fresh[image.id] = now + GRACE

    def is_fresh(self, image_id: str) -> bool:
        """Say whether the image was made here a moment ago."""
        return time.monotonic() < self._fresh.get(image_id, 0)


class Begun:
    """What is under way in one tree; ``overlay`` says where staged files are seen (None: in this process only)."""

    def __init__(self, *, overlay: Overlay | None = None, since: int | None = None) -> None:
        self.overlay: Final = overlay or Overlay()
        self.turns: Final = Turns()
        self.since: Final = time.time_ns() if since is None else since
        """When the tree began: the time of folders that nobody made."""
        self._errors: Final[deque[str]] = deque(maxlen=_ERRORS_KEPT)
        self._told: ReferenceType[GlancefsError] | None = None

    def report(self, path: str, error: BaseException | str) -> None:
        """Add a line to ``.glance/errors`` (the latest 1000 are kept) and log it; the same error once."""
        if isinstance(error, GlancefsError):
            # A failure is told where it happens, and may come by once more at the door.
            if self._told is not None and self._told() is error:
                return
            self._told = ref(error)
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        text = str(error) or type(error).__name__
        self._errors.append(f"{now} {path}: {text}")
        _log.warning("%s: %s", path, text)

    def error_text(self) -> bytes:
        """Give the text of ``.glance/errors``."""
        return "".join(f"{line}\n" for line in list(self._errors)).encode(errors="replace")

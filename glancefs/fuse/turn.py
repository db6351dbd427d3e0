# SPDX-License-Identifier: Apache-2.0
"""A lock that who finds it free has at once.

`trio.Lock` lets all others run first, so that nobody is left out; here nobody could be, since tasks that answer the
kernel end soon, and each such pass through the loop is a tenth of what a small request takes.

Answers for that alone.

Threading: belongs to the loop's thread.
"""

from __future__ import annotations

from typing import Final

import trio


class Turn:
    """Whose turn it is; one after the other, in the order in which they came."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock: Final = trio.Lock()

    async def __aenter__(self) -> None:
        # Who holds it lets go of it to the first in line, so a free lock has no line.
        if self._lock.locked():
            await self._lock.acquire()
        else:
            self._lock.acquire_nowait()

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()

    def locked(self) -> bool:
        """Whether it is somebody's turn."""
        return self._lock.locked()

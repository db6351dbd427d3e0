# SPDX-License-Identifier: Apache-2.0
"""The use cases of write locks: who may hold which, for how long, and where they are.

Answers for tokens, for times, and for whose things a lock guards. That nothing locked is changed, the registry sees to.

Threading: thread-safe, as the registry is.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from glancefs.context import RequestContext
from glancefs.errors import NotAuthenticated
from glancefs.registries.base import Registry
from glancefs.registries.locks import Lock, Presented, Touched

LONGEST: Final = 86_400
"""For how many seconds a lock lasts at the most, until it is refreshed: who died hinders nobody for longer."""
DEFAULT: Final = 3_600
"""For how many seconds a lock lasts of which that was not said."""


class Locks:
    """The use cases over one registry."""

    def __init__(self, *, registry: Registry, clock: Callable[[], datetime]) -> None:
        self._registry: Final = registry
        self._clock: Final = clock

    def acquire(
        self,
        context: RequestContext,
        path: str,
        *,
        is_shared: bool,
        is_deep: bool,
        owner_xml: str = "",
        seconds: int | None = None,
    ) -> Lock:
        """Lock a path of the caller's tree. Raises Locked, NotAuthenticated, StoreFull, InvalidRequest."""
        now = self._clock()
        user = _user(context)
        lock = Lock(
            token=f"urn:uuid:{uuid.uuid4()}",
            path=path,
            user=user,
            guards=_guarding(context),
            is_shared=is_shared,
            is_deep=is_deep,
            owner_xml=owner_xml,
            created_at=now,
            expires_at=now + _time(seconds),
        )
        return self._registry.locks.acquire(lock, now=now)

    def refresh(self, context: RequestContext, token: str, *, seconds: int | None = None) -> Lock:
        """Let a lock of the caller's last anew. Raises LockNotFound, NotAuthenticated."""
        now = self._clock()
        return self._registry.locks.refresh(token, user=_user(context), expires_at=now + _time(seconds), now=now)

    def release(self, context: RequestContext, token: str) -> Lock:
        """Remove a lock of the caller's; an admin may remove everybody's. Raises LockNotFound, NotAuthenticated."""
        user = _user(context)
        return self._registry.locks.release(token, user=None if context.is_admin else user, now=self._clock())

    def get(self, token: str) -> Lock:
        """Give a lock. Raises LockNotFound."""
        return self._registry.locks.get(token, now=self._clock())

    def covering(self, context: RequestContext, path: str) -> Sequence[Lock]:
        """Give the locks that hold for a path of the caller's tree."""
        return self._registry.locks.covering(path, guarding=_guarding(context), now=self._clock())

    def below(self, context: RequestContext, path: str) -> Sequence[Lock]:
        """Give the locks below a folder of the caller's tree."""
        return self._registry.locks.below(path, guarding=_guarding(context), now=self._clock())

    def check(self, context: RequestContext, path: str, *, is_new: bool) -> None:
        """Raise Locked where a lock keeps the caller from writing to a path, so that no data come in vain.

        The change itself is held against the locks once more, in its transaction.
        """
        touched = Touched(path=path, guarding=_guarding(context), is_bound=is_new)
        presented = Presented(user=context.user, tokens=context.lock_tokens, at=self._clock())
        self._registry.locks.check(touched, presented)

    def seconds_left(self, lock: Lock) -> int:
        """Give for how many seconds a lock lasts."""
        return max(0, int((lock.expires_at - self._clock()).total_seconds()))


def _guarding(context: RequestContext) -> str | None:
    """Give whose things a caller's locks guard: an admin's tree holds everybody's."""
    return None if context.is_admin else context.user


def _time(seconds: int | None) -> timedelta:
    return timedelta(seconds=DEFAULT if seconds is None else min(max(seconds, 1), LONGEST))


def _user(context: RequestContext) -> str:
    if context.user is None:
        raise NotAuthenticated("Only a known user may lock anything: log in.")
    return context.user

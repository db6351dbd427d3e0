# SPDX-License-Identifier: Apache-2.0
"""The use cases of write locks (RFC 4918, section 6): taking, refreshing and giving back, and asking for them.

Answers for who may hold which lock, and for how long. What a lock keeps from being changed, the registry sees to; where
things lie in a tree, `glancefs.tree` knows.

Threading: thread-safe, as the registry is.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Final

from glancefs.context import RequestContext
from glancefs.errors import Forbidden, NotAuthenticated
from glancefs.registries.base import Registry
from glancefs.registries.locks import Lock, Presented, Touched

MOST_SECONDS: Final = 24 * 3600
"""How long a lock lasts at the most without being refreshed, whatever was asked for (section 10.7)."""


class Locks:
    """The use cases over one registry."""

    def __init__(self, *, registry: Registry, clock: Callable[[], datetime]) -> None:
        self._registry = registry
        self._clock = clock

    def acquire(
        self,
        context: RequestContext,
        path: str,
        *,
        guards: str | None,
        is_shared: bool = False,
        is_deep: bool = False,
        owner_xml: str = "",
        seconds: int | None = None,
    ) -> Lock:
        """Take a lock for this caller, for so many seconds (None: as long as can be).

        ``guards`` says whose things it guards; only an admin may guard those of others, and everybody's (None). Raises
        Locked, NotAuthenticated, Forbidden, InvalidRequest, StoreFull.
        """
        user = _user(context)
        if guards != user and not context.is_admin:
            raise Forbidden("Only an admin may lock what belongs to somebody else.")
        now = self._clock()
        lock = Lock(
            token=f"urn:uuid:{uuid.uuid4()}",
            path=path,
            user=user,
            guards=guards,
            is_shared=is_shared,
            is_deep=is_deep,
            owner_xml=owner_xml,
            created_at=now,
            expires_at=now + _lasting(seconds),
        )
        return self._registry.locks.acquire(lock, now=now)

    def refresh(self, context: RequestContext, token: str, *, seconds: int | None = None) -> Lock:
        """Let a lock of the caller's last for so many seconds from now. Raises LockNotFound, NotAuthenticated."""
        now = self._clock()
        return self._registry.locks.refresh(token, user=_user(context), expires_at=now + _lasting(seconds), now=now)

    def release(self, context: RequestContext, token: str) -> Lock:
        """Give a lock back; an admin may break anybody's (section 6.4). Raises LockNotFound, NotAuthenticated."""
        user = _user(context)
        return self._registry.locks.release(token, user=None if context.is_admin else user, now=self._clock())

    def covering(self, path: str, *, guarding: str | None) -> Sequence[Lock]:
        """Give the locks that hold for a path; see `LockRegistry.covering`."""
        return self._registry.locks.covering(path, guarding=guarding, now=self._clock())

    def below(self, path: str, *, guarding: str | None) -> Sequence[Lock]:
        """Give the locks on paths below a folder; see `LockRegistry.below`."""
        return self._registry.locks.below(path, guarding=guarding, now=self._clock())

    def check(self, context: RequestContext, touched: Collection[Touched]) -> bool:
        """Raise Locked if a change of the caller's would meet a lock whose token they do not submit.

        Gives whether there are any locks at all.
        """
        return self._registry.locks.check(touched, self._presented(context))

    def forget(self, context: RequestContext, path: str, *, guarding: str | None) -> None:
        """Remove the locks of what is removed from a path; see `LockRegistry.forget`. Raises Locked."""
        self._registry.locks.forget(path, guarding=guarding, presented=self._presented(context))

    def _presented(self, context: RequestContext) -> Presented:
        return Presented(user=context.user, tokens=context.lock_tokens, at=self._clock())


def _lasting(seconds: int | None) -> timedelta:
    return timedelta(seconds=MOST_SECONDS if seconds is None else max(1, min(seconds, MOST_SECONDS)))


def _user(context: RequestContext) -> str:
    if context.user is None:
        raise NotAuthenticated("Only a known user may lock anything: log in.")
    return context.user

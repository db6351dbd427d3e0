# SPDX-License-Identifier: Apache-2.0
"""What every registry promises about write locks: who may not change what for a while (RFC 4918, sections 6 and 7).

Answers for the `LockRegistry` protocol and the values it speaks in; `glancefs.registries.base` has the rest. Which
changes are held against locks, and where an image lies in the tree, `glancefs.images` and `glancefs.tree` know; that a
change and a lock never pass each other by, the registry sees to: both are made in transactions that line up.

A lock is on a *path*, whatever is there: nothing, an image, the image that takes its place (section 7.3, 7.5). It does
not follow what is renamed (7.6), and goes when what is at its path is removed or renamed away (6.1).

Every user has a tree of their own, so a lock says whose things it *guards*: those of one user, or everybody's. Locks
that guard different users' things know nothing of each other, though their paths may be the same: somebody else's
private image does not exist for you, nor does the lock on it.

Threading: every method may be called from many threads at once, and from many processes on the same database.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

MAX_OWNER_XML: Final = 8192
"""How many characters a client may say about who it is."""

MAX_TOKEN: Final = 255
"""How many characters a token may have."""

MOST_LOCKS: Final = 10_000
"""How many locks one user may hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """A write lock. Times are UTC, in whole seconds."""

    token: str
    """What its holder has to present: a URI that is never used twice (section 6.5), ``urn:uuid:…``."""
    path: str
    """Where its root is (``DAV:lockroot``), a path of `glancefs.paths`; ``""`` is the root of the tree."""
    user: str
    """Who holds it: nobody else's token is worth anything (section 6.4)."""
    guards: str | None
    """Whose images and folders it guards; None: everybody's."""
    is_shared: bool = False
    """Whether others may hold a shared lock beside it; else it is exclusive (section 6.2)."""
    is_deep: bool = False
    """Whether it holds for everything below its path, now and later (depth infinity, section 7.4)."""
    owner_xml: str = ""
    """What the client said about its person: the content of ``DAV:owner``, as it came (section 14.17)."""
    created_at: datetime
    expires_at: datetime
    """From this moment on it is as if it were not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """Who makes a change, and which tokens they submit with it (section 7: 'lock token submission')."""

    user: str | None
    tokens: frozenset[str] = frozenset()
    at: datetime
    """When: locks that have expired by then hinder nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Touched:
    """A path at which a change takes place."""

    path: str
    guarding: str | None
    """Whose thing changes there; None: everybody's may."""
    is_bound: bool = False
    """Whether a name appears or vanishes there: then the locks on the folder that it is in count too (section 7.4)."""
    is_deep: bool = False
    """Whether everything below it goes with it."""


class LockRegistry(Protocol):
    """Keeps write locks. Of locks that have expired it tells nothing; nobody needs to clear them away."""

    def acquire(self, lock: Lock, *, now: datetime) -> Lock:
        """Keep a lock, and give it.

        Raises Locked, naming the lock that is in the way: an exclusive one, or any if this one is exclusive, on the
        same path, on a folder above if that is deep, and, if this one is deep, on anything below. Locks that guard
        other users' things are not in the way. Of many callers at once, in whichever processes, exactly one gets an
        exclusive lock. Raises Duplicate for a token that was used, StoreFull when its user holds `MOST_LOCKS`,
        InvalidRequest for what is too long to be kept.
        """
        ...

    def refresh(self, token: str, *, user: str, expires_at: datetime, now: datetime) -> Lock:
        """Let a lock of this user last longer, or shorter. Raises LockNotFound (section 9.10.2)."""
        ...

    def release(self, token: str, *, user: str | None, now: datetime) -> Lock:
        """Remove a lock of this user (None: whosever), and give what it was. Raises LockNotFound."""
        ...

    def get(self, token: str, *, now: datetime) -> Lock:
        """Give a lock. Raises LockNotFound."""
        ...

    def covering(self, path: str, *, guarding: str | None, now: datetime) -> Sequence[Lock]:
        """Give the locks that hold for a path: those on it, and the deep ones on the folders above.

        Only those that guard this user's things or everybody's; ``guarding`` None: all of them. From the root down.
        """
        ...

    def below(self, path: str, *, guarding: str | None, now: datetime) -> Sequence[Lock]:
        """Give the locks on paths below a folder, not on itself, ordered by path; ``guarding`` as for `covering`."""
        ...

    def check(self, touched: Collection[Touched], presented: Presented) -> bool:
        """Raise Locked if a change would meet a lock that is not unlocked by what is presented.

        Of shared locks that hold for one path, one token is enough. Gives whether there are any locks at all; costs the
        reading of one row while there are none. For refusing early: the change itself is held against locks once more,
        in its transaction.
        """
        ...

    def forget(self, path: str, *, guarding: str | None, presented: Presented) -> None:
        """Remove the locks on a path and below, since what was there is removed (section 6.1).

        For what the registry does not know of, such as staged files; for images and folders it does so itself.
        Raises Locked unless a token of every locked path is presented.
        """
        ...

# SPDX-License-Identifier: Apache-2.0
"""Write locks in the database, and holding changes against them in the transactions that make them.

Answers for `LockRegistry`, and for which locks a change meets (RFC 4918, section 7). Since all writers line up at one
row, a change and a lock are never made at the same time; and since that row says how many locks there are, a change
costs nothing more as long as there are none. Expired locks count for nothing; writers that meet some clear them away.

Threading: every method may be called from many threads at once, and from many processes on the same database.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, Row, and_, bindparam, delete, func, insert, or_, select, update

from glancefs.errors import Duplicate, InvalidRequest, Locked, LockNotFound, StoreFull
from glancefs.paths import split
from glancefs.registries.commits import Commits, Transaction
from glancefs.registries.database import Database, looks_again
from glancefs.registries.locks import MAX_OWNER_XML, MAX_TOKEN, MOST_LOCKS, Lock, Presented, Touched
from glancefs.registries.rows import folder_key, seconds
from glancefs.registries.schema import counters, locks
from glancefs.registries.sql_pulse import pulse_of

_OF_TOKEN: Final = select(locks).where(locks.c.token == bindparam("wanted_token"))
_OF_HOLDER: Final = select(func.count()).select_from(locks).where(locks.c.holder == bindparam("wanted_holder"))
_LIVING: Final = locks.c.expires_at > bindparam("now")
_ON_PATHS: Final = locks.c.path.in_(bindparam("keys", expanding=True))
_BELOW: Final = and_(locks.c.path > bindparam("start"), locks.c.path < bindparam("stop"))
_ON: Final = select(locks).where(_LIVING, _ON_PATHS).order_by(locks.c.path)
_ON_OR_BELOW: Final = select(locks).where(_LIVING, or_(_ON_PATHS, _BELOW)).order_by(locks.c.path)
_ONLY_BELOW: Final = select(locks).where(_LIVING, _BELOW).order_by(locks.c.path)
_ALL: Final = select(*(column for column in locks.c if column.name != "owner_xml")).order_by(locks.c.path)
_FEW: Final = 100
"""Up to how many locks are looked through in memory."""
_HOW_MANY: Final = select(counters.c.locks).where(counters.c.id == 1)


class SqlLocks:
    """The locks of a registry that is kept in a database."""

    def __init__(self, *, database: Database, commits: Commits) -> None:
        self._database = database
        self._commits = commits

    def acquire(self, lock: Lock, *, now: datetime) -> Lock:
        """See `LockRegistry.acquire`."""
        if len(lock.owner_xml) > MAX_OWNER_XML or not 0 < len(lock.token) <= MAX_TOKEN:
            raise InvalidRequest(f"What a lock says of its owner is {MAX_OWNER_XML} characters long at the most.")
        return self._commits.run(partial(_acquire, lock=lock, now=now))

    def refresh(self, token: str, *, user: str, expires_at: datetime, now: datetime) -> Lock:
        """See `LockRegistry.refresh`."""
        return self._commits.run(partial(_refresh, token=token, user=user, expires_at=expires_at, now=now))

    def release(self, token: str, *, user: str | None, now: datetime) -> Lock:
        """See `LockRegistry.release`."""
        return self._commits.run(partial(_release, token=token, user=user, now=now))

    @looks_again
    def get(self, token: str, *, now: datetime) -> Lock:
        """See `LockRegistry.get`."""
        with self._database.reading() as connection:
            row = connection.execute(_OF_TOKEN, {"wanted_token": token}).one_or_none()
        return _living(row, user=None, now=now)

    @looks_again
    def covering(self, path: str, *, guarding: str | None, now: datetime) -> Sequence[Lock]:
        """See `LockRegistry.covering`."""
        with self._database.reading() as connection:
            if not pulse_of(connection).locks:
                return ()
            found = _met(connection, path, guarding=guarding, now=now, is_deep=False)
        return [lock for lock in found if _covers(lock, path)]

    @looks_again
    def below(self, path: str, *, guarding: str | None, now: datetime) -> Sequence[Lock]:
        """See `LockRegistry.below`."""
        with self._database.reading() as connection:
            if not pulse_of(connection).locks:
                return ()
            rows = connection.execute(_ONLY_BELOW, _range(path) | {"now": seconds(now)}).all()
        return [lock for lock in map(_lock_of, rows) if _overlap(lock.guards, guarding)]

    @looks_again
    def check(self, touched: Collection[Touched], presented: Presented) -> bool:
        """See `LockRegistry.check`."""
        with self._database.reading() as connection:
            if not pulse_of(connection).locks:
                return False
            hindrances = [_hindrance(connection, one, presented) for one in touched]
        # Outside, since an error inside would cost the connection.
        for hindrance in hindrances:
            if hindrance is not None:
                raise _locked(hindrance)
        return True

    def forget(self, path: str, *, guarding: str | None, presented: Presented) -> None:
        """See `LockRegistry.forget`."""
        with self._database.reading() as connection:
            is_unused = not connection.execute(_HOW_MANY).scalar_one()
        if not is_unused:
            touched = Touched(path=path, guarding=guarding, is_deep=True)
            self._commits.run(partial(_check_and_forget, touched=touched, presented=presented))


# What other changes ask, inside their transactions


def check_unlocked(
    transaction: Transaction, presented: Presented | None, touched: Callable[[], Collection[Touched]]
) -> None:
    """Raise Locked unless every lock that a change meets is unlocked by what is presented (None asks for no locks).

    Of shared locks on one path one token is enough. What is touched is asked only where there are locks.
    """
    if presented is None or not transaction.locks:
        return
    _clear_away(transaction, presented.at)
    if not transaction.locks:
        return
    for one in touched():
        met = _met_by(transaction, one.path, guarding=one.guarding, now=presented.at, is_deep=one.is_deep)
        hindrance = _not_unlocked(one, met, presented)
        if hindrance is not None:
            raise _locked(hindrance)


def forget_locks(transaction: Transaction, path: str, *, guards: str | None, is_deep: bool = False) -> None:
    """Remove the locks on a path, and below it, since what was there is gone (section 6.1).

    Only those that guard this user's things; None: all of them.
    """
    if not transaction.locks:
        return
    key = folder_key(path)
    gone = locks.c.path == key
    if is_deep:
        span = _range(path)
        gone = or_(gone, and_(locks.c.path >= span["start"], locks.c.path < span["stop"]))
    whose = [] if guards is None else [locks.c.guards == guards]
    if transaction.connection.execute(delete(locks).where(gone, *whose)).rowcount:
        transaction.count_locks()


def has_locks_on(transaction: Transaction, paths: Collection[str], *, now: datetime) -> bool:
    """Say whether any of these very paths is locked."""
    few = _few(transaction)
    if few is not None:
        return any(lock.path in paths and lock.expires_at > now for lock in few)
    values = {"keys": [folder_key(path) for path in paths], "now": seconds(now)}
    return transaction.connection.execute(_ON, values).first() is not None


# The changes


def _acquire(transaction: Transaction, *, lock: Lock, now: datetime) -> Lock:
    _clear_away(transaction, now)
    connection = transaction.connection
    if transaction.locks:
        for other in _met_by(transaction, lock.path, guarding=lock.guards, now=now, is_deep=lock.is_deep):
            meets = _covers(other, lock.path) or (lock.is_deep and _is_below(other.path, lock.path))
            if meets and not (lock.is_shared and other.is_shared):
                raise _locked(other)
        if connection.execute(_OF_TOKEN, {"wanted_token": lock.token}).first() is not None:
            raise Duplicate("The token of a lock was used before.")
        if connection.execute(_OF_HOLDER, {"wanted_holder": lock.user}).scalar_one() >= MOST_LOCKS:
            raise StoreFull(f"There is room for {MOST_LOCKS} locks of one user.")
    row = {
        "token": lock.token,
        "path": folder_key(lock.path),
        "holder": lock.user,
        "guards": lock.guards,
        "is_shared": lock.is_shared,
        "is_deep": lock.is_deep,
        "owner_xml": lock.owner_xml,
        "created_at": seconds(lock.created_at),
        "expires_at": seconds(lock.expires_at),
    }
    connection.execute(insert(locks), row)
    transaction.count_locks()
    return lock


def _refresh(transaction: Transaction, *, token: str, user: str, expires_at: datetime, now: datetime) -> Lock:
    _held(transaction, token, user=user, now=now)
    connection = transaction.connection
    connection.execute(update(locks).where(locks.c.token == token), {"expires_at": seconds(expires_at)})
    transaction.known_locks = None
    return _lock_of(connection.execute(_OF_TOKEN, {"wanted_token": token}).one())


def _release(transaction: Transaction, *, token: str, user: str | None, now: datetime) -> Lock:
    lock = _held(transaction, token, user=user, now=now)
    transaction.connection.execute(delete(locks).where(locks.c.token == token))
    transaction.count_locks()
    return lock


def _held(transaction: Transaction, token: str, *, user: str | None, now: datetime) -> Lock:
    row = transaction.connection.execute(_OF_TOKEN, {"wanted_token": token}).one_or_none()
    return _living(row, user=user, now=now)


def _check_and_forget(transaction: Transaction, *, touched: Touched, presented: Presented) -> None:
    check_unlocked(transaction, presented, lambda: (touched,))
    forget_locks(transaction, touched.path, guards=touched.guarding, is_deep=touched.is_deep)


def _clear_away(transaction: Transaction, now: datetime) -> None:
    few = _few(transaction)
    if few is None or any(lock.expires_at <= now for lock in few):
        expired = delete(locks).where(locks.c.expires_at <= bindparam("now"))
        if transaction.connection.execute(expired, {"now": seconds(now)}).rowcount:
            transaction.count_locks()


# What meets what


def _few(transaction: Transaction) -> Sequence[Lock] | None:
    """Give all locks there are, what they say of their owners left out; None: they are too many for that.

    Read once in a transaction, they cost the changes in it less than finding those that matter to each would.
    """
    if transaction.locks > _FEW:
        return None
    if transaction.known_locks is None:
        rows = transaction.connection.execute(_ALL).all() if transaction.locks else []
        transaction.known_locks = [_lock_of(row) for row in rows]
    return transaction.known_locks


def _met_by(
    transaction: Transaction, path: str, *, guarding: str | None, now: datetime, is_deep: bool
) -> Sequence[Lock]:
    """Give what `_met` gives, from memory where that can be."""
    few = _few(transaction)
    if few is None:
        return _met(transaction.connection, path, guarding=guarding, now=now, is_deep=is_deep)
    above = set(_ancestry(path))
    return [
        lock
        for lock in few
        if (lock.path in above or (is_deep and _is_below(lock.path, path)))
        and lock.expires_at > now
        and _overlap(lock.guards, guarding)
    ]


def _hindrance(connection: Connection, touched: Touched, presented: Presented) -> Lock | None:
    """Give a lock that a change would meet and that is not unlocked."""
    met = _met(connection, touched.path, guarding=touched.guarding, now=presented.at, is_deep=touched.is_deep)
    return _not_unlocked(touched, met, presented)


def _not_unlocked(touched: Touched, met: Sequence[Lock], presented: Presented) -> Lock | None:
    for path in _locked_paths(touched, met):
        covering = [lock for lock in met if _covers(lock, path)]
        if covering and not any(_unlocks(presented, lock) for lock in covering):
            return covering[-1]
    return None


def _met(connection: Connection, path: str, *, guarding: str | None, now: datetime, is_deep: bool) -> Sequence[Lock]:
    """Give all locks on a path and on the folders above it, deep or not, and with ``is_deep`` on what is below it."""
    values: dict[str, Any] = {"keys": [folder_key(above) for above in _ancestry(path)], "now": seconds(now)}
    if is_deep:
        values |= _range(path)
    rows = connection.execute(_ON_OR_BELOW if is_deep else _ON, values).all()
    return [lock for lock in map(_lock_of, rows) if _overlap(lock.guards, guarding)]


def _locked_paths(touched: Touched, met: Sequence[Lock]) -> Iterator[str]:
    """Give the paths that have to be unlocked, each on its own."""
    yield touched.path
    if touched.is_bound and touched.path:
        yield split(touched.path)[0]
    if touched.is_deep:
        yield from {lock.path for lock in met if _is_below(lock.path, touched.path)}


def _covers(lock: Lock, path: str) -> bool:
    return lock.path == path or (lock.is_deep and _is_below(path, lock.path))


def _is_below(path: str, folder: str) -> bool:
    return path != folder and path.startswith(folder_key(folder))


def _overlap(one: str | None, other: str | None) -> bool:
    return one is None or other is None or one == other


def _unlocks(presented: Presented, lock: Lock) -> bool:
    return lock.token in presented.tokens and lock.user == presented.user


def _ancestry(path: str) -> Iterator[str]:
    yield path
    while path:
        path = split(path)[0]
        yield path


def _range(path: str) -> dict[str, str]:
    """Give where the paths below a folder begin and end in an index: "0" comes right behind "/" in every encoding."""
    key = folder_key(path)
    return {"start": key, "stop": f"{key[:-1]}0" if key else "\U0010ffff" * 64}


def _locked(lock: Lock) -> Locked:
    until = lock.expires_at.strftime("%Y-%m-%d %H:%M:%S")
    return Locked(f"{lock.path or '/'!r} is locked by {lock.user} until {until} UTC at the latest.", path=lock.path)


# Rows


def _living(row: Row[Any] | None, *, user: str | None, now: datetime) -> Lock:
    if row is None or row.expires_at <= seconds(now) or (user is not None and row.holder != user):
        raise LockNotFound("There is no such lock, or no longer.")
    return _lock_of(row)


def _lock_of(row: Row[Any]) -> Lock:
    return Lock(
        token=row.token,
        path=row.path[:-1],
        user=row.holder,
        guards=row.guards,
        is_shared=row.is_shared,
        is_deep=row.is_deep,
        owner_xml=getattr(row, "owner_xml", ""),
        created_at=datetime.fromtimestamp(row.created_at, UTC),
        expires_at=datetime.fromtimestamp(row.expires_at, UTC),
    )

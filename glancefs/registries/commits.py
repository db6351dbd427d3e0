# SPDX-License-Identifier: Apache-2.0
"""Group commit: changes that are asked for at the same time share one transaction and one sync of the disk.

Answers for the order of changes, and for everybody getting the outcome of their own change and of no other. Knows
nothing of what the changes do.

There is no thread for it. Whoever asks while nobody commits does so for all that are waiting by then; who comes in the
meantime waits, and the first of them commits next. So a lone caller waits for nobody, and a fork leaves nothing behind.

Threading: `run` may be called from many threads at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Lock as ThreadLock
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from sqlalchemy import ColumnElement, Connection, bindparam, func, insert, select, update

from glancefs.errors import GlancefsError, RegistryUnavailable
from glancefs.model import Image, ImageStatus
from glancefs.registries.database import ConnectionLost, Contended, Database, OutcomeUnknown, Ways
from glancefs.registries.locks import Lock
from glancefs.registries.schema import counters, holdings
from glancefs.registries.schema import locks as lock_table
from glancefs.registries.sql_pulse import Straight

_MOST: Final = 256
"""How many changes one transaction takes at the most."""

_ATTEMPTS: Final = 5
"""How often a transaction is tried that the database undoes or breaks off."""

_COUNTERS: Final = Straight(
    select(*(counters.c[name] for name in ("revision", "next_id", "locks", "has_dead_properties")))
    .where(counters.c.id == 1)
    .with_for_update()
)
_COUNT: Final = Straight(update(counters).where(counters.c.id == 1))
_COUNTED: Final = update(counters).where(counters.c.id == 1)
_COUNT_LOCKS: Final = select(func.count()).select_from(lock_table)
_HELD: Final = Straight(
    update(holdings)
    .where(holdings.c.status == bindparam("of_status"), holdings.c.store == bindparam("of_store"))
    .values(
        images=holdings.c.images + bindparam("counted"),
        size_high=holdings.c.size_high + bindparam("high"),
        size_low=holdings.c.size_low + bindparam("low"),
    )
)
_FIRST_HELD: Final = insert(holdings).values(
    status=bindparam("of_status"),
    store=bindparam("of_store"),
    images=bindparam("counted"),
    size_high=bindparam("high"),
    size_low=bindparam("low"),
)

Outcome = TypeVar("Outcome")


class Transaction:
    """What changes are made in: the connection, and what is counted, which is written down before the commit."""

    def __init__(self, connection: Connection, *, ways: Ways, news: Sequence[ColumnElement[Any]] = ()) -> None:
        self.connection = connection
        self.ways = ways
        self._news = news
        ((revision, next_id, locks, has_dead_properties),) = _COUNTERS.rows(connection, {}, ways)
        self._first_revision = self._revision = int(revision)
        self._next_id = int(next_id)
        self.locks = int(locks or 0)
        """How many rows there are in the table of locks; `count_locks` says how many there are now."""
        self.known_locks: Sequence[Lock] | None = None
        """All of them, where somebody has read them; None again once they change."""
        self.has_dead_properties = bool(has_dead_properties)
        self._held: dict[tuple[str, str], tuple[int, int, int]] = {}

    def next_revision(self) -> int:
        """Raise the counter of changes, and give it."""
        self._revision += 1
        return self._revision

    def next_numbers(self, count: int) -> range:
        """Give the numbers from which the next identifier comes; `use_number` takes one."""
        return range(self._next_id, self._next_id + count)

    def use_number(self, number: int) -> None:
        """Never give this number again, nor those below it."""
        self._next_id = number + 1

    def hold(self, image: Image, *, images: int) -> None:
        """Count such an image: 1 for one more, -1 for one less. Deleted ones don't count."""
        if image.status is not ImageStatus.DELETED:
            kind = str(image.status), image.store
            counted, high, low = self._held.get(kind, (0, 0, 0))
            # Halves of sizes: the sum of whole ones may be larger than the database's numbers.
            high, low = high + images * (image.size >> 32), low + images * (image.size & 0xFFFFFFFF)
            self._held[kind] = counted + images, high, low

    def count_locks(self) -> None:
        """Count the locks anew: whoever adds or removes some calls this."""
        self.known_locks = None
        self.locks = int(self.connection.execute(_COUNT_LOCKS).scalar_one())
        self.connection.execute(_COUNTED, {"locks": self.locks})

    def note_dead_properties(self) -> None:
        """Let everybody know that there are dead properties."""
        if not self.has_dead_properties:
            self.has_dead_properties = True
            self.connection.execute(_COUNTED, {"has_dead_properties": True})

    def write_down(self) -> None:
        """Write what was counted, if anything changed."""
        if self._revision != self._first_revision:
            counts = {"revision": self._revision, "next_id": self._next_id}
            if self._news:
                self.connection.execute(_COUNTED.returning(*self._news), counts)
            else:
                _COUNT.change(self.connection, counts, self.ways)
        for (status, store), (counted, high, low) in self._held.items():
            if counted or high or low:
                more = {"of_status": status, "of_store": store, "counted": counted, "high": high, "low": low}
                if not _HELD.change(self.connection, more, self.ways):
                    self.connection.execute(_FIRST_HELD, more)


Change = Callable[[Transaction], Outcome]
"""Raises errors of ours only before it has changed anything, what its transaction counts included."""


class Commits(Protocol):
    """Makes changes, each in a transaction."""

    def run(self, change: Change[Outcome]) -> Outcome:
        """Make a change, and give its outcome once it is on the disk."""
        ...

    def close(self) -> None:
        """Let go of the connection, once the transaction under way is over."""
        ...


class _Job(Generic[Outcome]):
    """A change on its way through. Its owner sleeps until there is an outcome, or until it is to lead."""

    __slots__ = ("_change", "_news", "_outcome", "_refusal", "error", "leads")

    def __init__(self, change: Change[Outcome]) -> None:
        self._change = change
        self._outcome: Outcome | None = None
        self._refusal: GlancefsError | None = None
        self._news = ThreadLock()
        self._news.acquire()
        self.error: Exception | None = RegistryUnavailable("The change was interrupted before it was made.")
        self.leads = False

    def wait(self) -> None:
        self._news.acquire()

    def wake(self) -> None:
        self._news.release()

    def attempt(self, transaction: Transaction) -> None:
        """Make the change, or keep the refusal for its owner; other errors are the transaction's."""
        self._refusal = None
        try:
            self._outcome = self._change(transaction)
        except GlancefsError as error:
            self._refusal = error

    def confirm(self) -> None:
        """Let the attempt count: what it did is on the disk."""
        self.error = self._refusal

    def answer(self) -> Outcome:
        if self.error is not None:
            raise self.error
        return cast("Outcome", self._outcome)


class GroupCommit:
    """Makes changes in transactions that those who ask at the same time share."""

    def __init__(self, *, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None
        self._lock = ThreadLock()
        self._waiting: deque[_Job[object]] = deque()
        self._led = False
        self._closed = False

    def run(self, change: Change[Outcome]) -> Outcome:
        """Make a change, and give its outcome once it is on the disk.

        Raises what the change raises; RegistryUnavailable or StoreFull where the database fails.
        """
        job = _Job(change)
        anyones = cast("_Job[object]", job)
        with self._lock:
            self._waiting.append(anyones)
            if not self._led:
                self._led = job.leads = True
        try:
            if not job.leads:
                job.wait()
        except BaseException:
            self._give_up(anyones)
            raise
        if job.leads:
            self._lead(anyones)
        return job.answer()

    def close(self) -> None:
        """Let go of the connection, once the transaction under way is over."""
        with self._lock:
            self._closed = True
            if not self._led:
                self._disconnect()

    def _lead(self, leader: _Job[object]) -> None:
        """Commit for all that wait, the leader first among them, and hand on the lead."""
        with self._lock:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST))]
        try:
            self._commit(batch)
        finally:
            for job in batch:
                if job is not leader:
                    job.wake()
            self._hand_on()

    def _hand_on(self) -> None:
        with self._lock:
            self._led = bool(self._waiting)
            if self._led:
                self._waiting[0].leads = True
                self._waiting[0].wake()
            elif self._closed:
                self._disconnect()

    def _give_up(self, job: _Job[object]) -> None:
        """Take out a job whose owner was interrupted while waiting, so that it never leads."""
        with self._lock:
            if job in self._waiting:
                self._waiting.remove(job)
        if job.leads:
            self._hand_on()

    def _commit(self, batch: Sequence[_Job[object]]) -> None:
        """Run a batch in one transaction; when it fails, each job in one of its own, so that only the culprit fails.

        What failed for no fault of its own is tried again, unless it may have been made.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            failure = self._try(batch)
            if failure is None:
                return
            if not isinstance(failure, (ConnectionLost, Contended)) or attempt == _ATTEMPTS:
                break
        if len(batch) == 1 or isinstance(failure, (ConnectionLost, Contended, OutcomeUnknown)):
            for job in batch:
                job.error = failure
            return
        for job in batch:
            self._commit([job])

    def _try(self, batch: Sequence[_Job[object]]) -> Exception | None:
        """Run a batch in one transaction. Gives what made it fail; a database out of reach is told to the owners."""
        try:
            connection = self._begin()
        except Exception as error:  # noqa: BLE001 - whatever it is, the owners of the jobs are to know
            self._disconnect()
            translated = self._database.translated(error)
            if isinstance(translated, ConnectionLost):
                return translated
            for job in batch:
                job.error = translated
            return None
        try:
            self._transact(connection, batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, the owners of the jobs are to know
            return self._database.translated(error)
        return None

    def _begin(self) -> Connection:
        if self._connection is None:
            self._connection = self._database.connect_to_write()
        self._database.begin_writing(self._connection)
        return self._connection

    def _transact(self, connection: Connection, batch: Sequence[_Job[object]]) -> None:
        committed = False
        try:
            transaction = Transaction(connection, ways=self._database.ways, news=self._database.news())
            for job in batch:
                job.attempt(transaction)
            transaction.write_down()
            self._database.end_writing(connection, commit=True)
            committed = True
            for job in batch:
                job.confirm()
        finally:
            if not committed:
                self._roll_back(connection)

    def _roll_back(self, connection: Connection) -> None:
        """Roll back, and begin the next time with a new connection: this one's state is not to be trusted."""
        try:
            self._database.end_writing(connection, commit=False)
        finally:
            self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

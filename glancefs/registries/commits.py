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
from dataclasses import dataclass
from threading import Lock
from typing import Final, Generic, TypeVar, cast

from sqlalchemy import Connection, select, update

from glancefs.errors import GlancefsError, RegistryUnavailable
from glancefs.registries.schema import counters
from glancefs.registries.sqlite import SqliteDatabase, end_writing, translated

_MOST: Final = 256
"""How many changes one transaction takes at the most."""

_COUNTERS: Final = select(counters.c.revision, counters.c.next_id).where(counters.c.id == 1).with_for_update()
_COUNTED: Final = update(counters).where(counters.c.id == 1)

Outcome = TypeVar("Outcome")


@dataclass(slots=True, kw_only=True)
class Transaction:
    """What a change is made in: the connection, and the counters, which are written back before the commit."""

    connection: Connection
    revision: int
    next_id: int

    def next_revision(self) -> int:
        """Raise the counter of changes, and give it."""
        self.revision += 1
        return self.revision


Change = Callable[[Transaction], Outcome]
"""Raises errors of ours only before it has changed anything, the counters of its transaction included."""


class _Job(Generic[Outcome]):
    """A change on its way through. Its owner sleeps until there is an outcome, or until it is to lead."""

    __slots__ = ("_change", "_news", "_outcome", "error", "leads")

    def __init__(self, change: Change[Outcome]) -> None:
        self._change = change
        self._outcome: Outcome | None = None
        self._news = Lock()
        self._news.acquire()
        self.error: Exception | None = RegistryUnavailable("The registry was interrupted.")
        self.leads = False

    def wait(self) -> None:
        self._news.acquire()

    def wake(self) -> None:
        self._news.release()

    def attempt(self, transaction: Transaction) -> None:
        """Make the change, or keep the refusal for its owner; other errors are the transaction's."""
        try:
            self._outcome = self._change(transaction)
            self.error = None
        except GlancefsError as error:
            self.error = error

    def answer(self) -> Outcome:
        if self.error is not None:
            raise self.error
        return cast("Outcome", self._outcome)


class GroupCommit:
    """Makes changes in transactions that those who ask at the same time share."""

    def __init__(self, *, database: SqliteDatabase) -> None:
        self._database = database
        self._connection: Connection | None = None
        self._lock = Lock()
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
        """Run a batch in one transaction; when it fails, each job in one of its own, so that only the culprit fails."""
        try:
            connection = self._begin()
        except Exception as error:  # noqa: BLE001 - whatever it is, the owners of the jobs are to know
            for job in batch:
                job.error = translated(error)
            return
        try:
            self._transact(connection, batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, the owners of the jobs are to know
            if len(batch) == 1:
                batch[0].error = translated(error)
                return
            for job in batch:
                self._commit([job])

    def _begin(self) -> Connection:
        if self._connection is None:
            self._connection = self._database.connect()
        self._database.begin_writing(self._connection)
        return self._connection

    def _transact(self, connection: Connection, batch: Sequence[_Job[object]]) -> None:
        committed = False
        try:
            before = connection.execute(_COUNTERS).one()
            transaction = Transaction(connection=connection, revision=before.revision, next_id=before.next_id)
            for job in batch:
                job.attempt(transaction)
            if transaction.revision != before.revision:
                connection.execute(_COUNTED, {"revision": transaction.revision, "next_id": transaction.next_id})
            end_writing(connection, commit=True)
            committed = True
        finally:
            if not committed:
                self._roll_back(connection)

    def _roll_back(self, connection: Connection) -> None:
        """Roll back, and begin the next time with a new connection: this one's state is not to be trusted."""
        try:
            end_writing(connection, commit=False)
        finally:
            self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

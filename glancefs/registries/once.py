# SPDX-License-Identifier: Apache-2.0
"""Changes that are made once, however often they are asked for.

Answers for what a caller far away needs: when an answer is lost it can't know whether the change was made, so it asks
again under the same key. The change and its answer are committed together; who asks again gets that answer, whatever
happened to the image since, and whichever process answers. A change that was refused left nothing, and is tried anew.
Nor is a change made after its caller has given up: what it named, such as the bytes of an image, may be gone by then.

Threading: may be used from many threads at once, as the commits beneath.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Final, TypeVar, cast

from sqlalchemy import Connection, bindparam, delete, insert, select

from glancefs.errors import RegistryUnavailable
from glancefs.model import Image
from glancefs.registries.base import Answered
from glancefs.registries.commits import Change, Commits, Transaction
from glancefs.registries.folders import Folder
from glancefs.registries.locks import Lock
from glancefs.registries.schema import answers
from glancefs.registries.values import Reader, reader_of, to_json

KEPT: Final = 300
"""For how many seconds an answer can be asked for again: far longer than anybody goes on asking."""

_PAUSE: Final = 10
"""At most so often, in seconds, old answers are forgotten."""

_FIND: Final = select(answers.c.answer).where(answers.c.key == bindparam("wanted_key"))
_KEEP: Final = insert(answers)
_FORGET: Final = delete(answers).where(answers.c.kept_at < bindparam("before"))

_NOTHING: Final = "nothing"
_KINDS: Final[Mapping[str, type]] = {
    "image": Image,
    "folder": Folder,
    "lock": Lock,
    "number": int,
    _NOTHING: type(None),
}

Outcome = TypeVar("Outcome")


class Answers:
    """The answers that a database keeps. ``clock`` gives UTC in seconds since the epoch."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._forgot_at = float("-inf")

    def of(self, key: str, commits: Commits, *, until: float | None = None) -> Commits:
        """Give commits whose changes are made once under this key, and not after a time."""
        return _Once(key, commits, self, until)

    def is_after(self, until: float | None) -> bool:
        """Say whether a time is over."""
        return until is not None and self._clock() > until

    def find(self, connection: Connection, key: str) -> Answered | None:
        """Give the answer of a change that was made; None where it was not."""
        text = connection.execute(_FIND, {"wanted_key": key}).scalar_one_or_none()
        if text is None:
            return None
        ((kind, said),) = json.loads(text).items()
        read: Reader = reader_of(_KINDS[kind])
        return Answered() if kind == _NOTHING else Answered(**{kind: read(said)})

    def keep(self, transaction: Transaction, key: str, answer: object) -> None:
        """Keep an answer, in the transaction of its change, and forget old ones now and then."""
        now = int(self._clock())
        kind = next(name for name, type_ in _KINDS.items() if isinstance(answer, type_))
        text = json.dumps({kind: to_json(answer)})
        transaction.connection.execute(_KEEP, {"key": key, "kept_at": now, "answer": text})
        if now >= self._forgot_at + _PAUSE:
            transaction.connection.execute(_FORGET, {"before": now - KEPT})
            self._forgot_at = now


class _Once:
    def __init__(self, key: str, commits: Commits, kept: Answers, until: float | None) -> None:
        self._key = key
        self._commits = commits
        self._kept = kept
        self._until = until

    def run(self, change: Change[Outcome]) -> Outcome:
        def once(transaction: Transaction) -> Outcome:
            known = self._kept.find(transaction.connection, self._key)
            if known is not None:
                values = (known.image, known.folder, known.lock, known.number)
                return cast("Outcome", next((value for value in values if value is not None), None))
            # In here, where nobody is waited for any more.
            if self._kept.is_after(self._until):
                message = "The change came after the time in which it was wanted."
                raise RegistryUnavailable(message)
            outcome = change(transaction)
            self._kept.keep(transaction, self._key, outcome)
            return outcome

        return self._commits.run(once)

    def close(self) -> None:
        self._commits.close()

# SPDX-License-Identifier: Apache-2.0
"""What an object store must offer, so that images can be kept in it, and how its failures are borne.

Answers for the `ObjectEngine` protocol, which Swift and S3 satisfy, for trying again with growing pauses, and for what
remains of a foreign error: a plain sentence for the caller, everything for the operator's log. Does not know keys,
claims or images.

Threading: every method of an engine may be called from many threads; a `Body` belongs to one caller.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, TypeVar

from glancefs.errors import GlancefsError, StoreUnavailable
from glancefs.stores.base import Space

_log = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 4.0
"""In seconds."""


_QUIET: Final = 10.0
"""In seconds: for how long the same failure is not told again."""


class EngineError(Exception):
    """A call that failed; ``reason`` is for callers and names no host, ``detail`` is for the operator alone."""

    def __init__(self, reason: str, detail: object = "") -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason


class Transient(EngineError):
    """A failure that may pass: no answer, a cut connection, an engine that is restarting or too busy."""


class Refused(EngineError):
    """A failure that trying again won't mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One object, as the engine tells it."""

    name: str
    size: int
    modified: str
    """When it was written or renewed, as the engine writes that: only to be compared for equality."""
    age: float
    """Seconds since then, by the engine's own clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One stored piece of a large object, in their order."""

    number: int
    size: int
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """A large object that was begun and not finished."""

    name: str
    token: str
    size: int
    """Bytes that its parts take."""


class Body(Protocol):
    """What comes of an object."""

    def read(self, size: int, /) -> bytes:
        """Give up to so many bytes; nothing at the end. Raises Transient."""
        ...

    def close(self) -> None:
        """Let go of the connection; may be called twice."""
        ...


class ObjectEngine(Protocol):
    """One container of an object store. Every method raises Transient, Refused and StoreFull."""

    @property
    def has_quotas(self) -> bool:
        """Whether `space` may ever tell anything."""
        ...

    def prepare(self) -> None:
        """Make the container if it is not there."""
        ...

    def put(self, name: str, data: bytes, *, is_new: bool = False) -> bool:
        """Keep a small object; with ``is_new`` only where there is none yet, and say whether that was so."""
        ...

    def look(self, name: str) -> Found | None:
        """Tell of an object what all copies of it agree on; None where there is none."""
        ...

    def renew(self, name: str) -> bool:
        """Set an object's time of modification to the engine's present; False where there is none, and none is made."""
        ...

    def read(self, name: str, start: int, stop: int) -> Body | None:
        """Give the bytes from ``start`` up to, not including, ``stop``; None where there is no such object."""
        ...

    def remove(self, name: str) -> None:
        """Remove an object, with its parts; one that is not there is fine."""
        ...

    def page(self, prefix: str, after: str) -> Sequence[Found]:
        """Give the next objects whose names begin so, by name, behind a name; none at the end.

        What was written lately may be missing, and what was removed lately be there.
        """
        ...

    def begin(self, name: str) -> str:
        """Begin a large object. Gives the token that the other calls want."""
        ...

    def put_part(self, name: str, token: str, number: int, data: memoryview) -> Part:
        """Keep one part, numbered from 1; again replaces it. The engine has verified its MD5 when this returns."""
        ...

    def finish(self, name: str, token: str, parts: Sequence[Part]) -> None:
        """Make the object of its parts, in one step; again is fine."""
        ...

    def discard(self, name: str, token: str) -> None:
        """Remove the parts of an object that is not to be; what is not there is fine."""
        ...

    def unfinished(self, prefix: str) -> Sequence[Unfinished]:
        """Give what was begun and, as far as lists tell, not finished."""
        ...

    def space(self) -> Space | None:
        """Tell the room there is; None where the engine does not say. Asks the engine in any case."""
        ...

    def close(self) -> None:
        """Let go of connections; may be called twice."""
        ...


class Persistence:
    """Tries again what may pass, ``retries`` times, and turns what does not into errors of our tree."""

    def __init__(self, *, store: str, retries: int) -> None:
        self._store: Final = store
        self._retries: Final = retries
        self._told: Final[dict[tuple[str, str], float]] = {}

    def run(self, doing: str, work: Callable[[], T]) -> T:
        """Carry the work out. Raises StoreUnavailable, and what else the work raises."""
        attempt = 0
        while True:
            try:
                return work()
            except EngineError as error:
                self.bear(error, doing=doing, attempt=attempt)
                attempt += 1

    def try_once(self, doing: str, work: Callable[[], object]) -> None:
        """Carry out what is good to have done, and done by a sweep otherwise; whether it fails is no matter."""
        try:
            work()
        except (EngineError, GlancefsError) as error:
            _log.info("Store %r failed at %s, and leaves it to a sweep: %s", self._store, doing, error)

    def every(self, doing: str, page: Callable[[str], Sequence[Found]]) -> Iterator[Found]:
        """Walk a list, whose pages are asked for as they are needed. Raises as `run` does."""
        after = ""
        while found := self.run(doing, partial(page, after)):
            yield from found
            after = found[-1].name

    def bear(self, error: EngineError, *, doing: str, attempt: int) -> None:
        """Wait before another attempt, the next one after ``attempt``; raise StoreUnavailable where none is due."""
        if isinstance(error, Refused) or attempt >= self._retries:
            self._tell(error, doing)
            message = f"The store {self._store!r} failed at {doing}: {error.reason}."
            raise StoreUnavailable(message) from error
        _log.info("Store %r will try %s again: %s", self._store, doing, error)
        pause = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE)
        # Spread, so that many who were cut off together do not come back together.
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret depends on it

    def _tell(self, error: EngineError, doing: str) -> None:
        """Tell the operator, but of many who fail in the same way together only once."""
        now, what = time.monotonic(), (doing, error.reason)
        is_news = now - self._told.get(what, -_QUIET) >= _QUIET
        if is_news:
            self._told[what] = now
        _log.log(logging.ERROR if is_news else logging.INFO, "Store %r failed at %s: %s", self._store, doing, error)

# SPDX-License-Identifier: Apache-2.0
"""Reading one object: in a run or at random, and on where a connection was cut.

Answers for asking for windows that grow while somebody reads in a run, so that a jump wastes little and a run costs few
requests, and for going on at the same byte after a failure. The data under a name never change, so that what comes of a
later request belongs to what came before.

Threading: a stream belongs to one caller.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from glancefs.stores.objects.engine import Body, EngineError, ObjectEngine, Persistence, Transient

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

FIRST_WINDOW: Final = 4 << 20
LARGEST_WINDOW: Final = 256 << 20
"""In bytes: what is asked for at once."""
_CHUNK: Final = 1 << 20
_WORTH_READING: Final = 128 << 10
"""In bytes: so much is read to its end, or passed over, rather than a connection given up."""
_DOING: Final = "reading data"


class ObjectStream(io.RawIOBase):
    """The bytes of an object from ``start`` up to, not including, ``stop``; it can be moved within the whole of it."""

    def __init__(
        self,
        *,
        name: str,
        start: int,
        stop: int,
        engine: ObjectEngine,
        persistence: Persistence,
        missing: Callable[[], Exception],
        on_close: Callable[[], None],
    ) -> None:
        super().__init__()
        self._name: Final = name
        self._stop: Final = stop
        self._engine: Final = engine
        self._persistence: Final = persistence
        self._missing: Final = missing
        self._on_close: Final = on_close
        self._position = start
        self._window = FIRST_WINDOW
        self._body: Body | None = None
        self._body_stop = start
        """Up to where the open body reaches."""

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def tell(self) -> int:
        """Give the position within the whole object."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move within the object; costs nothing until something is read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._stop}[whence]
        target = max(0, base + offset)
        if target != self._position:
            if not self._pass_over(target):
                self._let_go()
                self._window = FIRST_WINDOW
            self._position = target
        return target

    def read(self, size: int | None = -1, /) -> bytes:
        """Give the next bytes: as many as are asked for, fewer at the end only.

        Raises StoreUnavailable, DataMissing.
        """
        wanted = self._stop - self._position if size is None or size < 0 else size
        wanted = max(0, min(wanted, self._stop - self._position))
        pieces = []
        while wanted:
            piece = self._next(min(wanted, _CHUNK))
            pieces.append(piece)
            wanted -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readall(self) -> bytes:
        """Give all that is left. Raises as `read` does."""
        return self.read()

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer, less at the end only. Raises as `read` does."""
        with memoryview(buffer).cast("B") as view:
            data = self.read(len(view))
            view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Let go of the data; may be called twice."""
        if not self.closed:
            self._let_go()
            self._on_close()
        super().close()

    def _next(self, size: int) -> bytes:
        """Give some bytes, from wherever they can be had."""
        attempt = 0
        while True:
            try:
                body = self._body or self._ask()
                piece = body.read(min(size, self._body_stop - self._position))
                if not piece:
                    raise Transient("the data broke off", f"{self._name} at byte {self._position}")
            except EngineError as error:
                self._let_go()
                self._persistence.bear(error, doing=_DOING, attempt=attempt)
                attempt += 1
                continue
            self._position += len(piece)
            if self._position >= self._body_stop:
                self._let_go()
            return piece

    def _ask(self) -> Body:
        stop = min(self._stop, self._position + self._window)
        body = self._engine.read(self._name, self._position, stop)
        if body is None:
            raise self._missing()
        self._window = min(2 * self._window, LARGEST_WINDOW)
        self._body, self._body_stop = body, stop
        return body

    def _pass_over(self, target: int) -> bool:
        """Come to a position a little ahead by reading up to it; say whether that was so."""
        distance = target - self._position
        if self._body is None or not 0 < distance <= min(_WORTH_READING, self._body_stop - self._position - 1):
            return False
        try:
            return len(self._body.read(distance)) == distance
        except EngineError:
            return False

    def _let_go(self) -> None:
        body, self._body = self._body, None
        if body is None:
            return
        try:
            if self._body_stop - self._position <= _WORTH_READING:
                # Read to its end, a connection serves the next request.
                while body.read(_WORTH_READING):
                    pass
        except EngineError:
            return
        finally:
            body.close()

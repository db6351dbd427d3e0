# SPDX-License-Identifier: Apache-2.0
"""One upload into an object store: gathered into parts, which are sent while the next one is gathered.

Answers for an upload of any size, known or not, with no more of it in memory than a few parts; a part that fails is
sent again from memory. Small data are one object, sent in one request. Does not know claims.

Threading: the caller's thread gathers, up to `SENDERS` threads of the upload's own send; they have ended whenever
`finish` or `give_up` returns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from glancefs.cores import roam
from glancefs.stores.objects.engine import ObjectEngine, Part, Persistence
from glancefs.stores.objects.pieces import Piece

SENDERS: Final = 2
"""How many parts are on their way at once: while one waits for its answer, the other moves."""
_GROWS_EVERY: Final = 250
"""After how many parts they become larger by their first size: engines limit the number of parts."""

_DOING: Final = "keeping data"


class ObjectUpload:
    """Data on their way into one object; in memory are up to `SENDERS` + 1 parts."""

    def __init__(self, *, name: str, engine: ObjectEngine, persistence: Persistence, part_size: int) -> None:
        self._name: Final = name
        self._engine: Final = engine
        self._persistence: Final = persistence
        self._part_size: Final = part_size
        self._piece = Piece(part_size)
        self._idle: Final[list[Piece]] = []
        self._token: str | None = None
        self._senders: ThreadPoolExecutor | None = None
        self._sending: Final[deque[tuple[Future[Part], Piece]]] = deque()
        self._parts: Final[list[Part]] = []
        self._begun = 0
        self._is_finishing = False

    def write(self, data: memoryview) -> None:
        """Take the next bytes. Raises StoreUnavailable, StoreFull, also about earlier ones."""
        while data:
            data = data[self._piece.take(data) :]
            if data:
                # Only once there is more: what fits into one part is sent in one piece.
                self._send()

    def finish(self) -> None:
        """Make the object of all that came. Raises StoreUnavailable, StoreFull."""
        if self._token is None:
            self._is_finishing = True
            content = bytes(self._piece.content())
            self._persistence.run(_DOING, lambda: self._engine.put(self._name, content))
            return
        self._send()
        while self._sending:
            self._take_result()
        self._stop_senders()
        self._is_finishing = True
        token = self._token
        self._persistence.run(_DOING, lambda: self._engine.finish(self._name, token, self._parts))

    def give_up(self) -> None:
        """Remove what was sent, as far as the engine can be reached; a sweep removes the rest."""
        for sending, _ in self._sending:
            sending.cancel()
        self._stop_senders()
        token = self._token
        if token is not None:
            self._persistence.try_once("removing an upload", lambda: self._engine.discard(self._name, token))
        if self._is_finishing:
            # It may have been finished although we never heard so.
            self._persistence.try_once("removing an upload", lambda: self._engine.remove(self._name))

    def _send(self) -> None:
        """Hand what is gathered to a sender; wait for an earlier part where all senders are busy."""
        if self._token is None:
            self._token = self._persistence.run("beginning an upload", lambda: self._engine.begin(self._name))
        if self._senders is None:
            self._senders = ThreadPoolExecutor(SENDERS, thread_name_prefix="send", initializer=roam)
        while len(self._sending) >= SENDERS:
            self._take_result()
        self._begun += 1
        work = self._put(self._piece.content(), self._begun)
        self._sending.append((self._senders.submit(self._persistence.run, _DOING, work), self._piece))
        self._piece = self._next_piece()

    def _next_piece(self) -> Piece:
        size = self._part_size * (1 + self._begun // _GROWS_EVERY)
        while self._idle:
            piece = self._idle.pop()
            if piece.size == size:
                piece.filled = 0
                return piece
        return Piece(size)

    def _take_result(self) -> None:
        sent, piece = self._sending.popleft()
        self._parts.append(sent.result())
        self._idle.append(piece)

    def _put(self, content: memoryview, number: int) -> Callable[[], Part]:
        token = self._token
        assert token is not None  # noqa: S101 - `_send` has begun the upload
        return lambda: self._engine.put_part(self._name, token, number, content)

    def _stop_senders(self) -> None:
        if self._senders is not None:
            self._senders.shutdown()
            self._senders = None
        self._sending.clear()

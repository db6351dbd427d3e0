# SPDX-License-Identifier: Apache-2.0
"""PUT of an image's store: its data are moved there, and the answer tells how far they are until they are.

Answers for the body, whose lines are JSON objects, one a second: how far it is, and at the end what came of it. What
can be refused at once is refused as everywhere. A caller who goes away ends the move, which leaves the image where it
was. Who may move what, and how it is done so that nothing is ever lost, `glancefs.relocation` knows.

Threading: a move has a thread of its own, since its steps block; the request's thread tells of it. Both end together.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Final

from gateway.problems import internal_problem, problem_json, problem_of
from gateway.rest.dialect import Dialect
from gateway.rest.fields import said_in
from gateway.rest.representations import detail
from gateway.wsgi import Request, Response
from glancefs.cores import roam
from glancefs.errors import GlancefsError, InvalidRequest, Unavailable
from glancefs.model import Image
from glancefs.relocation import Relocation

_log = logging.getLogger(__name__)

LINES_TYPE: Final = "application/x-ndjson"
MOST_AT_ONCE: Final = 2
"""How many moves a process has under way; more would only take turns at the same disks and the same network."""

_TOLD_EVERY: Final = 1.0
"""Seconds between two lines: often enough that no proxy takes the silence for an end."""


class Moves:
    """Answers requests that move data from store to store."""

    def __init__(self, *, relocation: Relocation) -> None:
        self._relocation = relocation
        self._places = threading.BoundedSemaphore(MOST_AT_ONCE)

    def move(self, request: Request, dialect: Dialect, image_id: str) -> Response:
        """Move an image's data to the store that the request names. Raises what `Relocation.move` does."""
        store = said_in(request, dialect).text("store")
        if store is None:
            message = "The header x-image-meta-store says which store is to have the data."
            raise InvalidRequest(message)
        if not self._places.acquire(blocking=False):
            message = f"{MOST_AT_ONCE} images are being moved already."
            raise Unavailable(message)
        context, base_url = request.context, request.base_url
        move = _Move(
            lambda progress: self._relocation.move(context, image_id, to=store, progress=progress),
            on_end=self._places.release,
        )
        move.begin()
        headers = [("Content-Type", LINES_TYPE), ("Cache-Control", "no-store")]
        return Response(status=200, headers=headers, body=_Told(move, lambda image: detail(image, base_url, dialect)))


class _AbandonedError(Exception):
    """Nobody waits for the move any more."""


class _Move:
    """A move in a thread of its own; ``on_end`` is called when that is over."""

    def __init__(self, move: Callable[[Callable[[int], object]], Image], *, on_end: Callable[[], object]) -> None:
        self._move = move
        self._on_end = on_end
        self._thread = threading.Thread(target=self._run, name="move", daemon=True)
        self._news = threading.Event()
        self._is_abandoned = False
        self.ended = threading.Event()
        self.done = 0
        """The bytes that were copied, and those that were read back."""
        self.image: Image | None = None
        self.error: Exception | None = None

    def begin(self) -> None:
        """Begin, and wait until it has. Raises what refuses it."""
        self._thread.start()
        self._news.wait()
        # What comes to grief later is told by the last line, whoever is quicker here.
        if self.error is not None and not self.done:
            self._thread.join()
            raise self.error

    def abandon(self) -> None:
        """Let it end as soon as it notices, and wait for that."""
        self._is_abandoned = True
        self._thread.join()

    def _run(self) -> None:
        roam()
        try:
            self.image = self._move(self._count)
        except Exception as error:  # noqa: BLE001 - it is told where it can be, by the thread of the request
            self.error = error
        finally:
            self._on_end()
            self.ended.set()
            self._news.set()

    def _count(self, size: int) -> None:
        if self._is_abandoned:
            raise _AbandonedError
        self.done += size
        self._news.set()


class _Told:
    """The lines of an answer; closed by the server, also where not one of them could be sent."""

    def __init__(self, move: _Move, represent: Callable[[Image], dict[str, object]]) -> None:
        self._move = move
        self._represent = represent

    def __iter__(self) -> Iterator[bytes]:
        while not self._move.ended.wait(_TOLD_EVERY):
            yield _line({"done": self._move.done})
        yield _line(self._outcome())

    def close(self) -> None:
        """End what nobody waits for."""
        self._move.abandon()

    def _outcome(self) -> dict[str, object]:
        error = self._move.error
        if self._move.image is not None:
            return {"image": self._represent(self._move.image)}
        if isinstance(error, GlancefsError):
            _log.warning("a move failed: %s: %s", type(error).__name__, error)
            return {"problem": problem_json(problem_of(error))}
        _log.error("a move failed", exc_info=error)
        return {"problem": problem_json(internal_problem())}


def _line(said: dict[str, object]) -> bytes:
    return f"{json.dumps(said)}\n".encode()

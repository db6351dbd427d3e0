# SPDX-License-Identifier: Apache-2.0
"""The change feed over HTTP: ``GET /images/changes?since=N&wait=SECONDS`` (`docs/reference/rest.md`).

Answers for what a caller is told of changes, and for waking those who wait when there is one. All who wait in a process
are woken by one thread, which is there only as long as somebody waits; they themselves hold none.

Threading: shared by all threads of a process.
"""

from __future__ import annotations

import json
import logging
import threading
from typing import Final, Protocol

from gateway.wsgi import POSTPONE_KEY, Request, Response, whole
from glancefs.errors import GlancefsError, InvalidQuery
from glancefs.folders import Folders
from glancefs.registries.values import to_json
from glancefs.remote.calls import LONGEST_WAIT, MOST_CHANGES
from glancefs.remote.served import changes_told

_log = logging.getLogger(__name__)

_LOOK: Final = 1.0
"""For how many seconds news are waited for before it is looked whether anybody still wants them."""
_LONGEST_NUMBER: Final = 19


class Bell(Protocol):
    """What has a request answered that waits (see `gateway.http`)."""

    @property
    def is_wanted(self) -> bool:
        """Whether the request still waits."""
        ...

    def ring(self) -> None:
        """Have it answered."""
        ...


class Feed:
    """Answers who asks for changes."""

    def __init__(self, *, folders: Folders) -> None:
        self._folders: Final = folders
        self._lock: Final = threading.Lock()
        self._bells: list[Bell] = []
        self._known = 0
        self._is_watching = False
        self._is_closed = False

    def get(self, request: Request) -> Response:
        """Tell what changed since a revision. Raises InvalidQuery."""
        said = _read(request)
        changes = self._folders.changes(said["since"], limit=min(said["limit"], MOST_CHANGES))
        postpone = request.environ.get(POSTPONE_KEY)
        if changes.revision == said["since"] and said["wait"] and postpone is not None:
            # Goes out if nothing comes in time; else the same is asked again.
            self._wake(postpone(min(said["wait"], LONGEST_WAIT)), since=said["since"])
        answer = {"changes": to_json(changes_told(request.context, changes))}
        headers = [("Cache-Control", "no-store")]
        return whole(200, "application/json", f"{json.dumps(answer)}\n".encode(), headers)

    def close(self) -> None:
        """Wake nobody any more."""
        self._is_closed = True

    # ---- waking

    def _wake(self, bell: Bell, *, since: int) -> None:
        """Ring a bell as soon as there is something after a revision."""
        with self._lock:
            if self._known > since:
                bell.ring()
                return
            self._bells.append(bell)
            if not self._is_watching and not self._is_closed:
                self._is_watching = True
                threading.Thread(target=self._watch, name="feed", daemon=True).start()

    def _watch(self) -> None:
        is_first = True
        while self._go_on():
            try:
                if not is_first:
                    self._folders.wait_for_change(_LOOK)
                is_first = False
                revision = self._folders.revision()
            except GlancefsError:
                # Those who wait ask again, and are told what is wrong.
                self._ring(None)
            except Exception:  # noqa: BLE001 - the last guard of its thread: it is logged
                _log.exception("the change feed can't be watched")
                self._ring(None)
            else:
                if revision != self._known:
                    self._ring(revision)

    def _go_on(self) -> bool:
        with self._lock:
            self._bells = [bell for bell in self._bells if bell.is_wanted]
            self._is_watching = bool(self._bells) and not self._is_closed
            return self._is_watching

    def _ring(self, revision: int | None) -> None:
        with self._lock:
            bells, self._bells = self._bells, []
            self._known = self._known if revision is None else revision
        for bell in bells:
            bell.ring()


def _read(request: Request) -> dict[str, int]:
    said = {"since": 0, "wait": 0, "limit": MOST_CHANGES}
    for name, text in request.parameters():
        if name not in said:
            message = f"{name[:80]!r} is no parameter here; there are {', '.join(said)}."
            raise InvalidQuery(message)
        if not (text.isascii() and text.isdigit() and len(text) < _LONGEST_NUMBER):
            message = f"{name} takes a whole number, not {text[:80]!r}."
            raise InvalidQuery(message)
        said[name] = int(text)
    return said

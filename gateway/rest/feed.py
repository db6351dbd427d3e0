# SPDX-License-Identifier: Apache-2.0
"""The change feed over HTTP: ``GET /images/changes?since=N&wait=SECONDS`` (`docs/reference/rest.md`).

Answers for what a caller is told of changes. Those who wait are woken by `gateway.waking`.

Threading: shared by all threads of a process.
"""

from __future__ import annotations

import json
from typing import Final

from gateway.waking import LONGEST_WAIT, Waking
from gateway.wsgi import POSTPONE_KEY, Request, Response, whole
from glancefs.errors import InvalidQuery
from glancefs.folders import Folders
from glancefs.registries.values import to_json
from glancefs.remote.calls import MOST_CHANGES
from glancefs.remote.served import changes_told

_LONGEST_NUMBER: Final = 19


class Feed:
    """Answers who asks for changes."""

    def __init__(self, *, folders: Folders) -> None:
        self._folders: Final = folders
        self._waking: Final = Waking(revision=folders.revision, wait=folders.wait_for_change)

    def get(self, request: Request) -> Response:
        """Tell what changed since a revision. Raises InvalidQuery."""
        said = _read(request)
        changes = self._folders.changes(said["since"], limit=min(said["limit"], MOST_CHANGES))
        postpone = request.environ.get(POSTPONE_KEY)
        if changes.revision == said["since"] and said["wait"] and postpone is not None:
            # Goes out if nothing comes in time; else the same is asked again.
            self._waking.wake(postpone(min(said["wait"], LONGEST_WAIT)), since=said["since"])
        answer = {"changes": to_json(changes_told(request.context, changes))}
        headers = [("Cache-Control", "no-store")]
        return whole(200, "application/json", f"{json.dumps(answer)}\n".encode(), headers)

    def close(self) -> None:
        """Wake nobody any more."""
        self._waking.close()


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

# SPDX-License-Identifier: Apache-2.0
"""The use cases as callers elsewhere have them: what they are told, and what they may ask about others.

Answers for what never leaves the server: where data lie, whose locks there are, and the changes of what a caller may
not see. Everything else `glancefs.images`, `glancefs.folders` and `glancefs.locks` decide, as for every door.

Threading: thread-safe, as the use cases are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from glancefs.arrivals import Arrivals
from glancefs.context import RequestContext
from glancefs.errors import Forbidden, InvalidQuery
from glancefs.folders import Folders
from glancefs.images import Images
from glancefs.locks import Locks
from glancefs.model import Image, ImageStatus, ImageType
from glancefs.registries.base import Changes, ImageQuery
from glancefs.registries.folders import FolderPage, Found, OutlinePage
from glancefs.registries.locks import Touched
from glancefs.remote.calls import Greeting
from glancefs.rules import may_see

MOST_AT_ONCE: Final = 1000
"""How many things one call may ask for, or about."""

_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What the calls of `glancefs.remote.calls` are made on."""

    images: Images
    folders: Folders
    locks: OwnLocks
    ahead: Arrivals
    identity: str
    largest: int | None

    def greeting(self, context: RequestContext) -> Greeting:
        """Say who is who."""
        return Greeting(user=context.user, is_admin=context.is_admin, identity=self.identity, largest=self.largest)


class OwnLocks:
    """The locks as far as they concern the caller's own things; an admin's are everybody's."""

    def __init__(self, locks: Locks) -> None:
        self._locks: Final = locks

    def check(self, context: RequestContext, touched: Collection[Touched]) -> bool:
        """See `Locks.check`. Raises Forbidden for a question about somebody else's things."""
        for one in touched:
            _refuse_others(context, one.guarding)
        return self._locks.check(context, touched)

    def forget(self, context: RequestContext, path: str, *, guarding: str | None) -> None:
        """See `Locks.forget`. Raises Forbidden for somebody else's."""
        _refuse_others(context, guarding)
        self._locks.forget(context, path, guarding=guarding)


def check_bounds(arguments: Mapping[str, object]) -> None:
    """Raise InvalidQuery for arguments that ask for more at a time than one answer may hold."""
    query = arguments.get("query")
    limit = query.limit if isinstance(query, ImageQuery) else arguments.get("limit", 0)
    if isinstance(limit, int) and not 0 <= limit <= MOST_AT_ONCE:
        message = f"A page holds from 0 to {MOST_AT_ONCE}."
        raise InvalidQuery(message)
    for value in arguments.values():
        if isinstance(value, Collection) and not isinstance(value, str) and len(value) > MOST_AT_ONCE:
            message = f"No more than {MOST_AT_ONCE} can be asked about at a time."
            raise InvalidQuery(message)


def told(answer: object) -> object:
    """Give an answer as it may leave the server: without the places where data lie."""
    if isinstance(answer, Image):
        return replace(answer, location=None)
    if isinstance(answer, FolderPage):
        return replace(answer, images=tuple(replace(image, location=None) for image in answer.images))
    if isinstance(answer, OutlinePage):
        # SQLite has 0 and 1 for booleans, which nobody but a reader of JSON has to tell apart.
        short = [image._replace(location=None, is_public=bool(image.is_public)) for image in answer.images]
        return replace(answer, images=short)
    if isinstance(answer, Found):
        return answer if answer.image is None else replace(answer, image=replace(answer.image, location=None))
    if isinstance(answer, Sequence) and not isinstance(answer, str):
        return [told(one) for one in answer]
    return answer


def changes_told(context: RequestContext, changes: Changes) -> Changes:
    """Give a piece of the change feed as a caller may have it.

    Of an image that is not theirs to see they learn that it is gone, and its identifier, since they may have seen it
    before; nothing else. Of others' folders they learn nothing.
    """
    return Changes(
        images=tuple(
            replace(image, location=None) if may_see(context, image) else _hidden(image) for image in changes.images
        ),
        folders=tuple(folder for folder in changes.folders if context.is_admin or folder.owner in {None, context.user}),
        revision=changes.revision,
    )


def _hidden(image: Image) -> Image:
    return Image(
        id=image.id,
        name="",
        type=ImageType.RAW,
        status=ImageStatus.DELETED,
        size=0,
        store="",
        owner=None,
        is_public=False,
        created_at=_LONG_AGO,
        updated_at=_LONG_AGO,
        revision=image.revision,
    )


def _refuse_others(context: RequestContext, guarding: str | None) -> None:
    if guarding != context.user and not context.is_admin:
        message = "What is somebody else's is not yours to ask about."
        raise Forbidden(message)

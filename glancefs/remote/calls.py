# SPDX-License-Identifier: Apache-2.0
"""What a mount elsewhere asks of a server: calls derived from the use cases, so that the two ends can't differ.

Answers for which calls there are, and for which of them change something. Their promises are those of the classes that
the use cases are made of: `glancefs.images.Images`, `glancefs.folders.Folders` and `glancefs.locks.Locks`. Who asks is
never said: the server knows.

Threading: built at the first use, and only read afterwards.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Protocol

from glancefs.context import RequestContext
from glancefs.model import Image, ImageChanges, NewImage
from glancefs.registries.base import ImageQuery
from glancefs.registries.calls import Call, calls_of
from glancefs.registries.folders import OutlinePage
from glancefs.registries.locks import Touched
from glancefs.use_cases import FolderUseCases, ImageUseCases

PREFIX: Final = "/tree/v1/"
"""What the paths of all calls begin with."""

WITH_DATA: Final = frozenset({"images/add", "images/upload", "ahead/send"})
"""The calls whose body is a line of arguments, and then data."""

CHANGES_PATH: Final = "/images/changes"
"""Where the change feed is."""

LONGEST_WAIT: Final = 30
"""For how many seconds the change feed waits for news at the most."""

MOST_CHANGES: Final = 1000
"""How many changes one answer of the feed holds at the most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """What a server says of itself and of who asks."""

    user: str | None
    """As whom the caller is known; None: as nobody."""
    is_admin: bool
    identity: str
    """What no other server's registry has."""
    largest: int | None
    """The most bytes that an image may have here; None: any number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentAhead:
    """What of an image's data is at the server already; the rest follows."""

    key: str
    """Under which it was sent."""
    size: int
    """In bytes."""


class ServerCalls(Protocol):
    """Calls that concern the server itself."""

    def greeting(self, context: RequestContext) -> Greeting:
        """Say who is who."""
        ...


class ImageCalls(ImageUseCases, Protocol):
    """See `glancefs.images.Images`."""

    def find(self, context: RequestContext, query: ImageQuery) -> Sequence[Image]:
        """Give one page of images."""
        ...

    def add(
        self, context: RequestContext, new: NewImage, *, replacing: str | None = None, ahead: SentAhead | None = None
    ) -> Image:
        """Add an image with the data that follow."""
        ...

    def upload(
        self,
        context: RequestContext,
        image_id: str,
        *,
        checksum: str | None = None,
        changes: ImageChanges | None = None,
        resizes: bool = False,
        ahead: SentAhead | None = None,
    ) -> Image:
        """Bring the data of a queued image, which follow."""
        ...


class FolderCalls(FolderUseCases, Protocol):
    """See `glancefs.folders.Folders`."""

    def outlines_in(
        self, context: RequestContext, path: str, *, after: str | None = None, limit: int = 1000
    ) -> OutlinePage:
        """Give what a listing tells of the same page of images."""
        ...


class LockCalls(Protocol):
    """See `glancefs.locks.Locks`."""

    def check(self, context: RequestContext, touched: Collection[Touched]) -> bool:
        """Raise Locked if a change would meet a lock; give whether there are any locks."""
        ...

    def forget(self, context: RequestContext, path: str, *, guarding: str | None) -> None:
        """Remove the locks of what is removed from a path."""
        ...


class AheadCalls(Protocol):
    """See `glancefs.arrivals.Arrivals`."""

    def begin(self, context: RequestContext, key: str) -> None:
        """Begin to take the data of a file that is still being written."""
        ...

    def send(self, context: RequestContext, key: str, offset: int) -> None:
        """Take a piece of them, which follows."""
        ...

    def drop(self, context: RequestContext, key: str) -> None:
        """Let go of them."""
        ...


ROOMS: Final[Mapping[str, type]] = {
    "": ServerCalls,
    "images": ImageCalls,
    "folders": FolderCalls,
    "locks": LockCalls,
    "ahead": AheadCalls,
}
"""The protocols, by the first part of their calls' names."""


@cache
def every_call() -> Mapping[str, Call]:
    """Give all calls by their names."""
    return calls_of(
        ROOMS,
        changes={
            *("images/create", "images/copy", "images/add", "images/upload", "images/declare_size", "images/update"),
            *("images/delete", "folders/make", "folders/keep", "folders/remove", "folders/move", "folders/set_mtime"),
            "locks/forget",
        },
        long={"folders/move", "images/copy"},
        unsaid={"context"},
    )

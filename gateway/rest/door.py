# SPDX-License-Identifier: Apache-2.0
"""The images API: which path and method leads where.

Answers for the routes of the seed and of ``/v1/`` (seed checklist, statements 1 and 2): with and without the slash at
the end alike, 405 for a method that a path does not have, 404 for a path that is none. Who asks was settled before.

Threading: a door is immutable and serves many requests at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

from gateway.problems import method_not_allowed, not_found, problem_response
from gateway.rest.calls import ROUTES as CALL_ROUTES
from gateway.rest.calls import Calls
from gateway.rest.dialect import SEED, V1, Dialect
from gateway.rest.downloads import Downloads
from gateway.rest.feed import Feed
from gateway.rest.lists import Lists
from gateway.rest.moves import Moves
from gateway.rest.representations import detail, summary
from gateway.rest.versions import no_members, no_shared_images, versions
from gateway.rest.writes import Writes
from gateway.wsgi import ROUTE_KEY, Request, Response, no_content
from glancefs.errors import ImageNotFound
from glancefs.images import Images
from glancefs.relocation import Relocation
from glancefs.remote.calls import PREFIX as CALLS_PREFIX

Handler = Callable[[Request, Dialect, str], Response]

ROUTES: Final = (
    "images",
    "images-detail",
    "images-changes",
    "image",
    "image-store",
    "members",
    "versions",
    *CALL_ROUTES,
)
"""The names of the routes, for metrics and logs."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Resource:
    route: str
    handlers: Mapping[str, Handler]

    @property
    def allowed(self) -> tuple[str, ...]:
        return (*self.handlers, "OPTIONS")


class RestDoor:
    """The images API over one `Images`; ``uploads`` is entered for as long as an upload's data come in.

    ``feed`` tells of changes, and ``calls`` are those of mounts on other hosts; without them there are none.
    """

    def __init__(
        self,
        *,
        images: Images,
        relocation: Relocation,
        uploads: Callable[[], AbstractContextManager[object]] = nullcontext,
        feed: Feed | None = None,
        calls: Calls | None = None,
    ) -> None:
        lists, downloads, writes, moves = (
            Lists(images=images),
            Downloads(images=images),
            Writes(images=images, uploads=uploads),
            Moves(relocation=relocation),
        )
        self._images = images
        self._calls = calls
        self._feed = feed
        self._changes = None if feed is None else _read_only("images-changes", lambda request, *_: feed.get(request))
        self._list = _Resource(
            route="images",
            handlers={
                "GET": lambda request, dialect, _: lists.get(request, dialect, summary),
                "HEAD": lambda request, dialect, _: lists.head(request, dialect),
                "POST": lambda request, dialect, _: writes.add(request, dialect),
            },
        )
        self._detail = _Resource(
            route="images-detail",
            handlers={
                "GET": lambda request, dialect, _: lists.get(request, dialect, detail),
                "HEAD": lambda request, dialect, _: lists.head(request, dialect),
            },
        )
        self._image = _Resource(
            route="image",
            handlers={
                "GET": downloads.get,
                "HEAD": downloads.head,
                "PUT": writes.change,
                "DELETE": writes.delete,
            },
        )
        self._store = _Resource(route="image-store", handlers={"PUT": moves.move})
        self._members = _read_only("members", self._no_members)
        self._shared = _read_only("members", lambda *_: no_shared_images())
        self._versions = _read_only("versions", lambda request, *_: versions(request))

    @staticmethod
    def owns(path: str) -> bool:
        """Whether a path is this door's to answer."""
        return path.startswith(("/images", "/v1", "/versions", CALLS_PREFIX)) and path.split("/", 2)[1] in {
            *("images", "v1", "versions", "tree"),
        }

    @staticmethod
    def prefers_text(path: str) -> bool:
        """Whether errors at this path are plain text to callers who take anything."""
        return V1.prefers_text and (path == V1.prefix or path.startswith(f"{V1.prefix}/"))

    def respond(self, request: Request) -> Response:
        """Answer a request. Raises errors of the tree for what did not succeed."""
        if self._calls is not None and request.path.startswith(CALLS_PREFIX):
            return self._calls.respond(request)
        segments = request.path[1:].removesuffix("/").split("/")
        dialect = SEED
        if segments[0] == "v1":
            dialect = V1
            del segments[0]
        found = self._resource(segments, dialect)
        if found is None:
            problem = not_found(request.path)
            return problem_response(problem, accept=request.header("accept"), prefers_text=dialect.prefers_text)
        resource, image_id = found
        request.environ[ROUTE_KEY] = resource.route
        handler = resource.handlers.get(request.method)
        if handler is not None:
            return handler(request, dialect, image_id)
        if request.method == "OPTIONS":
            return no_content([("Allow", ", ".join(resource.allowed))])
        problem = method_not_allowed(request.method, resource.allowed)
        return problem_response(problem, accept=request.header("accept"), prefers_text=dialect.prefers_text)

    def close(self) -> None:
        """Let go of what waits, and of what was sent ahead, when the last request is answered."""
        if self._feed is not None:
            self._feed.close()
        if self._calls is not None:
            self._calls.close()

    def _resource(self, segments: list[str], dialect: Dialect) -> tuple[_Resource, str] | None:
        found: tuple[_Resource, str] | None = None
        match segments:
            case ["images"]:
                found = self._list, ""
            case ["images", "detail"]:
                found = self._detail, ""
            case ["images", "changes"] if dialect is SEED and self._changes is not None:
                found = self._changes, ""
            case ["images", image_id] if image_id:
                found = self._image, _checked(image_id)
            case ["images", image_id, "store"] if dialect is SEED:
                found = self._store, _checked(image_id)
            case ["images", image_id, "members"] if dialect is V1:
                found = self._members, _checked(image_id)
            case ["shared-images", _] if dialect is V1:
                found = self._shared, ""
            case [] if dialect is V1:
                found = self._versions, ""
            case ["versions"] if dialect is SEED:
                found = self._versions, ""
        return found

    def _no_members(self, request: Request, _: Dialect, image_id: str) -> Response:
        self._images.get(request.context, image_id)
        return no_members()


def _checked(image_id: str) -> str:
    # What can't be an id never reaches the registry, whatever its database makes of such text.
    if not _ID.fullmatch(image_id):
        raise ImageNotFound.by_id(image_id[:255])
    return image_id


def _read_only(route: str, handler: Handler) -> _Resource:
    return _Resource(route=route, handlers={"GET": handler, "HEAD": handler})

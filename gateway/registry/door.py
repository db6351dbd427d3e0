# SPDX-License-Identifier: Apache-2.0
"""The registry over HTTP: which path and method leads where (`docs/reference/registry.md`).

Answers for the calls of `glancefs.registries.calls`, each at a path of its own, JSON both ways, and for handing the
paths of the seed to `gateway.registry.images`. A change that comes with a key is made once. Who may ask was settled
before; rules about images are the asker's to keep, who is an API server or a mount.

Threading: a door is immutable and serves many requests at once.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from gateway.asking import json_of, key_of
from gateway.problems import method_not_allowed, not_found, problem_response
from gateway.registry.images import ImagesOfRegistry
from gateway.waking import LONGEST_WAIT, Waking
from gateway.wsgi import POSTPONE_KEY, ROUTE_KEY, Request, Response, no_content, whole
from glancefs.errors import Forbidden, InvalidRequest, NotAuthenticated
from glancefs.registries.base import Registry, ServedRegistry
from glancefs.registries.calls import Call, every_call
from glancefs.registries.values import to_json
from glancefs.registries.wire import PREFIX, TIME_HEADER

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

    from gateway.http.exchange import App
    from gateway.http.sendfile import FileSlice

ROUTES: Final = ("images", "images-detail", "image", *every_call())
"""The names of the routes, for metrics and logs."""

MOST_BODY: Final = 64 << 20
"""The largest body that is read, in bytes; an image with every property as long as it may be has some megabytes."""

MOST_CHANGES: Final = 1000
"""How many changes who waits for them is told at once."""

_NEWS: Final = "changes"
"""The call whose answer can be waited for, too."""
_NUMBER = re.compile(r"[0-9]{1,18}")

Handler = Callable[[], Response]


class RegistryDoor:
    """The calls of one registry."""

    def __init__(self, *, registry: ServedRegistry) -> None:
        self._registry = registry
        self._waking = Waking(
            revision=registry.revision, wait=lambda seconds: registry.wait_for_change(timeout=seconds)
        )

    @staticmethod
    def owns(path: str) -> bool:
        """Whether a path is this door's to answer."""
        return path.startswith(("/images", PREFIX)) and path.split("/", 2)[1] in {"images", "registry"}

    @staticmethod
    def prefers_text(path: str) -> bool:
        """Whether errors at this path are plain text to callers who take anything."""
        del path
        return False

    def close(self) -> None:
        """Wake nobody any more who waits."""
        self._waking.close()

    def respond(self, request: Request) -> Response:
        """Answer a request. Raises errors of the tree for what did not succeed."""
        if not request.context.is_admin:
            message = "The registry answers those who present its token."
            raise NotAuthenticated(message)
        if request.header("origin") is not None:
            # A page that somebody has open may send plain forms to servers of their own machine.
            message = "The registry answers programs, not pages in browsers."
            raise Forbidden(message)
        handlers = self._handlers(request)
        if handlers is None:
            return problem_response(not_found(request.path), accept=request.header("accept"))
        handler = handlers.get(request.method)
        if handler is not None:
            return handler()
        allowed = (*handlers, "OPTIONS")
        if request.method == "OPTIONS":
            return no_content([("Allow", ", ".join(allowed))])
        return problem_response(method_not_allowed(request.method, allowed), accept=request.header("accept"))

    def _handlers(self, request: Request) -> Mapping[str, Handler] | None:
        name = request.path.removeprefix(PREFIX)
        if name != request.path:
            call = every_call().get(name)
            if call is None:
                return None
            request.environ[ROUTE_KEY] = call.name
            calls: dict[str, Handler] = {"POST": lambda: self._call(call, request)}
            return calls | {"GET": lambda: self._news(request)} if name == _NEWS else calls
        registry = _once(self._registry, request)
        images = ImagesOfRegistry(registry=registry, base_url=request.base_url)
        match request.path[1:].removesuffix("/").split("/"):
            case ["images"]:
                request.environ[ROUTE_KEY] = "images"
                lists: Handler = lambda: images.summaries(request.parameters())  # noqa: E731 - one of a table's
                return {"GET": lists, "HEAD": lists, "POST": lambda: images.add(json_of(request, most=MOST_BODY))}
            case ["images", "detail"]:
                request.environ[ROUTE_KEY] = "images-detail"
                lists = lambda: images.details(request.parameters())  # noqa: E731 - one of a table's
                return {"GET": lists, "HEAD": lists}
            case ["images", image_id] if image_id:
                request.environ[ROUTE_KEY] = "image"
                match_ = request.header("if-match")
                get: Handler = lambda: images.get(image_id)  # noqa: E731 - one of a table's
                return {
                    "GET": get,
                    "HEAD": get,
                    "PUT": lambda: images.change(image_id, json_of(request, most=MOST_BODY), match_),
                    "DELETE": lambda: images.delete(image_id, match_),
                }
        return None

    def _news(self, request: Request) -> Response:
        """Tell what changed after a revision: at once if there is something, else when there is, or time is up."""
        said = dict(request.parameters())
        since, seconds = _number(said, "since", 0), _number(said, "wait", 0)
        changes = self._registry.changes(since=since, limit=min(_number(said, "limit", MOST_CHANGES), MOST_CHANGES))
        postpone = request.environ.get(POSTPONE_KEY)
        if changes.revision == since and seconds and postpone is not None:
            # Goes out if nothing comes in time; else the same is asked again.
            self._waking.wake(postpone(min(seconds, LONGEST_WAIT)), since=since)
        return _answer(changes)

    def _call(self, call: Call, request: Request) -> Response:
        arguments = call.arguments(json_of(request, most=MOST_BODY))
        registry: Registry = _once(self._registry, request) if call.changes else self._registry
        answer = call.on(registry, arguments)
        return _answer(answer)


def _answer(answer: object) -> Response:
    return whole(200, "application/json", json.dumps({"answer": to_json(answer)}).encode())


def _number(said: Mapping[str, str], name: str, default: int) -> int:
    text = said.get(name, str(default))
    if not _NUMBER.fullmatch(text):
        message = f"{name} takes a whole number, not {text[:80]!r}."
        raise InvalidRequest(message)
    return int(text)


def _once(registry: ServedRegistry, request: Request) -> Registry:
    key = key_of(request)
    return registry if key is None else registry.once(key.key, until=key.until)


class Clocked:
    """An application whose every answer says what time it is here."""

    def __init__(self, application: App, *, on_close: Callable[[], object]) -> None:
        self._application = application
        self._on_close = on_close

    def close(self) -> None:
        """Let go of what the application holds."""
        self._on_close()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes | FileSlice]:
        """Answer one request (PEP 3333)."""

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Callable[[bytes], object]:  # noqa: ANN401 - an exception or nothing
            return start_response(status, [*headers, (TIME_HEADER, f"{time.time():.3f}")], *more)

        return self._application(environ, start)

# SPDX-License-Identifier: Apache-2.0
"""The use cases as calls, for mounts on other hosts: ``POST /tree/v1/CALL`` (`docs/reference/rest.md`).

Answers for reading the arguments, for making a change that comes with a key once, and for the data that follow the
arguments of an upload. What a caller may do and is told, the use cases and `glancefs.remote.served` decide.

Threading: a door's calls are immutable and serve many requests at once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from typing import Any, Final

from gateway.asking import json_in, json_of, key_of
from gateway.bodies import DATA_TYPE
from gateway.problems import method_not_allowed, not_found, problem_response
from gateway.rest.lists import JSON_TYPE
from gateway.wsgi import ROUTE_KEY, SUBJECT_KEY, Request, Response, no_content, whole
from glancefs.arrivals import Arrivals
from glancefs.assembly import Assembly
from glancefs.context import RequestContext
from glancefs.errors import InvalidRequest, NotAuthenticated
from glancefs.model import Image
from glancefs.registries.base import Answered
from glancefs.registries.calls import Call
from glancefs.registries.folders import Folder
from glancefs.registries.values import reader_of, to_json
from glancefs.registries.wire import TIME_HEADER
from glancefs.remote.calls import PREFIX, WITH_DATA, SentAhead, every_call
from glancefs.remote.served import OwnLocks, Served, check_bounds, told
from glancefs.stores.base import Source

ROUTES: Final = tuple(f"tree/{name}" for name in every_call())
"""The names of the routes, for metrics and logs."""

MOST_ARGUMENTS: Final = 8 << 20
"""The longest arguments that are read, in bytes: an image with many properties, each as long as it may be."""

_read_tokens: Final = reader_of(frozenset[str])
_TOKENS: Final = "lock_tokens"
"""The one argument that every call has: the tokens of locks that the caller submits."""


class Calls:
    """The calls on one core; ``uploads`` is entered for as long as an upload's data come in."""

    def __init__(
        self, *, core: Assembly, uploads: Callable[[], AbstractContextManager[object]], arrivals: Arrivals
    ) -> None:
        self._core: Final = core
        self._uploads: Final = uploads
        self._arrivals: Final = arrivals

    def close(self) -> None:
        """Let go of what was sent ahead."""
        self._arrivals.close()

    def respond(self, request: Request) -> Response:
        """Answer a call. Raises what the use case does."""
        call = every_call().get(request.path.removeprefix(PREFIX))
        if call is None:
            return problem_response(not_found(request.path), accept=request.header("accept"))
        request.environ[ROUTE_KEY] = f"tree/{call.name}"
        if request.method == "OPTIONS":
            return no_content([("Allow", "POST, OPTIONS")])
        if request.method != "POST":
            problem = method_not_allowed(request.method, ("POST", "OPTIONS"))
            return problem_response(problem, accept=request.header("accept"))
        if call.changes and request.context.user is None:
            message = "Only a known user may change anything: log in."
            raise NotAuthenticated(message)
        _check_kind(call, request)
        answer = {"answer": to_json(self._answer(call, request), is_brief=True)}
        headers = [(TIME_HEADER, f"{time.time():.3f}"), ("Cache-Control", "no-store")]
        return whole(200, "application/json", f"{json.dumps(answer)}\n".encode(), headers)

    @cached_property
    def _identity(self) -> str:
        return self._core.registry.identity()

    def _answer(self, call: Call, request: Request) -> object:
        core = self._core
        key = key_of(request) if call.changes else None
        if key is not None:
            whose = sha256(f"{request.context.user}\0{call.name}\0{key.key}".encode()).hexdigest()
            made = core.registry.answered(whose)
            if made is not None:
                return _answer_of(call, made)
            # An upload is several changes, of which none is harmful twice.
            if call.name != "images/upload":
                core = core.once(whose, until=None if call.name in WITH_DATA else key.until)
        if call.name in WITH_DATA:
            return told(self._take(core, call, request))
        arguments, context = self._arguments(call, request, json_of(request, most=MOST_ARGUMENTS))
        return told(call.on(self._served(core), _with_context(call, arguments, context)))

    def _served(self, core: Assembly) -> Served:
        return Served(
            images=core.images,
            folders=core.folders,
            locks=OwnLocks(core.locks),
            ahead=self._arrivals,
            identity=self._identity,
            largest=core.config.gateway.max_upload,
        )

    def _arguments(self, call: Call, request: Request, said: object) -> tuple[dict[str, Any], RequestContext]:
        """Read the arguments, and who asks with which tokens. Raises InvalidRequest."""
        tokens: frozenset[str] = frozenset()
        if isinstance(said, dict) and _TOKENS in said:
            tokens = _read_tokens(said.pop(_TOKENS))
        arguments: dict[str, Any] = call.arguments(said)
        check_bounds(arguments)
        return arguments, replace(request.context, lock_tokens=tokens)

    def _take(self, core: Assembly, call: Call, request: Request) -> Image | None:
        """Take data, in front of which stand the arguments of the call, in one line."""
        length = request.content_length
        if length is None:
            message = "An upload says its Content-Length."
            raise InvalidRequest(message)
        source = request.source
        line: bytes = source.readline(MOST_ARGUMENTS)
        if not line.endswith(b"\n"):
            message = "The body of an upload is one line of arguments, and then the data."
            raise InvalidRequest(message)
        arguments, context = self._arguments(call, request, json_in(line))
        size = length - len(line)
        if "new" in arguments:
            request.environ[SUBJECT_KEY] = arguments["new"].name
        with self._uploads():
            if call.name == "ahead/send":
                self._arrivals.append(context, source=source, size=size, **arguments)
                return None
            ahead: SentAhead | None = arguments.pop("ahead", None)
            if ahead is None:
                return _make(core, call, source, context=context, size=size, **arguments)
            with self._arrivals.complete(context, ahead.key, ahead.size, source, size) as file:
                return _make(core, call, file, context=context, size=file.size, **arguments)


def _make(core: Assembly, call: Call, source: Source, **arguments: Any) -> Image:  # noqa: ANN401 - as calls have them
    if call.name == "images/add":
        return core.images.add(source=source, **arguments)
    return core.images.upload(source=source, **arguments)


def _check_kind(call: Call, request: Request) -> None:
    """Raise InvalidRequest for a body that does not say what it is.

    A page in a browser on this machine may send a plain form anywhere, but nothing that says so without being asked.
    """
    kind = DATA_TYPE if call.name in WITH_DATA else JSON_TYPE
    if request.content_type != kind:
        message = f"The body of this call is {kind}, and says so in its Content-Type."
        raise InvalidRequest(message)


def _with_context(call: Call, arguments: Mapping[str, Any], context: object) -> dict[str, Any]:
    return {**arguments, **({"context": context} if "context" in call.unsaid else {})}


def _answer_of(call: Call, made: Answered) -> object:
    """Give what a change gave that was made when it was asked for before."""
    given: Mapping[object, object] = {Image: made.image, Folder: made.folder, int: made.number}
    return told(given.get(call.gives))

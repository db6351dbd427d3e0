# SPDX-License-Identifier: Apache-2.0
"""The WSGI application: every request enters here, and every error leaves here as an answer.

Answers for the order of things: under which URL we are known, who asks, which door, what to say when it fails. Also for
the pages that belong to no door: the root, ``/healthcheck`` and ``/metrics``. A door that is a WSGI application of its
own is hung in by its prefix, and finds the `RequestContext` in its environ. Errors are logged here, once: the operator
reads why, the caller reads what.

Threading: an `Application` is made once per process, after any fork, and serves many requests at once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol

from gateway.auth import Authenticator
from gateway.dav.door import PREFIX as DAV_PREFIX
from gateway.dav.door import DavDoor
from gateway.health import Health
from gateway.metrics import MetricsPage
from gateway.origin import Origin
from gateway.problems import internal_problem, method_not_allowed, not_found, problem_of, problem_response
from gateway.rest.door import ROUTES as REST_ROUTES
from gateway.root import DoorSign, root
from gateway.wsgi import (
    BASE_URL_KEY,
    CONTEXT_KEY,
    ROUTE_KEY,
    STATUS_LINES,
    USER_KEY,
    Request,
    Response,
    no_content,
    whole,
)
from glancefs import __version__
from glancefs.errors import Forbidden, GlancefsError, NotAuthenticated

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_log = logging.getLogger(__name__)

ROUTES: Final = (*REST_ROUTES, "root", "healthcheck", "metrics", "dav")
"""The names of all routes, for the metrics."""

IMAGES_SIGNS: Final = (
    DoorSign(name="images", path="/images/", about="The images API: metadata and data over REST."),
    DoorSign(name="v1", path="/v1/", about="The same API for clients of Glance's version 1."),
)
_DAV_SIGN: Final = DoorSign(
    name="dav",
    path=f"{DAV_PREFIX}/",
    about="The images as files and folders: for WebDAV clients, and for this browser.",
)
_PAGE_METHODS: Final = ("GET", "HEAD", "OPTIONS")


class Door(Protocol):
    """What answers the paths of an API."""

    def owns(self, path: str) -> bool:
        """Whether a path is this door's to answer."""
        ...

    def prefers_text(self, path: str) -> bool:
        """Whether errors at this path are plain text to callers who take anything."""
        ...

    def respond(self, request: Request) -> Response:
        """Answer a request. Raises errors of the tree for what did not succeed."""
        ...

    def close(self) -> None:
        """Let go of what it holds, when the last request is answered."""
        ...


class Application:
    """The doors of one process behind one WSGI callable.

    ``door`` answers what it owns, and ``signs`` are what the root page says of it. ``mounted`` holds further doors by
    their prefix, each with its sign on the root page; what is under the prefix is theirs. ``dav`` is the WebDAV door,
    which answers for the server's own root too where only WebDAV asks. ``public_url`` is what the URIs in answers begin
    with, where the Host of a request is not to say.
    """

    def __init__(
        self,
        *,
        door: Door,
        authenticator: Authenticator,
        health: Health,
        metrics: MetricsPage,
        public_url: str | None = None,
        signs: Sequence[DoorSign] = IMAGES_SIGNS,
        dav: DavDoor | None = None,
        mounted: Mapping[str, tuple[WSGIApplication, str]] | None = None,
    ) -> None:
        self._door = door
        self._authenticator = authenticator
        self._health = health
        self._metrics = metrics
        self._origin = Origin(public_url=public_url)
        self._dav = dav
        self._mounted = {prefix: door for prefix, (door, _) in (mounted or {}).items()}
        if dav is not None:
            self._mounted[DAV_PREFIX] = dav
        self._signs: Sequence[DoorSign] = (
            *signs,
            *((_DAV_SIGN,) if dav is not None else ()),
            *(
                DoorSign(name=prefix.strip("/"), path=f"{prefix}/", about=about)
                for prefix, (_, about) in (mounted or {}).items()
            ),
        )
        self._pages: Mapping[str, tuple[str, Callable[[Request], Response]]] = {
            "": ("root", self._root),
            "/": ("root", self._root),
            "/healthcheck": ("healthcheck", self._healthcheck),
            "/metrics": ("metrics", self._metrics_page),
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        request = Request(environ)
        try:
            mounted = self._mounted_at(request.path)
            if mounted is not None:
                return self._enter(mounted, request, start_response)
            request.base_url = self._origin.of(environ)
            response = self._respond(request)
        except GlancefsError as error:
            response = self._refused(request, error)
        except Exception:  # noqa: BLE001 - the last guard: it is logged, and the process lives
            _log.exception("%s %r failed", request.method, request.path)
            response = problem_response(internal_problem(), accept=request.header("accept"))
        response.headers.append(("X-Content-Type-Options", "nosniff"))
        start_response(STATUS_LINES[response.status], response.headers)
        if request.method == "HEAD":
            response.close()
            return ()
        body: Any = response.body
        return body  # type: ignore[no-any-return]  # pieces may be slices of files, which our server knows

    def close(self) -> None:
        """Let go of what the doors hold, when the last request is answered."""
        self._door.close()
        if self._dav is not None:
            self._dav.close()

    def _respond(self, request: Request) -> Response:
        if self._door.owns(request.path):
            self._identify(request)
            return self._door.respond(request)
        page = self._pages.get(request.path) or self._pages.get(request.path.removesuffix("/"))
        if self._dav is not None and request.path in {"", "/"} and self._dav.answers_root(request.method):
            request.environ[ROUTE_KEY] = "dav"
            return self._dav.at_root(request)
        if page is None:
            if request.path == "*" and request.method == "OPTIONS":
                return no_content([("Allow", "GET, HEAD, POST, PUT, DELETE, OPTIONS")])
            return problem_response(not_found(request.path), accept=request.header("accept"))
        request.environ[ROUTE_KEY], answer = page
        if request.method not in _PAGE_METHODS:
            return problem_response(method_not_allowed(request.method, _PAGE_METHODS), accept=request.header("accept"))
        return no_content([("Allow", ", ".join(_PAGE_METHODS))]) if request.method == "OPTIONS" else answer(request)

    def _identify(self, request: Request) -> None:
        request.context = self._authenticator.authenticate(request.environ)
        request.environ[USER_KEY] = request.context.user

    def _refused(self, request: Request, error: GlancefsError) -> Response:
        problem = problem_of(error, challenge=self._authenticator.challenge)
        if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            level = logging.ERROR if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR else logging.WARNING
            _log.log(level, "%s %r: %s: %s", request.method, request.path, type(error).__name__, error)
        prefers_text = self._door.prefers_text(request.path)
        return problem_response(problem, accept=request.header("accept"), prefers_text=prefers_text)

    # ---- doors that are applications of their own

    def _mounted_at(self, path: str) -> str | None:
        return next((prefix for prefix in self._mounted if path == prefix or path.startswith(f"{prefix}/")), None)

    def _enter(self, prefix: str, request: Request, start_response: StartResponse) -> Iterable[bytes]:
        self._identify(request)
        environ = request.environ
        environ[BASE_URL_KEY] = self._origin.of(environ)
        environ[CONTEXT_KEY] = request.context
        environ[ROUTE_KEY] = prefix.strip("/")
        environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + prefix
        environ["PATH_INFO"] = request.path.removeprefix(prefix)
        return self._mounted[prefix](environ, start_response)

    # ---- pages

    def _root(self, request: Request) -> Response:
        return root(self._signs, version=__version__, base_url=request.base_url, accept=request.header("accept"))

    def _healthcheck(self, _: Request) -> Response:
        report = self._health.report()
        said = {"status": "ok" if report.is_well else "unwell", "checks": dict(report.parts)}
        headers = [("Cache-Control", "no-store")]
        return whole(200 if report.is_well else 503, "application/json", f"{json.dumps(said)}\n".encode(), headers)

    def _metrics_page(self, request: Request) -> Response:
        self._identify(request)
        if request.context.user is None:
            message = "The metrics are for admins: log in."
            raise NotAuthenticated(message)
        if not request.context.is_admin:
            message = "The metrics are for admins."
            raise Forbidden(message)
        content_type, page = self._metrics.render(request.header("accept"))
        return whole(200, content_type, page)

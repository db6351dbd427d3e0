# SPDX-License-Identifier: Apache-2.0
"""The WebDAV door: which method does what, and how it says what went wrong (RFC 4918, classes 1 and 2).

Answers for the methods and for errors as WebDAV tells them: one plain sentence, or the name of the precondition that
failed. Everything about images and paths the tree knows. wsgidav brings what RFC 4918 shares out over its requests:
guarded XML, errors with preconditions, multi-status; its request handlers are not used.

Threading: a door is immutable and serves many requests at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from wsgidav.dav_error import (
    DAVError,
    PRECONDITION_CODE_LockConflict,
    PRECONDITION_CODE_LockTokenMismatch,
    PRECONDITION_CODE_MissingLockToken,
)

from gateway.dav import changing, pages, proppatch
from gateway.dav.call import Call
from gateway.dav.locking import lock_discovery, unlock_token, wanted_depth, wanted_lock, wanted_seconds
from gateway.dav.properties import etag_of
from gateway.dav.propfind import PAGE, Answer, asked, plain_folders, wants_members
from gateway.dav.reading import NoData, download
from gateway.dav.writing import said_with, size_of, source_of
from gateway.dav.xml import DECLARATION, TYPE, condition, parsed_body
from gateway.problems import Problem, internal_problem, method_not_allowed, problem_of, problem_response
from gateway.wsgi import BASE_URL_KEY, CONTEXT_KEY, STATUS_LINES, SUBJECT_KEY, Request, Response, no_content, whole
from glancefs.assembly import Trees
from glancefs.errors import GlancefsError, InvalidRequest, Locked, LockNotFound, NotAuthenticated, NotFound
from glancefs.registries.locks import Lock
from glancefs.tree import Entry, EntryKind, Outlined

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

_log = logging.getLogger(__name__)

METHODS: Final = (
    *("OPTIONS", "GET", "HEAD", "PUT", "DELETE", "PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK"),
)
CLASSES: Final = (("DAV", "1, 2"), ("MS-Author-Via", "DAV"), ("Accept-Ranges", "bytes"))
"""What every answer to OPTIONS says; Windows asks for the second."""

PREFIX: Final = "/dav"
"""Where the share is."""

_ANYBODY: Final = frozenset({"OPTIONS", "GET", "HEAD", "PROPFIND"})


class DavDoor:
    """A WSGI application over trees of images; ``uploads`` is entered for as long as an upload's data come in.

    ``challenge`` is what a caller who is not known must answer. Without ``takes_anonymous``, nobody who is not known
    gets more than OPTIONS.
    """

    def __init__(
        self,
        *,
        trees: Trees,
        challenge: str | None = None,
        takes_anonymous: bool = True,
        uploads: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._trees: Final = trees
        self._challenge: Final = challenge
        self._takes_anonymous: Final = takes_anonymous
        self._uploads: Final = uploads
        self._methods: Final[Mapping[str, Callable[[Call], Response]]] = {
            "GET": self._get,
            "HEAD": self._get,
            "PUT": self._put,
            "DELETE": changing.delete,
            "PROPFIND": self._propfind,
            "PROPPATCH": self._proppatch,
            "MKCOL": changing.make_folder,
            "COPY": changing.copy,
            "MOVE": changing.move,
            "LOCK": self._lock,
            "UNLOCK": self._unlock,
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        request = Request(environ, base_url=environ[BASE_URL_KEY], context=environ[CONTEXT_KEY])
        response = self.respond(request)
        response.headers.append(("X-Content-Type-Options", "nosniff"))
        start_response(STATUS_LINES.get(response.status, f"{response.status} Unknown"), response.headers)
        if request.method == "HEAD":
            response.close()
            return ()
        body: Any = response.body
        return body  # type: ignore[no-any-return]  # pieces may be slices of files, which our server knows

    def respond(self, request: Request) -> Response:
        """Answer one request; whatever goes wrong is an answer too."""
        try:
            if request.method == "OPTIONS":
                return options()
            handler = self._methods.get(request.method)
            if handler is None:
                return _problem(request, method_not_allowed(request.method, METHODS))
            if request.context.user is None and not (self._takes_anonymous and request.method in _ANYBODY):
                raise NotAuthenticated("Log in first.")  # noqa: TRY301 - said as every other error is
            return self._carried_out(request, handler)
        except DAVError as error:
            return _refused(request, error)
        except GlancefsError as error:
            return self._failed(request, error)
        except Exception:  # noqa: BLE001 - the last guard: it is logged, and the process lives
            _log.exception("%s %r failed", request.method, request.path)
            return _problem(request, internal_problem())

    @staticmethod
    def answers_root(method: str) -> bool:
        """Say whether a request to the server's own root is this door's: clients look for WebDAV from there down."""
        return method in {"OPTIONS", "PROPFIND"}

    def at_root(self, request: Request) -> Response:
        """Answer at the server's own root: a folder that holds the share. Windows connects to nothing without one."""
        if request.method == "OPTIONS":
            return options()
        try:
            depth = (request.header("depth") or "0").strip()
            asked(parsed_body(request))
        except DAVError as error:
            return _refused(request, error)
        paths = ["/", f"{PREFIX}/"] if depth == "1" else ["/"]
        return whole(HTTPStatus.MULTI_STATUS, TYPE, plain_folders(paths))

    def close(self) -> None:
        """Let go of threads."""
        self._trees.close()

    def _carried_out(self, request: Request, handler: Callable[[Call], Response]) -> Response:
        call = Call(request, trees=self._trees)
        try:
            response = handler(call)
        except Locked as error:
            call.tree.close()
            body = condition(PRECONDITION_CODE_MissingLockToken, call.locked_hrefs(error))
            return whole(HTTPStatus.LOCKED, TYPE, body)
        except BaseException:
            call.tree.close()
            raise
        if isinstance(response.body, Iterator):
            response.body = _Streamed(response.body, call.tree.close)
        else:
            call.tree.close()
        return response

    def _failed(self, request: Request, error: GlancefsError) -> Response:
        problem = problem_of(error, challenge=self._challenge)
        if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            level = logging.ERROR if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR else logging.WARNING
            _log.log(level, "%s %r: %s: %s", request.method, request.path, type(error).__name__, error)
        return _problem(request, problem)

    # ---- reading

    def _get(self, call: Call) -> Response:
        entry = call.followed(call.entry())
        if entry.kind is not EntryKind.FOLDER:
            call.request.environ[SUBJECT_KEY] = entry.path
            return download(call.request, call.tree, entry)
        if not call.target.is_folder:
            there = call.share.href(entry.path, is_folder=True)
            return Response(status=301, headers=[("Location", there or "/"), ("Content-Length", "0")])
        return pages.page(call.share, entry, call.tree.list(entry.path, page_size=PAGE))

    def _propfind(self, call: Call) -> Response:
        with_members = wants_members(call.request.header("depth"))
        wanted = asked(parsed_body(call.request))
        entry = call.followed(call.entry())
        call.check(entry)
        members: Iterator[Outlined] | None = None
        if with_members and entry.kind is EntryKind.FOLDER:
            members = self._members(call, entry, in_outline=wanted.wants_outlines)
        answer = Answer(
            asked=wanted,
            share=call.share,
            properties=call.properties,
            tree=call.tree,
        )
        headers = [("Cache-Control", "no-cache")]
        if members is None:
            # One packet with its length; a listing goes out while it is made.
            return whole(HTTPStatus.MULTI_STATUS, TYPE, b"".join(answer.pieces(entry, None)), headers)
        headers.append(("Content-Type", TYPE))
        return Response(status=HTTPStatus.MULTI_STATUS, headers=headers, body=answer.pieces(entry, members))

    @staticmethod
    def _members(call: Call, entry: Entry, *, in_outline: bool) -> Iterator[Outlined]:
        pages = (
            call.tree.list_outlined(entry.path, page_size=PAGE)
            if in_outline
            else map(Outlined, call.tree.list(entry.path, page_size=PAGE))
        )
        for page in pages:
            entries: list[Entry] = []
            for one in page.entries:
                try:
                    entries.append(call.followed(one))
                except NotFound:
                    continue
            yield Outlined(entries=entries, images=page.images)

    # ---- writing

    def _put(self, call: Call) -> Response:
        request = call.request
        size = size_of(request)
        if call.target.is_folder:
            raise DAVError(HTTPStatus.METHOD_NOT_ALLOWED, "A file has no slash at the end of its URL.")
        source, checksum = source_of(request, size)
        request.environ[SUBJECT_KEY] = call.path
        try:
            with self._uploads():
                put = call.tree.put(
                    call.path, source, size=size, said=said_with(request), checksum=checksum, check=call.check
                )
        except NotFound:
            raise changing.no_parent() from None
        headers = [("Content-Length", "0")] if put.is_new else []
        tag = etag_of(put.entry)
        if tag is not None:
            headers.append(("ETag", tag))
        if request.header("x-oc-mtime") is not None:
            headers.append(("X-OC-MTime", "accepted"))
        return Response(status=201 if put.is_new else 204, headers=headers)

    def _proppatch(self, call: Call) -> Response:
        entry = call.entry()
        call.check(entry)
        steps = proppatch.steps_of(parsed_body(call.request))
        if call.context.user is None:
            raise NotAuthenticated("Only a known user may change properties: log in.")
        patch = proppatch.patch_of(steps, entry=entry, tree=call.tree)
        if not patch.failures:
            proppatch.apply(patch, entry=entry, tree=call.tree)
        href = call.share.href(entry.path, is_folder=entry.kind is EntryKind.FOLDER)
        return whole(HTTPStatus.MULTI_STATUS, TYPE, proppatch.answer(steps, patch.failures, href=href))

    # ---- locks

    def _lock(self, call: Call) -> Response:
        request = call.request
        seconds = wanted_seconds(request.header("timeout"))
        root = parsed_body(request)
        if root is None:
            return self._refresh(call, seconds)
        wanted = wanted_lock(root)
        entry = call.find(call.path)
        call.check(entry)
        try:
            lock = call.tree.lock(
                call.path,
                is_shared=wanted.is_shared,
                is_deep=wanted_depth(request.header("depth")),
                owner_xml=wanted.owner_xml,
                seconds=seconds,
            )
        except Locked as error:
            body = condition(PRECONDITION_CODE_LockConflict, call.locked_hrefs(error))
            return whole(HTTPStatus.LOCKED, TYPE, body)
        except NotFound:
            raise changing.no_parent() from None
        if entry is None:
            _make_empty(call, lock)
        headers = [("Lock-Token", f"<{lock.token}>")]
        return _discovery(call, status=201 if entry is None else 200, headers=headers)

    @staticmethod
    def _refresh(call: Call, seconds: int | None) -> Response:
        tokens = call.context.lock_tokens
        if len(tokens) != 1:
            raise InvalidRequest("A LOCK without a body renews the one lock whose token is in the If header.")
        call.check(call.entry())
        try:
            call.tree.refresh_lock(call.path, next(iter(tokens)), seconds=seconds)
        except LockNotFound:
            raise DAVError(HTTPStatus.PRECONDITION_FAILED, err_condition=PRECONDITION_CODE_LockTokenMismatch) from None
        return _discovery(call, status=200, headers=[])

    @staticmethod
    def _unlock(call: Call) -> Response:
        token = unlock_token(call.request.header("lock-token"))
        try:
            call.tree.unlock(call.path, token)
        except LockNotFound:
            if any(lock.token == token for lock in call.tree.locks_on(call.path)):
                raise DAVError(HTTPStatus.FORBIDDEN, "The lock is somebody else's.") from None
            raise DAVError(HTTPStatus.CONFLICT, err_condition=PRECONDITION_CODE_LockTokenMismatch) from None
        return no_content()


class _Streamed:
    """The body of an answer that goes on using the tree while it is sent."""

    def __init__(self, pieces: Iterator[Any], close: Callable[[], None]) -> None:
        self._pieces: Final = pieces
        self._close: Final = close

    def __iter__(self) -> Iterator[Any]:
        return self._pieces

    def close(self) -> None:
        """Let go of the tree."""
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()
        self._close()


def _make_empty(call: Call, lock: Lock) -> None:
    """Make the empty file that a lock on nothing makes (RFC 4918, section 7.3)."""
    tree = call.tree.presenting(call.context.lock_tokens | {lock.token})
    try:
        tree.put(call.path, NoData(), size=0)
    except BaseException:
        tree.unlock(call.path, lock.token)
        raise


def _discovery(call: Call, *, status: int, headers: list[tuple[str, str]]) -> Response:
    inside = lock_discovery(call.tree.locks_on(call.path), share=call.share)
    text = f'{DECLARATION}<D:prop xmlns:D="DAV:"><D:lockdiscovery>{inside}</D:lockdiscovery></D:prop>\n'
    return whole(status, TYPE, text.encode(), headers)


def options() -> Response:
    """Say what can be done; the same for everybody and everywhere, so that clients may ask before they log in."""
    return Response(status=200, headers=[*CLASSES, ("Allow", ", ".join(METHODS)), ("Content-Length", "0")])


def _refused(request: Request, error: DAVError) -> Response:
    """Answer with what our own code said of a request, never with the text of another exception."""
    if error.err_condition is not None:
        return whole(error.value, TYPE, condition(error.err_condition.condition_code))
    detail = error.context_info or HTTPStatus(error.value).phrase
    code = HTTPStatus(error.value).phrase.lower().replace(" ", "-")
    return _problem(
        request, Problem(status=error.value, code=code, detail=detail, headers=tuple(error.add_headers or ()))
    )


def _problem(request: Request, problem: Problem) -> Response:
    return problem_response(problem, accept=request.header("accept"), prefers_text=True)

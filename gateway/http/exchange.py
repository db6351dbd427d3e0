# SPDX-License-Identifier: Apache-2.0
"""One request and its response: the server's side of WSGI (PEP 3333).

Answers for the environ, for the framing of the response, for answering in the application's place when it fails, and
for telling at the end whether the connection may serve another request. Does not parse, and does not wait but by the
pace of its request.

Threading: belongs to one request and its worker thread.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING
from wsgiref.types import StartResponse, WSGIEnvironment

from gateway.http.access import Record
from gateway.http.admission import ClientGone, Ticket
from gateway.http.body import Body
from gateway.http.head import Head
from gateway.http.refusal import PROBLEM_TYPE, Refusal, no_place, problem, status_line
from gateway.http.sendfile import FileShrank, FileSlice, FileWrapper
from gateway.http.waiting import Bell
from glancefs.errors import GlancefsError, UploadTruncated
from glancefs.reporting import Transfer

if TYPE_CHECKING:
    from gateway.http.connection import Connection

Chunk = bytes | FileSlice
"""What an application's iterable gives."""

App = Callable[[WSGIEnvironment, StartResponse], Iterable[Chunk]]
"""A WSGI application (PEP 3333) that may give slices of files among its bytes."""

ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

_STATUS = re.compile(r"[1-9][0-9]{2} [^\r\n\0]*")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FORBIDDEN = re.compile(r"[\r\n\0]")
_OURS = frozenset({"transfer-encoding", "keep-alive", "upgrade", "trailer"})
_COALESCE = 64 * 1024
_LONG_RESPONSE = 256 * 1024
_LAST_CHUNK = b"0\r\n\r\n"
_UPLOADS = frozenset({"PUT", "POST"})


class BrokenResponse(Exception):
    """The response does not become what its headers promised; the connection can't be used any more."""


class Exchange:
    """Answers one request on a connection."""

    def __init__(self, *, connection: Connection, head: Head, body: Body, upload: Ticket) -> None:
        self._connection = connection
        self._engine = connection.engine
        self._wire = connection.wire
        self._head = head
        self._body = body
        self._upload = upload
        self._download = Ticket(self._engine.downloads)
        self._pace = self._engine.response_pace(self._download)
        self._status = ""
        self._headers: list[tuple[str, str]] = []
        self._head_made = False
        self._on_wire = False
        self._complete = False
        self._left: int | None = None
        self._length: int | None = None
        self._chunked = False
        self._bodiless = head.method == "HEAD"
        self._pending = b""
        self._started = time.monotonic()
        self._sent_before = self._wire.sent
        self.keep = head.keep_alive
        self.is_postponed = False
        """The application has said that its answer can wait, and nothing of it was sent."""
        self.environ = self._make_environ()

    # -- the outside

    def run(self, app: App) -> bool:
        """Let the application answer. Gives whether the connection may serve another request."""
        self._engine.exchanges.add(self)
        try:
            self._answer(app)
        except Refusal as refusal:
            self._fail(refusal)
        except ClientGone as gone:
            self._engine.log.debug("%s left during %s: %s", self._connection.client, self._head.method, gone)
            self.keep = False
            # Without a reset the kernel would go on offering what it holds to a client that takes nothing.
            self._wire.cut()
        except UploadTruncated as error:
            self.keep = False
            self._fail(Refusal(400, str(error), code=error.code))
        except (FileShrank, BrokenResponse, GlancefsError) as error:
            self._engine.log.error(  # noqa: TRY400  (where it was noticed tells nothing)
                "%s %s: %s", self._head.method, self._shown_path(), error
            )
            self._fail(Refusal(500, "The response could not be made."))
        except (Exception, SystemExit):
            self._engine.log.exception("the application failed at %s %s", self._head.method, self._shown_path())
            self._fail(Refusal(500, "Something went wrong inside the server."))
        finally:
            self._upload.release()
            self._download.release()
            self._engine.forget_exchange(self)
            if not self.is_postponed:
                self._note()
        return self.keep

    def transfer(self) -> Transfer | None:
        """Tell of the data that are on their way, if that may take a while; for any thread, at any time."""
        has_body = bool(self._head.chunked or self._head.length)
        # What is said in JSON is a question, and no data.
        is_question = self.environ.get("CONTENT_TYPE", "").startswith("application/json")
        is_upload = self._head.method in _UPLOADS and has_body and not is_question
        if is_upload:
            done, size = self._body.taken, self._head.length or None
        elif self._length is not None and self._length > _LONG_RESPONSE and self._head.method == "GET":
            done, size = min(self._wire.sent - self._sent_before, self._length), self._length
        else:
            return None
        subject = self.environ.get("glancefs.subject") or self._head.path.encode("latin-1").decode(errors="replace")
        return Transfer(
            key=id(self),
            name=str(subject),
            is_upload=is_upload,
            done=done,
            size=size,
            seconds=time.monotonic() - self._started,
        )

    @property
    def succeeded(self) -> bool:
        """Whether the answer went out whole, and says that what was asked for was done."""
        return self._complete and self._status.startswith("2")

    def refuse(self, refusal: Refusal) -> bool:
        """Answer in the application's place, without asking it."""
        try:
            self._fail(refusal)
        finally:
            self._upload.release()
            self._note()
        return self.keep

    # -- the application

    def _answer(self, app: App) -> None:
        response = app(self.environ, self._start_response)
        try:
            if self.is_postponed:
                return
            if isinstance(response, list | tuple):
                self._send_known(response)
            else:
                for chunk in response:
                    self._send_chunk(chunk)
                    if self._bodiless and self._status:
                        break
            self._finish()
        finally:
            close = getattr(response, "close", None)
            if close is not None:
                close()

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        if exc_info is not None:
            try:
                if self._on_wire and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self._status:
            raise AssertionError("start_response was called twice")
        if not _STATUS.fullmatch(status):
            raise ValueError(f"{status!r} is not a status")
        for name, value in headers:
            if not _NAME.fullmatch(name) or _FORBIDDEN.search(value):
                raise ValueError(f"the response header {name!r} can't be sent")
        self._status = status
        self._headers = headers
        return self._send_chunk

    def _send_known(self, chunks: list[Chunk] | tuple[Chunk, ...]) -> None:
        """Send a response whose pieces are all there, so that its length is known without the application's help."""
        if self._status and not self._bodiless and not self._has("content-length"):
            self._headers = [*self._headers, ("Content-Length", str(sum(map(len, chunks))))]
        for chunk in chunks:
            self._send_chunk(chunk)

    def _has(self, name: str) -> bool:
        return any(key.lower() == name for key, _ in self._headers)

    # -- the response

    def _send_chunk(self, chunk: Chunk) -> None:
        if not isinstance(chunk, bytes | FileSlice):
            raise TypeError(f"the application gave {type(chunk).__name__} where bytes belong")
        size = len(chunk)
        if not size:
            return
        if not self._head_made:
            if not self._status:
                raise AssertionError("the application gave data before it called start_response")
            self._prepare_head()
        if self._bodiless:
            return
        surplus = self._left is not None and size > self._left
        if self._left is not None:
            if surplus:
                chunk = _shortened(chunk, self._left)
            self._left -= len(chunk)
        if len(chunk):
            self._put(chunk)
        if surplus:
            raise BrokenResponse("the response is longer than its Content-Length")

    def _put(self, chunk: Chunk) -> None:
        pending, self._pending = self._pending, b""
        self._on_wire = True
        if self._chunked:
            pending += b"%x\r\n" % len(chunk)
        if isinstance(chunk, FileSlice):
            if pending:
                self._wire.send(pending, self._pace, more=True)
            self._wire.send_file(chunk, self._pace)
            self._pending = b"\r\n" if self._chunked else b""
            return
        if self._chunked:
            self._wire.send(pending + chunk + b"\r\n", self._pace)
        elif pending and len(chunk) <= _COALESCE:
            self._wire.send(pending + chunk, self._pace)
        else:
            if pending:
                self._wire.send(pending, self._pace, more=True)
            self._wire.send(chunk, self._pace)

    def _finish(self) -> None:
        if not self._head_made:
            if not self._status:
                raise AssertionError("the application never called start_response")
            self._prepare_head()
        if self._left and not self._bodiless:
            raise BrokenResponse(f"the response is {self._left} bytes shorter than its Content-Length")
        end = self._pending
        if self._chunked and not self._bodiless:
            end += _LAST_CHUNK
        if end:
            self._on_wire = True
            self._wire.send(end, self._pace)
        self._complete = True

    def _prepare_head(self) -> None:
        """Decide the framing of the response and put its head into `_pending`, to leave with the first data."""
        code = int(self._status[:3])
        self._decide_framing(code)
        lines = [f"HTTP/1.1 {self._status}\r\n"]
        named = set()
        for name, value in self._headers:
            lowered = name.lower()
            if lowered == "connection":
                self.keep = self.keep and "close" not in value.lower()
                continue
            if lowered in _OURS:
                continue
            named.add(lowered)
            lines.append(f"{name}: {value}\r\n")
        self.keep = self.keep and self._engine.keeps_alive and self._body.skip_received()
        if self._chunked:
            lines.append("Transfer-Encoding: chunked\r\n")
        if not self.keep:
            lines.append("Connection: close\r\n")
        elif self._head.protocol == "HTTP/1.0":
            lines.append("Connection: keep-alive\r\n")
        if "date" not in named:
            lines.append(self._engine.date_line())
        if "server" not in named:
            lines.append(self._engine.server_line)
        lines.append("\r\n")
        self._pending = "".join(lines).encode("latin-1")
        self._head_made = True

    def _decide_framing(self, code: int) -> None:
        declared = next((value for name, value in self._headers if name.lower() == "content-length"), None)
        if code < 200 or code in {204, 304}:  # noqa: PLR2004  (RFC 9110, section 6.4.1: these have no content)
            self._bodiless = True
            if code != 304:  # noqa: PLR2004  (RFC 9110, section 8.6: 1xx and 204 carry no Content-Length)
                self._headers = [(name, value) for name, value in self._headers if name.lower() != "content-length"]
        if declared is not None:
            self._left = self._length = int(declared)
        elif not self._bodiless:
            self._chunked = self._head.protocol == "HTTP/1.1"
            self.keep = self.keep and self._chunked
        if not self._bodiless and self._left is not None and self._left > _LONG_RESPONSE and not self._download.claim():
            self._left = None
            raise no_place("downloads", retry_after=self._engine.limits.retry_after)

    # -- failing

    def _fail(self, refusal: Refusal) -> None:
        """Send a refusal, or end the connection so that the client notices when a response is under way already."""
        self.is_postponed = False
        if self._on_wire:
            self.keep = False
            if not self._complete:
                self._wire.cut()
            return
        detail = problem(refusal.status, refusal.detail, code=refusal.code)
        self._status = status_line(refusal.status)
        self._headers = [("Content-Type", PROBLEM_TYPE), ("Content-Length", str(len(detail)))]
        if refusal.retry_after is not None:
            self._headers.append(("Retry-After", str(refusal.retry_after)))
        self._bodiless = self._head.method == "HEAD"
        self._chunked = False
        self._left = None
        try:
            self._prepare_head()
            self._wire.send(self._pending if self._bodiless else self._pending + detail, self._pace)
        except ClientGone:
            self.keep = False

    # -- the environ and the record

    def _make_environ(self) -> WSGIEnvironment:
        head = self._head
        environ: WSGIEnvironment = self._connection.environ.copy()
        environ.update(head.environ)
        environ["REQUEST_METHOD"] = head.method
        environ["PATH_INFO"] = head.path
        environ["QUERY_STRING"] = head.query
        environ["REQUEST_URI"] = head.target
        environ["SERVER_PROTOCOL"] = head.protocol
        environ["wsgi.input"] = self._body
        environ["wsgi.input_terminated"] = head.chunked
        environ["wsgi.file_wrapper"] = FileWrapper
        environ["glancefs.header_fields"] = head.fields
        environ["glancefs.body_awaited"] = self._body.awaited
        if self._connection.may_wait(head):
            environ["glancefs.postpone"] = self._postpone
        return environ

    def _postpone(self, seconds: float) -> Bell:
        self.is_postponed = True
        return self._connection.begin_waiting(seconds)

    def _shown_path(self) -> str:
        return repr(self._head.path)

    def _note(self) -> None:
        environ = self.environ
        self._engine.journal.note(
            Record(
                client=self._connection.client,
                user=str(environ.get("glancefs.user") or ""),
                method=self._head.method,
                target=self._head.target,
                route=str(environ.get("glancefs.route") or ""),
                status=int(self._status[:3] or 0),
                bytes_in=self._body.taken,
                bytes_out=self._wire.sent - self._sent_before,
                seconds=time.monotonic() - self._started,
            )
        )


def _shortened(chunk: Chunk, size: int) -> Chunk:
    if isinstance(chunk, FileSlice):
        return FileSlice(chunk.file, chunk.start, chunk.start + size)
    return chunk[:size]

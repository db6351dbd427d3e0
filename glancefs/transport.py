# SPDX-License-Identifier: Apache-2.0
"""Requests to one server, and what their failures mean.

Answers for who is said to ask, for the pool of connections and its deadlines, for trying again what may be tried again
(reading), and for turning answers that tell of errors, and connections that fail, into the errors of the tree.
Credentials go to this server and nowhere else: redirects are not followed.

Threading: a transport may be used from many threads at once; an answer belongs to one.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NoReturn, cast
from urllib.parse import SplitResult, urlsplit

import urllib3
from urllib3 import exceptions as failures
from urllib3.connection import HTTPConnection

from glancefs import __version__, errors
from glancefs.transfer import (
    BLOCK_SIZE,
    Connection,
    ConnectionPool,
    SecureConnection,
    SecureConnectionPool,
    SourceFailed,
    Upload,
)

URN: Final = "urn:glancefs:error:"
"""What the ``type`` of a problem (RFC 9457) begins with; the ``code`` of the class of error follows."""

UPLOAD_ANSWER_SECONDS: Final = 600.0
"""How long the answer to an upload may take: the server syncs everything to its disk first."""

PROBLEM_LIMIT: Final = 65_536
"""How much of a refusal is read."""

_SAFE: Final = frozenset({"GET", "HEAD"})
_PAUSES: Final = (0.1, 0.4)
"""Before the second and the third try of what is safe to repeat, in seconds."""

_BY_STATUS: Final[Mapping[int, type[errors.GlancefsError]]] = {
    401: errors.NotAuthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    412: errors.StaleImage,
    413: errors.UploadTooLarge,
    423: errors.Locked,
    429: errors.Unavailable,
    431: errors.HeadersTooLarge,
    502: errors.Unavailable,
    503: errors.Unavailable,
    504: errors.Unavailable,
    507: errors.StoreFull,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who asks: a user with a password, a token, or nobody."""

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    def headers(self) -> dict[str, str]:
        """Give the headers that say so. Raises InvalidRequest for what no header can hold."""
        headers = {}
        if self.user is not None:
            if ":" in self.user or not self.user.isprintable():
                raise errors.InvalidRequest("A user's name has no colon and no control characters.")
            pair = f"{self.user}:{self.password or ''}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        if self.token is not None:
            if not self.token.isascii() or not self.token.isprintable():
                raise errors.InvalidRequest("A token is plain ASCII.")
            headers["X-Auth-Token"] = self.token
        return headers


class Transport:
    """Requests to the server at one base URL."""

    def __init__(
        self,
        *,
        base: str,
        credentials: Credentials,
        timeout: float,
        cacert: Path | None,
        connections: int = 100,
        ends_dead_ones: bool = False,
    ) -> None:
        """Take where the server is; with ``ends_dead_ones`` connections end whose other end is gone."""
        parts = server_of(base)
        self.base = base.rstrip("/")
        self._timeout = timeout
        self._path = parts.path.rstrip("/")
        self._headers = credentials.headers() | {
            "User-Agent": f"glancefs/{__version__}",
            "Accept": "application/json, application/octet-stream;q=0.9, */*;q=0.5",
        }
        self._ca_certs = str(cacert) if cacert else None
        host, size = parts.hostname or "", BLOCK_SIZE
        sockets = _socket_options(timeout) if ends_dead_ones else HTTPConnection.default_socket_options
        self._pool: urllib3.HTTPConnectionPool
        if parts.scheme == "https":
            self._pool = SecureConnectionPool(
                host,
                parts.port or 443,
                maxsize=connections,
                blocksize=size,
                ca_certs=self._ca_certs,
                socket_options=sockets,
            )
        else:
            self._pool = ConnectionPool(
                host, parts.port or 80, maxsize=connections, blocksize=size, socket_options=sockets
            )

    def close(self) -> None:
        """Let go of the connections; may be called twice."""
        self._pool.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        upload: Upload | None = None,
        is_repeated: bool = False,
        answer_within: float | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """Ask, and give an answer that tells of success; its body is still to be read, and then released.

        ``answer_within`` is for how many seconds the answer may be silent, once everything was sent (None: as usual).
        Of an upload that ``is_repeated`` the server may have all data, and answer before it gets them again.
        Raises the error that the answer tells of; Unavailable where there is none; what reading the upload raised.
        """
        all_headers = self._headers | dict(headers or {})
        if upload is not None:
            all_headers |= _headers_of(upload)
        try:
            response = self._send(method, self._path + path, all_headers, upload, answer_within)
        except SourceFailed as error:
            raise error.__cause__ or error from None
        except (failures.HTTPError, OSError) as error:
            raise self.failed(error) from None
        if response.status >= HTTPStatus.MULTIPLE_CHOICES:
            self._refuse(response, method)
        if upload is not None and not upload.is_complete and not is_repeated:
            response.close()
            raise errors.UploadTruncated("The server answered before it had all of the data.")
        return response

    def connect(self) -> socket.socket:
        """Open a connection of its own, outside of the pool. Raises urllib3's HTTPError, OSError."""
        host, port = self._pool.host, self._pool.port
        connection = (
            SecureConnection(host, port, timeout=self._timeout, ca_certs=self._ca_certs)
            if isinstance(self._pool, SecureConnectionPool)
            else Connection(host, port, timeout=self._timeout)
        )
        connection.connect()
        return cast("socket.socket", connection.sock)

    def head_of(self, method: str, path: str, headers: Mapping[str, str]) -> bytes:
        """Give the head of a request, as it goes over a connection."""
        host = self._pool.host if ":" not in self._pool.host else f"[{self._pool.host}]"
        lines = [f"{method} {self._path}{path} HTTP/1.1", f"Host: {host}:{self._pool.port}"]
        lines += [f"{name}: {value}" for name, value in (self._headers | dict(headers)).items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def read_json(self, response: urllib3.BaseHTTPResponse) -> Any:  # noqa: ANN401 - JSON may be anything
        """Read an answer's JSON and release it. Raises Unavailable where it is cut or none."""
        try:
            return json.loads(response.read())
        except (failures.HTTPError, OSError) as error:
            raise self.failed(error) from None
        except ValueError:
            message = f"{self.base} answers with something else than JSON; is it an image server?"
            raise errors.Unavailable(message) from None
        finally:
            response.release_conn()

    def read_lines(self, response: urllib3.BaseHTTPResponse) -> Iterator[dict[str, Any]]:
        """Give the JSON objects of an answer as they come, each on a line of its own, and let go of it.

        Raises Unavailable where it is cut, or none.
        """
        rest = b""
        try:
            for piece in response.stream(PROBLEM_LIMIT):
                *lines, rest = (rest + piece).split(b"\n")
                yield from map(_object, lines)
            response.release_conn()
        except (failures.HTTPError, OSError) as error:
            raise self.failed(error) from None
        except ValueError:
            message = f"{self.base} answers with something else than JSON; is it an image server?"
            raise errors.Unavailable(message) from None
        finally:
            response.close()

    def failed(self, error: Exception) -> errors.Unavailable:
        """Give the error for a connection that failed."""
        return errors.Unavailable(f"{self.base} {reason_of(error)}.")

    def _send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        upload: Upload | None,
        answer_within: float | None,
    ) -> urllib3.BaseHTTPResponse:
        seconds = answer_within or (UPLOAD_ANSWER_SECONDS if upload is not None else self._timeout)
        failed = 0
        while True:
            try:
                return self._pool.urlopen(
                    method,
                    path,
                    body=cast("Any", upload),
                    headers=headers,
                    retries=False,
                    redirect=False,
                    preload_content=False,
                    decode_content=False,
                    timeout=urllib3.Timeout(connect=self._timeout, read=seconds),
                )
            except failures.ProtocolError:
                # Only what changes nothing is repeated, and only where there was a connection, which then broke.
                failed += 1
                if method not in _SAFE or failed > len(_PAUSES):
                    raise
                time.sleep(_PAUSES[failed - 1])

    def _refuse(self, response: urllib3.BaseHTTPResponse, method: str) -> NoReturn:
        try:
            body = response.read(PROBLEM_LIMIT) if method != "HEAD" else b""
        except (failures.HTTPError, OSError):
            body = b""
        # The rest of the connection is not worth more: a refused upload leaves it in the middle of a body.
        response.close()
        raise error_of(response.status, body)


def _socket_options(seconds: float) -> list[tuple[int, int, int | bytes]]:
    idle = max(1, int(seconds / 2))
    return [
        *HTTPConnection.default_socket_options,
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000)),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, idle),
    ]


def error_of(status: int, body: bytes) -> errors.GlancefsError:
    """Give the error that an answer tells of, by its problem document (RFC 9457) if it has one, else by its status."""
    try:
        problem = json.loads(body)
    except ValueError:
        problem = None
    return problem_error(problem, status=status, text=_plain_text(body))


def problem_error(problem: object, *, status: int = 500, text: str | None = None) -> errors.GlancefsError:
    """Give the error that a problem document tells of; where it tells of none, by the ``status`` and the ``text``."""
    said = problem if isinstance(problem, dict) else {}
    detail = said.get("detail") or said.get("title")
    code = str(said.get("type", ""))
    kind = errors.error_named(code.removeprefix(URN)) if code.startswith(URN) else None
    if kind is None:
        kind = _BY_STATUS.get(status) or (
            errors.InvalidRequest if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR else None
        )
    message = detail if isinstance(detail, str) else text or f"The server answers {_status_text(status)}."
    path = said.get("path")
    if kind is errors.Locked and isinstance(path, str):
        return errors.Locked(message, path=path)
    return (kind or errors.GlancefsError)(message)


def server_of(base: str) -> SplitResult:
    """Take the URL of a server apart. Raises InvalidRequest for one that is none, or holds a user or a password."""
    try:
        parts = urlsplit(base)
        is_server = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        is_server = False
    if not is_server:
        message = f"{base!r} is no URL of a server; it begins with http:// or https://."
        raise errors.InvalidRequest(message)
    if parts.username is not None or parts.password is not None:
        raise errors.InvalidRequest("The URL of a server holds no user and no password; give them apart from it.")
    return parts


def _headers_of(upload: Upload) -> dict[str, str]:
    headers = {"Content-Type": "application/octet-stream"}
    if upload.size is None:
        headers["Transfer-Encoding"] = "chunked"
    else:
        headers["Content-Length"] = str(upload.size)
    if upload.should_ask:
        # What is refused is never sent to its end, after which no other request fits on the connection.
        headers |= {"Expect": "100-continue", "Connection": "close"}
    return headers


def _object(line: bytes) -> dict[str, Any]:
    said = json.loads(line)
    if not isinstance(said, dict):
        raise ValueError("not an object")  # noqa: TRY004 - as for what is no JSON at all
    return said


def _plain_text(body: bytes) -> str | None:
    """Give the first line of what people are meant to read, unless it is markup."""
    text = body.decode(errors="replace").strip()
    if not text or text[0] in "<{[":
        return None
    return text.splitlines()[0][:500]


def _status_text(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def reason_of(error: Exception) -> str:
    """Say in a few words, after the server's URL, why a connection failed."""
    if isinstance(error, failures.MaxRetryError) and error.reason is not None:
        error = error.reason
    if isinstance(error, failures.NameResolutionError):
        return "can't be found: its host name has no address"
    if isinstance(error, failures.NewConnectionError):
        return f"can't be reached: {_sentence(error.__cause__ or error)}"
    if isinstance(error, failures.ConnectTimeoutError | failures.ReadTimeoutError | TimeoutError):
        return "does not answer in time"
    if isinstance(error, failures.SSLError):
        return f"can't be trusted: {_sentence(error.args[0])}"
    if isinstance(error, failures.ProtocolError) and len(error.args) > 1:
        return f"broke the connection: {_sentence(error.args[1])}"
    return f"broke the connection: {_sentence(error)}"


def _sentence(error: object) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    # OpenSSL's own words stand between codes that say nothing to people.
    text = re.sub(r"^\[[A-Z0-9_: ]*\] |\s*\(_ssl\.c:\d+\)", "", text)
    return text.splitlines()[0].rstrip(". ")[:200] if text else type(error).__name__

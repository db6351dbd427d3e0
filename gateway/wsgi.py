# SPDX-License-Identifier: Apache-2.0
"""Requests and responses as the doors of the gateway see them: a thin view of WSGI.

Answers for reading a WSGI environ and for what a handler gives back. Parses nothing that a handler did not ask for,
since most requests are small and many. Knows no route and no server.

Threading: a request and its response belong to the one thread that serves them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from glancefs.context import ANONYMOUS, RequestContext
from glancefs.errors import InvalidRequest

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

ROUTE_KEY: Final = "glancefs.route"
"""Where in the environ the application leaves the name of the route, for the access log and the metrics."""
USER_KEY: Final = "glancefs.user"
"""Where in the environ the application leaves the name of who asks, for the access log."""
SUBJECT_KEY: Final = "glancefs.subject"
"""Where in the environ the application leaves what the data of a request are of, for who watches them pass."""
CONTEXT_KEY: Final = "glancefs.context"
"""Where in the environ a mounted door finds who asks."""
BASE_URL_KEY: Final = "glancefs.base_url"
"""Where in the environ a mounted door finds what the URIs in answers begin with."""
HEADERS_KEY: Final = "glancefs.header_fields"
"""Where in the environ the server leaves the headers as they came: pairs of name and value in bytes.

WSGI itself joins repeated headers, so it can't tell two from one that holds a comma.
"""

POSTPONE_KEY: Final = "glancefs.postpone"
"""Where in the environ the server leaves how a request may wait for news (see `gateway.http`)."""

STATUS_LINES: Final = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}

_MOST_PARAMETERS: Final = 1000


@lru_cache(maxsize=256)
def _key(name: str) -> str:
    return "HTTP_" + name.upper().replace("-", "_")


class Request:
    """One request. ``context`` says who asks; ``base_url`` is what the URIs in answers begin with."""

    __slots__ = ("base_url", "context", "environ", "method", "path")

    def __init__(
        self,
        environ: WSGIEnvironment,
        *,
        base_url: str = "",
        context: RequestContext = ANONYMOUS,
        path: str | None = None,
    ) -> None:
        self.environ = environ
        self.method: str = environ["REQUEST_METHOD"]
        self.path: str = environ.get("PATH_INFO", "") if path is None else path
        self.base_url = base_url
        self.context = context

    def header(self, name: str) -> str | None:
        """Give a header by its lower-case name, its bytes as Latin-1; None where there is none."""
        value: str | None = self.environ.get(_key(name))
        return value

    @property
    def content_type(self) -> str:
        """The body's media type, lower-case and without parameters; empty where none is said."""
        said: str = self.environ.get("CONTENT_TYPE") or ""
        return said.partition(";")[0].strip().lower()

    @property
    def content_length(self) -> int | None:
        """The body's declared length; None where none is declared. Raises InvalidRequest for anything but digits."""
        said: str = self.environ.get("CONTENT_LENGTH") or ""
        if not said:
            return None
        if not (said.isascii() and said.isdigit()):
            message = f"Content-Length is {said[:40]!r}, which is no length."
            raise InvalidRequest(message)
        return int(said[:20])

    @property
    def is_chunked(self) -> bool:
        """Whether the body's length is known at its end only."""
        return bool(self.environ.get("wsgi.input_terminated")) or "HTTP_TRANSFER_ENCODING" in self.environ

    @property
    def source(self) -> Any:  # noqa: ANN401 - the server's own class; it reads as a `glancefs.stores.base.Source`
        """The body. Nothing is asked of the client (``Expect: 100-continue``) before the first read."""
        return self.environ["wsgi.input"]

    def sent_headers(self) -> Iterator[tuple[str, str]]:
        """Give the headers as they came if the server tells, else as WSGI has them; names in lower case."""
        as_sent: Iterable[tuple[bytes, bytes]] | None = self.environ.get(HEADERS_KEY)
        if as_sent is not None:
            for name, value in as_sent:
                yield name.decode("latin-1").lower(), value.decode("latin-1")
            return
        for key, value in self.environ.items():
            if key.startswith("HTTP_"):
                yield key[5:].lower().replace("_", "-"), value

    def parameters(self) -> list[tuple[str, str]]:
        """Give the query's parameters in their order. Raises InvalidRequest for bytes that are no UTF-8."""
        query: str = self.environ.get("QUERY_STRING") or ""
        if not query:
            return []
        try:
            text = query if query.isascii() else query.encode("latin-1").decode()
            return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS)
        except ValueError:
            message = "The query of the URL can't be read: it holds bytes that are no UTF-8, or too many parameters."
            raise InvalidRequest(message) from None


@dataclass(slots=True, kw_only=True)
class Response:
    """What a handler gives back; the server closes a body that has ``close``, also when it is never sent."""

    status: int
    headers: list[tuple[str, str]]
    body: Iterable[Any] = ()
    """Pieces of bytes, or `FileSlice` where a server that knows them is in front."""

    def close(self) -> None:
        """Let go of what the body holds, for a body that will not be sent."""
        close = getattr(self.body, "close", None)
        if close is not None:
            close()
        self.body = ()


def whole(status: int, content_type: str, data: bytes, headers: Iterable[tuple[str, str]] = ()) -> Response:
    """Give a response whose whole body is at hand."""
    return Response(
        status=status,
        headers=[("Content-Type", content_type), ("Content-Length", str(len(data))), *headers],
        body=(data,),
    )


def no_content(headers: Iterable[tuple[str, str]] = ()) -> Response:
    """Give a response that succeeded and has nothing to say."""
    return Response(status=204, headers=list(headers))

# SPDX-License-Identifier: Apache-2.0
"""Calls to a server, such as that of a registry: each within its time, and asked again where nobody answered.

Answers for requests, deadlines, keys, and what failures mean. Knows the calls by their names alone;
`glancefs.registries.remote` has the registry that is made of those to `glancefs registry`.

Threading: may be used from many threads at once; connections are pooled.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlencode

import urllib3
from urllib3 import exceptions as failures
from urllib3.connection import HTTPConnection

from glancefs import __version__, errors
from glancefs.registries.calls import Call
from glancefs.registries.values import to_json
from glancefs.transport import URN, error_of, reason_of, server_of

PREFIX: Final = "/registry/v1/"
"""What the paths of all calls of a registry begin with."""

KEY_HEADER: Final = "Idempotency-Key"
"""Where a change says under which key it is to be made once."""

UNTIL_HEADER: Final = "Glancefs-Until"
"""Where a change says until when it is wanted, by the server's clock, in seconds since the epoch."""

TIME_HEADER: Final = "Glancefs-Time"
"""Where each answer says what time it is there."""

LONG_SECONDS: Final = 120.0
"""How long a call that grows with what there is may take."""

_CONNECT_SECONDS: Final = 2.0
_MARGIN: Final = 0.25
"""How long before the caller gives up a change is not begun any more, in seconds: more than a commit takes."""
_PAUSES: Final = (0.05, 0.1, 0.2, 0.4)
"""Before each further try, in seconds; the last one before all that follow."""

_DOWN_SECONDS: Final = 1.0
"""For how long after a call that failed the others try once only, so that nobody's threads pile up."""

_TROUBLED: Final = frozenset({502, 503, 504})

_SOCKET_OPTIONS: Final = [
    *HTTPConnection.default_socket_options,
    # A connection to a host that was cut off ends itself (tcp(7)), rather than be tried by one call after the other.
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 5000),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """What is spoken over a wire."""

    prefix: str
    """What the paths of all calls begin with."""
    calls: Callable[[], Mapping[str, Call]]
    refusal: Callable[[str, errors.GlancefsError, bool], errors.GlancefsError]
    """Gives the error for one that the server at a URL told; whether it was told in our own words."""
    what: str
    """What the server is, for people."""
    who: str = "{url}"
    """Who answers, for people; the URL is put in."""
    unavailable: type[errors.Unavailable] = errors.Unavailable
    """What it is that nobody answers."""


@dataclass(slots=True)
class _Line:
    """What is known of the way to the server."""

    failed_at: float = float("-inf")
    clock_ahead: float | None = None
    is_closed: bool = False


class Wire:
    """Calls to the server at a URL. Raises InvalidRequest for a URL that names none."""

    def __init__(
        self,
        *,
        url: str,
        language: Language,
        headers: Mapping[str, str],
        cacert: Path | None,
        timeout: float,
        connections: int,
    ) -> None:
        parts = server_of(url)
        self._url = url.rstrip("/")
        self._language = language
        self._path = parts.path.rstrip("/") + language.prefix
        self._timeout = timeout
        self._headers = {"Content-Type": "application/json", "User-Agent": f"glancefs/{__version__}"} | dict(headers)
        host = parts.hostname or ""
        self._pool: urllib3.HTTPConnectionPool
        if parts.scheme == "https":
            ca_certs = str(cacert) if cacert else None
            self._pool = urllib3.HTTPSConnectionPool(
                host, parts.port or 443, maxsize=connections, ca_certs=ca_certs, socket_options=_SOCKET_OPTIONS
            )
        else:
            self._pool = urllib3.HTTPConnectionPool(
                host, parts.port or 80, maxsize=connections, socket_options=_SOCKET_OPTIONS
            )
        self._line = _Line()
        self._key: str | None = None
        self._latest = float("inf")

    def under(self, key: str, *, until: float | None) -> Self:
        """Give the same wire for one change, under a key of the caller's; not after ``until``, seconds of the epoch."""
        wire = copy(self)
        wire._key = key  # noqa: SLF001 - a copy of this very object
        if until is not None:
            wire._latest = time.monotonic() + until - time.time()  # noqa: SLF001 - as above
        return wire

    def call(self, name: str, /, **arguments: object) -> Any:  # noqa: ANN401 - the answer is the call's
        """Make a call. Raises what the other end raises, and the language's ``unavailable`` when it does not answer."""
        call = self._language.calls()[name]
        body = json.dumps({argument: to_json(value) for argument, value in arguments.items()}).encode()
        return self._read(call, *self._ask(call, body))

    def _read(self, call: Call, status: int, said: bytes) -> Any:  # noqa: ANN401 - the answer is the call's
        if status != HTTPStatus.OK:
            raise self._language.refusal(self._url, error_of(status, said), URN.encode() in said)
        try:
            return call.answer(json.loads(said)["answer"])
        except (ValueError, TypeError, KeyError, errors.InvalidRequest):
            message = f"{self._url} answers with something else than {self._language.what} of this version does."
            raise self._language.unavailable(message) from None

    def give_up_soon(self) -> None:
        """Say that the server is known to be away: for a moment, calls are tried once and no more."""
        self._line.failed_at = time.monotonic()

    def news(self, name: str, /, *, wait: int, **arguments: int) -> Any:  # noqa: ANN401 - the answer is the call's
        """Ask once, and have it answered as soon as there is something to tell, or after ``wait`` seconds.

        Raises what the other end raises, and the language's ``unavailable`` when it does not answer.
        """
        call = self._language.calls()[name]
        try:
            response = self._pool.urlopen(
                "GET",
                f"{self._path}{name}?{urlencode({**arguments, 'wait': wait})}",
                headers=self._headers,
                retries=False,
                redirect=False,
                timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=wait + self._timeout),
            )
        except failures.HTTPError as error:
            raise self._failure(reason_of(error), is_unknown=False) from None
        return self._read(call, response.status, response.data)

    def close(self) -> None:
        """Let go of the connections; later calls are refused."""
        self._line.is_closed = True
        self._pool.close()

    def _ask(self, call: Call, body: bytes) -> tuple[int, bytes]:
        """Ask until there is an answer, or no time left."""
        seconds = max(self._timeout, LONG_SECONDS) if call.is_long else self._timeout
        # One key for all tries: it is what makes them one change.
        key = {KEY_HEADER: self._key or secrets.token_hex(16)} if call.changes else {}
        deadline = min(time.monotonic() + seconds, self._latest if call.changes else float("inf"))
        is_down = time.monotonic() - self._line.failed_at < _DOWN_SECONDS
        was_sent = False
        tries = 0
        while True:
            if self._line.is_closed:
                raise self._language.unavailable(f"{self._who} is not asked any more.")
            if deadline <= time.monotonic():
                raise self._failure("was not asked in time", is_unknown=False)
            try:
                answer = self._try(call, body, self._headers | key | self._until(deadline, call), deadline)
            except failures.HTTPError as error:
                reason = reason_of(error)
                was_sent = was_sent or not _was_not_sent(error)
            else:
                if answer[0] not in _TROUBLED or URN.encode() in answer[1]:
                    self._line.failed_at = float("-inf")
                    return answer
                reason, was_sent = f"answers {answer[0]}", True
            pause = _PAUSES[min(tries, len(_PAUSES) - 1)]
            tries += 1
            # What may have been done is worth asking about as long as there is time.
            is_hopeless = is_down and not (call.changes and was_sent)
            if is_hopeless or time.monotonic() + pause >= deadline:
                self._line.failed_at = time.monotonic()
                raise self._failure(reason, is_unknown=call.changes and was_sent)
            time.sleep(pause)

    def _try(self, call: Call, body: bytes, headers: Mapping[str, str], deadline: float) -> tuple[int, bytes]:
        seconds = deadline - time.monotonic()
        response = self._pool.urlopen(
            "POST",
            self._path + call.name,
            body=body,
            headers=headers,
            retries=False,
            redirect=False,
            timeout=urllib3.Timeout(connect=min(seconds, _CONNECT_SECONDS), total=seconds),
        )
        with contextlib.suppress(KeyError, ValueError):
            self._line.clock_ahead = float(response.headers[TIME_HEADER]) - time.monotonic()
        return response.status, response.data

    def _until(self, deadline: float, call: Call) -> dict[str, str]:
        """Say until when a change is wanted, by the server's clock, once that is known from an answer."""
        if self._line.clock_ahead is None or not call.changes:
            return {}
        return {UNTIL_HEADER: f"{deadline + self._line.clock_ahead - _MARGIN:.3f}"}

    @property
    def _who(self) -> str:
        return self._language.who.format(url=self._url)

    def _failure(self, reason: str, *, is_unknown: bool) -> errors.Unavailable:
        doubt = "; whether the change was made is not known" if is_unknown else ""
        return self._language.unavailable(f"{self._who} {reason}{doubt}.")


def _was_not_sent(error: failures.HTTPError) -> bool:
    """Say whether a request can't have reached anybody, since there was no connection."""
    reason = error.reason if isinstance(error, failures.MaxRetryError) else error
    return isinstance(reason, failures.NewConnectionError | failures.ConnectTimeoutError)

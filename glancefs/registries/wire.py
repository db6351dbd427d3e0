# SPDX-License-Identifier: Apache-2.0
"""Calls to the server of a registry: each within its time, and asked again where nobody answered.

Answers for the connection to `glancefs registry`: requests, deadlines, keys, and what failures mean. Knows the calls by
their names alone; `glancefs.registries.remote` has the registry that is made of them.

Threading: may be used from many threads at once; connections are pooled.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import time
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import urllib3
from urllib3 import exceptions as failures
from urllib3.connection import HTTPConnection

from glancefs import __version__, errors
from glancefs.registries.calls import LONG, Call, every_call
from glancefs.registries.values import to_json
from glancefs.transport import URN, error_of, reason_of, server_of

PREFIX: Final = "/registry/v1/"
"""What the paths of all calls begin with."""

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

_PASSED_ON: Final = (
    *(errors.InvalidRequest, errors.ImageNotFound, errors.PathNotFound, errors.LockNotFound, errors.Conflict),
    *(errors.ProtectedImage, errors.StoreFull),
)
"""Errors that are the asker's own; all others are trouble between us and the registry."""

_TROUBLED: Final = frozenset({502, 503, 504})

_SOCKET_OPTIONS: Final = [
    *HTTPConnection.default_socket_options,
    # A connection to a host that was cut off ends itself (tcp(7)), rather than be tried by one call after the other.
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 5000),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
]


class Wire:
    """Calls to the server at a URL. Raises ConfigError for a URL that names none."""

    def __init__(self, *, url: str, token: str | None, cacert: Path | None, timeout: float, connections: int) -> None:
        try:
            parts = server_of(url)
        except errors.InvalidRequest as error:
            message = f"The registry can't be at this URL. {error}"
            raise errors.ConfigError(message) from None
        self._url = url.rstrip("/")
        self._path = parts.path.rstrip("/") + PREFIX
        self._timeout = timeout
        self._headers = {"Content-Type": "application/json", "User-Agent": f"glancefs/{__version__}"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
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
        self._failed_at = float("-inf")
        self._clock_ahead: float | None = None
        self._is_closed = False

    def call(self, name: str, /, **arguments: object) -> Any:  # noqa: ANN401 - the answer is the call's
        """Make a call. Raises what the registry raises, and RegistryUnavailable when it does not answer."""
        call = every_call()[name]
        body = json.dumps({argument: to_json(value) for argument, value in arguments.items()}).encode()
        status, said = self._ask(call, body)
        if status != HTTPStatus.OK:
            raise self._refusal(status, said)
        try:
            return call.answer(json.loads(said)["answer"])
        except (ValueError, TypeError, KeyError, errors.InvalidRequest):
            message = f"{self._url} answers with something else than a registry of this version does."
            raise errors.RegistryUnavailable(message) from None

    def close(self) -> None:
        """Let go of the connections; later calls are refused."""
        self._is_closed = True
        self._pool.close()

    def _ask(self, call: Call, body: bytes) -> tuple[int, bytes]:
        """Ask until there is an answer, or no time left."""
        seconds = max(self._timeout, LONG_SECONDS) if call.name in LONG else self._timeout
        # One key for all tries: it is what makes them one change.
        key = {KEY_HEADER: secrets.token_hex(16)} if call.changes else {}
        deadline = time.monotonic() + seconds
        is_down = time.monotonic() - self._failed_at < _DOWN_SECONDS
        was_sent = False
        tries = 0
        while True:
            if self._is_closed:
                raise errors.RegistryUnavailable("The registry is closed.")
            try:
                answer = self._try(call, body, self._headers | key | self._until(deadline, call), deadline)
            except failures.HTTPError as error:
                reason = reason_of(error)
                was_sent = was_sent or not _was_not_sent(error)
            else:
                if answer[0] not in _TROUBLED or URN.encode() in answer[1]:
                    self._failed_at = float("-inf")
                    return answer
                reason, was_sent = f"answers {answer[0]}", True
            pause = _PAUSES[min(tries, len(_PAUSES) - 1)]
            tries += 1
            # What may have been done is worth asking about as long as there is time.
            is_hopeless = is_down and not (call.changes and was_sent)
            if is_hopeless or time.monotonic() + pause >= deadline:
                self._failed_at = time.monotonic()
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
            self._clock_ahead = float(response.headers[TIME_HEADER]) - time.monotonic()
        return response.status, response.data

    def _until(self, deadline: float, call: Call) -> dict[str, str]:
        """Say until when a change is wanted, by the server's clock, once that is known from an answer."""
        if self._clock_ahead is None or not call.changes:
            return {}
        return {UNTIL_HEADER: f"{deadline + self._clock_ahead - _MARGIN:.3f}"}

    def _failure(self, reason: str, *, is_unknown: bool) -> errors.RegistryUnavailable:
        doubt = "; whether the change was made is not known" if is_unknown else ""
        return errors.RegistryUnavailable(f"The registry at {self._url} {reason}{doubt}.")

    def _refusal(self, status: int, said: bytes) -> errors.GlancefsError:
        error = error_of(status, said)
        if URN.encode() in said and (isinstance(error, _PASSED_ON) or type(error) is errors.Forbidden):
            return error
        if isinstance(error, errors.NotAuthenticated):
            return errors.RegistryUnavailable(f"The registry at {self._url} does not take our registry_token.")
        if isinstance(error, errors.RegistryUnavailable):
            return error
        return errors.RegistryUnavailable(f"The registry at {self._url} refuses: {error}")


def _was_not_sent(error: failures.HTTPError) -> bool:
    """Say whether a request can't have reached anybody, since there was no connection."""
    reason = error.reason if isinstance(error, failures.MaxRetryError) else error
    return isinstance(reason, failures.NewConnectionError | failures.ConnectTimeoutError)

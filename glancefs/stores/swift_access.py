# SPDX-License-Identifier: Apache-2.0
"""How a Swift cluster is spoken to: who we are, connections, and what its refusals mean.

Answers for tokens that expire in the middle, for connections that are lent for one call each and used again, and for
errors whose texts hold neither credentials nor tokens. Does not know what is kept.

Threading: may be used by many threads; a connection belongs to whom it is lent.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from urllib.parse import SplitResult, urlsplit

import urllib3
from keystoneauth1 import exceptions as auth_errors
from keystoneauth1.identity.v3 import ApplicationCredential, Password
from keystoneauth1.session import Session
from requests.exceptions import RequestException
from swiftclient.authv1 import PasswordPlugin
from swiftclient.client import HTTPConnection
from swiftclient.exceptions import ClientException

from glancefs.errors import StoreFull
from glancefs.stores.objects.engine import Refused, Transient

if TYPE_CHECKING:
    from keystoneauth1.identity.base import BaseIdentityPlugin

Connection = tuple[SplitResult, HTTPConnection]
"""As python-swiftclient takes one."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_IDLE: Final = 32
"""How many connections are kept open for later."""

_UNAUTHORIZED: Final = 401
_NOT_FOUND: Final = 404
_UNMET: Final = 412
_NO_ROOM: Final = frozenset({413, 507})
_PASSING: Final = frozenset({401, 408, 422, 429, 498, 499, 500, 502, 503, 504})
"""Statuses after which trying again may help; 422: what arrived is not what was sent."""

CUT: Final = (RequestException, urllib3.exceptions.HTTPError, OSError)
"""What python-swiftclient lets through when a connection fails."""

# Their lines of failed requests hold the beginnings of tokens.
for _name in ("swiftclient", "keystoneauth"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class Absent(Exception):
    """The cluster says that there is no such thing."""


class Unmet(Exception):
    """The condition of a request does not hold."""


class Call(Protocol[T_co]):
    """A function of `swiftclient.client`, all but who asks."""

    def __call__(self, url: str, token: str, *, http_conn: Connection) -> T_co:
        """Carry it out."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who we are to a cluster. With an application credential neither user nor project is said."""

    auth_url: str
    version: str
    """``1``, or ``3`` for Keystone."""
    user: str | None = None
    key: str | None = field(default=None, repr=False)
    project: str | None = None
    domain: str = "Default"
    """The Keystone domain of both user and project."""
    application_id: str | None = None
    application_secret: str | None = field(default=None, repr=False)

    def plugin(self) -> BaseIdentityPlugin:
        """Give what logs in so."""
        if self.version == "1":
            plugin: BaseIdentityPlugin = PasswordPlugin(self.auth_url, self.user, self.key, project_name=self.project)
            return plugin
        if self.application_id is not None:
            return ApplicationCredential(
                auth_url=self.auth_url,
                application_credential_id=self.application_id,
                application_credential_secret=self.application_secret or "",
            )
        return Password(
            auth_url=self.auth_url,
            username=self.user,
            password=self.key or "",
            user_domain_name=self.domain,
            project_name=self.project,
            project_domain_name=self.domain,
        )


class SwiftAccess:
    """Tokens and connections. ``timeout`` is how many seconds the cluster may be silent, ``cacert`` a file."""

    def __init__(
        self,
        *,
        credentials: Credentials,
        region: str | None = None,
        timeout: float = 30.0,
        insecure: bool = False,
        cacert: str | None = None,
    ) -> None:
        self._auth: Final = credentials.plugin()
        self._region: Final = region
        self._options: Final[dict[str, Any]] = {"timeout": timeout, "insecure": insecure, "cacert": cacert}
        verify: bool | str = not insecure if cacert is None or insecure else cacert
        self._session: Final = Session(auth=self._auth, verify=verify, timeout=timeout)
        self._lock: Final = Lock()
        self._idle: Final[list[HTTPConnection]] = []
        self._url = ""

    def call(self, work: Call[T]) -> T:
        """Carry a call out. Raises Absent, Unmet, StoreFull, Transient, Refused."""
        result, connection = self.begin(work)
        self.give_back(connection)
        return result

    def begin(self, work: Call[T]) -> tuple[T, HTTPConnection]:
        """Carry a call out, with a new token where the old one has expired, and leave its connection with the caller.

        Raises as `call` does.
        """
        url, token = self.authenticate()
        try:
            return self._carry_out(work, url, token)
        except ClientException as error:
            if error.http_status != _UNAUTHORIZED:
                raise _translated(error) from error
        self._forget(token)
        url, token = self.authenticate()
        try:
            return self._carry_out(work, url, token)
        except ClientException as error:
            raise _translated(error) from error

    def authenticate(self) -> tuple[str, str]:
        """Give the storage's URL and a token, a new one only where there is none that serves.

        Raises Transient, Refused.
        """
        try:
            token = self._session.get_token()
            url = self._session.get_endpoint(service_type="object-store", interface="public", region_name=self._region)
        except (auth_errors.Unauthorized, auth_errors.Forbidden) as error:
            raise Refused("its login refuses the credentials", type(error).__name__) from error
        except (auth_errors.HttpServerError, auth_errors.ConnectionError, auth_errors.RetriableConnectionFailure) as e:
            raise Transient("its login does not answer", e) from e
        except auth_errors.ClientException as error:
            raise Refused("its login does not work as configured", error) from error
        if not url or not token:
            raise Refused("its login names no object store", f"region {self._region}")
        return url.rstrip("/"), token

    def give_back(self, connection: HTTPConnection) -> None:
        """Take a connection back that has answered to the end."""
        with self._lock:
            if connection.url == self._url and len(self._idle) < _IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Let go of everything that is not lent."""
        for connection in self._take_all(""):
            connection.close()
        self._session.session.close()

    def _carry_out(self, work: Call[T], url: str, token: str) -> tuple[T, HTTPConnection]:
        connection = self._take(url)
        try:
            return work(url, token, http_conn=(urlsplit(url), connection)), connection
        except ClientException:
            # An answer all the same.
            self.give_back(connection)
            raise
        except CUT as error:
            connection.close()
            raise Transient("it does not answer", error) from error
        except BaseException:
            connection.close()
            raise

    def _forget(self, token: str) -> None:
        """Have a new token asked for, unless another thread was faster."""
        if self._session.get_token() == token:
            self._auth.invalidate()

    def _take(self, url: str) -> HTTPConnection:
        # The catalog may name another place than before.
        for connection in self._take_all(url) if url != self._url else []:
            connection.close()
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return HTTPConnection(url, **self._options)

    def _take_all(self, url: str) -> list[HTTPConnection]:
        with self._lock:
            idle, self._url = self._idle[:], url
            self._idle.clear()
        return idle


def _translated(error: ClientException) -> Exception:
    """Give what a refusal means."""
    status = error.http_status
    detail = f"{status} {error.http_reason}: {error.http_path}"
    if status == _NOT_FOUND:
        return Absent(detail)
    if status == _UNMET:
        return Unmet(detail)
    if status in _NO_ROOM:
        return StoreFull("The store has no room for this: its quota is used up, or it takes no part this large.")
    if not status or status in _PASSING:
        return Transient("it does not answer as it should", detail)
    return Refused(f"it answers {status}", detail)

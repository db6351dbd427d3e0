# SPDX-License-Identifier: Apache-2.0
"""Who is asking, as Keystone knows them: OpenStack's tokens, whose projects are the owners of images.

Answers for `KeystoneAuth`: a token in ``X-Auth-Token``, or, for clients that know HTTP Basic alone, the id and the
secret of an application credential, for which a token is got. Tokens are checked by keystonemiddleware, which is a WSGI
middleware around an application of ours that only notes what it says. Neither tokens nor secrets are ever logged, and
secrets are not kept.

Threading: shared by all threads of a process.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from keystoneauth1 import exceptions as failures
from keystoneauth1 import loading, session
from keystoneauth1.identity import v3
from keystonemiddleware import auth_token
from oslo_config import cfg

from gateway.basic import basic_credentials
from glancefs import __version__
from glancefs.context import ANONYMOUS, RequestContext
from glancefs.errors import NotAuthenticated, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from wsgiref.types import StartResponse, WSGIEnvironment

    from glancefs.config import KeystoneConfig

_LOGGER: Final = "glancefs.keystonemiddleware"
_GROUP: Final = "keystone_authtoken"
_CACHE_KEY: Final = "glancefs.tokens"
_MOST_TOKENS: Final = 10_000
_MOST_AT_ONCE: Final = 16
"""How many threads wait for Keystone at the most; the others are told to come back, so that it stops no one else."""

_LONGEST_TOKEN: Final = 8192
_SOON: Final = 30.0
"""How many seconds before its end a token is not used any more."""


class KeystoneAuth:
    """Tokens of Keystone; who sends none is anonymous.

    The owner of what somebody adds is their project. Raises Unavailable when Keystone can't be asked.
    """

    def __init__(self, *, config: KeystoneConfig) -> None:
        self._admin_role = config.admin_role
        self._url = config.url
        self._timeout = config.timeout
        self._verify: bool | str = str(config.cacert) if config.cacert else True
        self.challenge: str | None = f'Basic realm="glancefs", charset="UTF-8", Keystone uri="{config.url}"'
        self._tokens = _Kept(most=_MOST_TOKENS)
        self._credentials = _Kept(most=_MOST_TOKENS)
        self._cache_seconds = config.cache_seconds
        self._secret = secrets.token_bytes(32)
        self._places = threading.BoundedSemaphore(_MOST_AT_ONCE)
        # What it warns of is a caller's mistake, or is told by us.
        logging.getLogger(_LOGGER).setLevel(logging.CRITICAL + 1)
        self._checker = auth_token.AuthProtocol(_note, _settings(config))

    def authenticate(self, environ: WSGIEnvironment) -> RequestContext:
        """Give the project whose token the request holds.

        Raises NotAuthenticated for a token that is none, has expired or belongs to no project.
        """
        token: str | None = environ.get("HTTP_X_AUTH_TOKEN")
        if token is None:
            header: str | None = environ.get("HTTP_AUTHORIZATION")
            if header is None:
                return ANONYMOUS
            token = self._token_for(*basic_credentials(header))
        if not token or len(token) > _LONGEST_TOKEN or not token.isascii() or not token.isprintable():
            raise _refused()
        return self._context(self._check(token, environ))

    def _context(self, said: WSGIEnvironment) -> RequestContext:
        project: str | None = said.get("HTTP_X_PROJECT_ID")
        if not project:
            message = "The token is for no project: images belong to projects."
            raise NotAuthenticated(message)
        roles = [role.strip() for role in str(said.get("HTTP_X_ROLES", "")).split(",")]
        return RequestContext(user=project, is_admin=self._admin_role in roles)

    def _check(self, token: str, environ: WSGIEnvironment) -> WSGIEnvironment:
        """Give the environ as keystonemiddleware leaves it behind."""
        noted: dict[str, Any] = {}
        asked = {
            "REQUEST_METHOD": environ["REQUEST_METHOD"],
            "SCRIPT_NAME": environ.get("SCRIPT_NAME", ""),
            "PATH_INFO": environ.get("PATH_INFO", ""),
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(),
            "HTTP_X_AUTH_TOKEN": token,
            _CACHE_KEY: self._tokens,
            _NOTED: noted,
        }
        status: list[str] = []
        with self._asking(is_known=self._tokens.has(f"tokens/{sha256(token.encode()).hexdigest()}")):
            try:
                for _ in self._checker(asked, lambda line, *_: status.append(line)):
                    pass
            except failures.ClientException as error:
                raise self._trouble(error) from None
        if noted:
            return noted
        if status[:1] and status[0].startswith(str(HTTPStatus.UNAUTHORIZED.value)):
            raise _refused()
        raise self._trouble(None)

    def _token_for(self, credential: str, secret: str) -> str:
        """Give a token for an application credential, got from Keystone or still good."""
        digest = hmac.digest(self._secret, f"{credential}:{secret}".encode(), "sha256").hex()
        kept: str | None = self._credentials.get(digest)
        if kept is not None:
            return kept
        plugin = v3.ApplicationCredential(
            auth_url=self._url, application_credential_id=credential, application_credential_secret=secret
        )
        with self._asking():
            try:
                # Its own for each: a session keeps what it learnt about its user.
                access = plugin.get_access(self._session())
            except (failures.Unauthorized, failures.NotFound, failures.BadRequest):
                message = "The application credential's id or secret is wrong."
                raise NotAuthenticated(message) from None
            except failures.ClientException as error:
                raise self._trouble(error) from None
        token = str(access.auth_token)
        if access.expires is not None:
            left = access.expires.timestamp() - time.time() - _SOON
            self._credentials.set(digest, token, time=min(self._cache_seconds, left))
        return token

    def _session(self) -> session.Session:
        return session.Session(timeout=self._timeout, verify=self._verify, app_name="glancefs", app_version=__version__)

    @contextmanager
    def _asking(self, *, is_known: bool = False) -> Iterator[None]:
        if is_known:
            yield
            return
        if not self._places.acquire(timeout=1):
            raise Unavailable("Too many wait for Keystone.")
        try:
            yield
        finally:
            self._places.release()

    def _trouble(self, error: Exception | None) -> Unavailable:
        # Not the error's own text: it may hold what was sent.
        why = f" ({type(error).__name__})" if error is not None else ""
        return Unavailable(f"Keystone at {self._url} can't check who asks{why}.")


_NOTED: Final = "glancefs.noted"


def _note(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Be the application that keystonemiddleware guards: keep what it found out."""
    environ[_NOTED].update({name: value for name, value in environ.items() if name.startswith("HTTP_X_")})
    start_response("204 No Content", [])
    return ()


def _refused() -> NotAuthenticated:
    return NotAuthenticated("The token is none of Keystone's, or has expired.")


def _settings(config: KeystoneConfig) -> dict[str, Any]:
    """Give what keystonemiddleware is configured by: an object of its own in place of the global one."""
    own = cfg.ConfigOpts()
    own([], project="glancefs", default_config_files=[], default_config_dirs=[])
    said: dict[str, Any] = {"auth_url": config.url}
    if config.credential_id is not None:
        kind = "v3applicationcredential"
        said |= {
            "application_credential_id": config.credential_id,
            "application_credential_secret": config.credential_secret,
        }
    else:
        kind = "v3password"
        said |= {
            "username": config.user,
            "password": config.password,
            "project_name": config.project,
            "user_domain_name": config.domain,
            "project_domain_name": config.domain,
        }
    own.register_opts(loading.get_auth_plugin_conf_options(kind), group=_GROUP)
    for option, value in said.items():
        own.set_override(option, value, group=_GROUP)
    return {
        "oslo_config_config": own,
        "log_name": _LOGGER,
        "auth_type": kind,
        "www_authenticate_uri": config.url,
        "cafile": str(config.cacert) if config.cacert else None,
        "cache": _CACHE_KEY,
        "token_cache_time": int(config.cache_seconds),
        "http_connect_timeout": int(config.timeout),
        "http_request_max_retries": 0,
        "interface": config.interface,
        "region_name": config.region,
        "service_type": "image",
    }


@dataclass(frozen=True, slots=True)
class _Entry:
    value: Any
    until: float


class _Kept:
    """Values for a time, the oldest going first; in the form of memcached's client, as keystonemiddleware expects."""

    def __init__(self, *, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def has(self, key: str) -> bool:
        """Whether there is a value that is still good."""
        return self.get(key) is not None

    def get(self, key: str) -> Any:  # noqa: ANN401 - what was set
        """Give a value that is still good, else None."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and entry.until <= self._clock():
                del self._entries[key]
                return None
        return None if entry is None else entry.value

    def set(self, key: str, value: Any, time: float = 0) -> None:  # noqa: ANN401 - any value is kept
        """Keep a value for so many seconds."""
        with self._lock:
            self._entries[key] = _Entry(value, self._clock() + time)
            self._entries.move_to_end(key)
            while len(self._entries) > self._most:
                self._entries.popitem(last=False)

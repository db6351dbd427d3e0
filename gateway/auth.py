# SPDX-License-Identifier: Apache-2.0
"""Who is asking: from a request's headers to a `RequestContext`.

Answers for the `Authenticator` protocol and the two that need nothing but this machine: nobody is asked (`NoAuth`), and
HTTP Basic (RFC 7617) against a file of bcrypt entries (`HtpasswdAuth`). What a user may do, `glancefs.images` decides.
Never logs and never keeps a password.

Threading: authenticators are shared by all threads of a process.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final, Protocol

from gateway.basic import basic_credentials
from gateway.passwords import PasswordFile, RememberedPasswords
from glancefs.context import ANONYMOUS, LOCAL_USER, RequestContext
from glancefs.errors import NotAuthenticated

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment


class Authenticator(Protocol):
    """Tells who asks."""

    @property
    def challenge(self) -> str | None:
        """The ``WWW-Authenticate`` of a 401; None where nobody is ever refused."""
        ...

    def authenticate(self, environ: WSGIEnvironment) -> RequestContext:
        """Give who asks; the anonymous context for one who does not say.

        Raises NotAuthenticated for credentials that are wrong or malformed, Unavailable when they can't be checked.
        """
        ...


class NoAuth:
    """Everybody is the user `local`, and admin: for a server that only its own machine reaches."""

    challenge = None

    def authenticate(self, environ: WSGIEnvironment) -> RequestContext:
        """Give the one user there is."""
        del environ
        return _LOCAL


class HtpasswdAuth:
    """HTTP Basic against a file of users; who sends no credentials is anonymous."""

    def __init__(
        self, *, file: PasswordFile, remembered: RememberedPasswords, admins: Collection[str], realm: str = "glancefs"
    ) -> None:
        self._file = file
        self._remembered = remembered
        self._admins = frozenset(admins)
        self.challenge: str | None = f'Basic realm="{realm}", charset="UTF-8"'

    def authenticate(self, environ: WSGIEnvironment) -> RequestContext:
        """Give the user whose name and password the request holds.

        Raises NotAuthenticated when they are wrong or malformed, Unavailable when too many are being checked already or
        the file can't be read.
        """
        header: str | None = environ.get("HTTP_AUTHORIZATION")
        if header is None:
            return ANONYMOUS
        user, password = basic_credentials(header)
        entries = self._file.entries()
        if not self._remembered.is_right(user, password, entries):
            message = "The user name or the password is wrong."
            raise NotAuthenticated(message)
        return RequestContext(user=user, is_admin=user in self._admins)


_LOCAL: Final = RequestContext(user=LOCAL_USER, is_admin=True)

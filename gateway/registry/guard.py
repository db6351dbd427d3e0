# SPDX-License-Identifier: Apache-2.0
"""Who may ask the registry: whoever presents the secret that both ends share.

Answers for reading the secret off a request (RFC 6750, section 2.1) and comparing it in a time that tells nothing of
it. Never logs it.

Threading: shared by all threads of a process.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from glancefs.context import ANONYMOUS, RequestContext
from glancefs.errors import NotAuthenticated

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

_PEER: Final = RequestContext(user="registry", is_admin=True)


class TokenAuth:
    """Lets in who presents the token, as admin; without a token everybody, which is for this machine alone."""

    challenge: str | None = 'Bearer realm="glancefs registry"'

    def __init__(self, *, token: str | None) -> None:
        # Digests are equally long, so that the comparison does not even tell the length.
        self._digest = None if token is None else _digest(token)

    def authenticate(self, environ: WSGIEnvironment) -> RequestContext:
        """Give the one who may do everything, or nobody. Raises NotAuthenticated for another token."""
        if self._digest is None:
            return _PEER
        header: str | None = environ.get("HTTP_AUTHORIZATION")
        if header is None:
            return ANONYMOUS
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(_digest(token.strip()), self._digest):
            message = "This is not the registry's token."
            raise NotAuthenticated(message)
        return _PEER


def _digest(token: str) -> bytes:
    return sha256(token.encode("latin-1", errors="replace")).digest()

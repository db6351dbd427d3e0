# SPDX-License-Identifier: Apache-2.0
"""HTTP Basic (RFC 7617) as a request brings it.

Answers for reading the header. Who the user is, the authenticators know.

Threading: pure functions.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from glancefs.errors import NotAuthenticated

_LONGEST_CREDENTIALS: Final = 4096


def basic_credentials(header: str) -> tuple[str, str]:
    """Give the user and the password of an Authorization header. Raises NotAuthenticated for any other."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic" or len(encoded) > _LONGEST_CREDENTIALS:
        message = "Only HTTP Basic authentication is understood here."
        raise NotAuthenticated(message)
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        colon = ""
    if not colon or not user:
        message = "The Authorization header is malformed."
        raise NotAuthenticated(message)
    return user, password

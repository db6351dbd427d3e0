# SPDX-License-Identifier: Apache-2.0
"""What requests say that programs of ours make: JSON, and under which key a change is to be made once.

Answers for reading both off a request (`docs/reference/registry.md`, `docs/reference/rest.md`). Makes no change.

Threading: pure functions over one request.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from gateway.wsgi import Request
from glancefs.errors import InvalidRequest, UploadTooLarge
from glancefs.registries.wire import KEY_HEADER, UNTIL_HEADER

_PIECE: Final = 1 << 20
_KEY = re.compile(r"[A-Za-z0-9_-]{16,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """Under which key a change is to be made once, and until when it is wanted, in seconds since the epoch."""

    key: str
    until: float | None


def key_of(request: Request) -> Key | None:
    """Give the key that a request brings, if it brings one. Raises InvalidRequest for one that is none."""
    key = request.header(KEY_HEADER.lower())
    if key is None:
        return None
    if not _KEY.fullmatch(key):
        message = f"{KEY_HEADER} takes 16 to 64 of A-Z a-z 0-9 _ -, never the same for two changes."
        raise InvalidRequest(message)
    until = request.header(UNTIL_HEADER.lower())
    try:
        return Key(key=key, until=None if until is None else float(until))
    except ValueError:
        message = f"{UNTIL_HEADER} takes seconds since the epoch."
        raise InvalidRequest(message) from None


def json_of(request: Request, *, most: int) -> Any:  # noqa: ANN401 - JSON is anything
    """Read a body. Raises InvalidRequest for one that is no JSON, UploadTooLarge for more than ``most`` bytes."""
    body = bytearray()
    if request.is_chunked or request.content_length:
        while piece := request.source.read(_PIECE):
            body += piece
            if len(body) > most:
                message = f"The body is longer than {most} bytes."
                raise UploadTooLarge(message)
    return json_in(body)


def json_in(text: bytes | bytearray) -> Any:  # noqa: ANN401 - JSON is anything
    """Read JSON. Raises InvalidRequest."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        message = "The body is not JSON."
        raise InvalidRequest(message) from None

# SPDX-License-Identifier: Apache-2.0
"""What the server itself answers when no application is asked, or when the application failed.

Answers for the form of those answers (RFC 9457 problem details). Does not decide when to refuse.

Threading: values only.
"""

from __future__ import annotations

import json
from http import HTTPStatus

from glancefs.errors import GlancefsError, HeadersTooLarge, InvalidRequest, TooManyUploads, Unavailable, UploadTruncated

PROBLEM_TYPE = "application/problem+json"

_CODES = {
    400: InvalidRequest.code,
    408: UploadTruncated.code,
    431: HeadersTooLarge.code,
    500: GlancefsError.code,
    503: Unavailable.code,
}


class Refusal(Exception):
    """A request that the server answers without asking the application. Its text is one plain sentence for people."""

    def __init__(self, status: int, detail: str, *, code: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.code = code
        self.retry_after = retry_after


def no_place(kind: str, *, retry_after: int) -> Refusal:
    """Give the refusal for a transfer that finds every place taken; `kind` is "uploads" or "downloads"."""
    code = TooManyUploads.code if kind == "uploads" else Unavailable.code
    return Refusal(503, f"Too many {kind} at the moment; try again in a while.", code=code, retry_after=retry_after)


def status_line(status: int) -> str:
    """Give "404 Not Found" for 404."""
    return f"{status} {HTTPStatus(status).phrase}"


def problem(status: int, detail: str, *, code: str | None = None) -> bytes:
    """Give the body of an `application/problem+json` response (RFC 9457, section 3)."""
    name = code or _CODES.get(status)
    document = {
        "type": f"urn:glancefs:error:{name}" if name else "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    return json.dumps(document).encode() + b"\n"

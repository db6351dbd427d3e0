# SPDX-License-Identifier: Apache-2.0
"""Under which URL this server is known to whoever asks.

Answers for what the URIs in answers begin with: ``public_url`` of the configuration, else what the request says of its
host (seed checklist, statement 3). Headers of proxies are not believed; behind one, ``public_url`` is to be set.

Threading: immutable.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from glancefs.errors import InvalidRequest

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

# RFC 9110, section 7.2; nothing in it needs an escape in HTML, JSON or a header.
_HOST = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


class Origin:
    """What the URIs of one server begin with."""

    def __init__(self, *, public_url: str | None = None) -> None:
        self._public_url = None if public_url is None else public_url.rstrip("/")

    def of(self, environ: WSGIEnvironment) -> str:
        """Give it for one request, without a slash at its end. Raises InvalidRequest for a Host that can't be one."""
        host = environ.get("HTTP_HOST")
        if host is None:
            host = f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
        elif not _HOST.fullmatch(host):
            message = "The Host header names no host."
            raise InvalidRequest(message)
        if self._public_url is not None:
            return self._public_url
        return f"{environ['wsgi.url_scheme']}://{host}{environ.get('SCRIPT_NAME', '')}"

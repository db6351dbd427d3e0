# SPDX-License-Identifier: Apache-2.0
"""The data of images on their way in over REST.

Answers for telling whether a request brings data, and of which length (seed checklist, statement 22).

Threading: a body belongs to one request.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.bodies import DATA_TYPE
from gateway.rest.dialect import Dialect
from gateway.wsgi import Request
from glancefs.errors import InvalidRequest
from glancefs.stores.base import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """Data that a request brings."""

    source: Source
    size: int | None
    """None for a body in chunks."""


def upload_of(request: Request, dialect: Dialect) -> Upload | None:
    """Give the data that a request brings, none of them read yet; None for a request without.

    An empty body is an empty image where it says that it is one by its Content-Type. Raises InvalidRequest for a body
    that is no plain data.
    """
    size = request.content_length
    if request.is_chunked:
        size = None
    elif size is None or (size == 0 and (dialect.sends_empty_bodies or request.content_type != DATA_TYPE)):
        return None
    if request.content_type.startswith("multipart/"):
        message = "The body is to be the data themselves, not a form that holds them."
        raise InvalidRequest(message)
    if request.header("content-range") is not None:
        message = "An image is sent whole: a body with Content-Range is not taken."
        raise InvalidRequest(message)
    return Upload(source=request.source, size=size)


class NoData:
    """The source of an image that has none."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Be at the end."""
        del buffer
        return 0

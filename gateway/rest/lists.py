# SPDX-License-Identifier: Apache-2.0
"""Lists of images as JSON.

Answers for lists of any length in constant memory (seed checklist, statements 4 to 8). A list that breaks off in the
middle must not look complete: the error goes on to the server, which cuts the connection before the end of the JSON.

Threading: `Lists` is immutable; a list on its way out belongs to one request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Final

from gateway.rest.dialect import Dialect
from gateway.rest.queries import ListRequest, list_request
from gateway.wsgi import Request, Response, whole
from glancefs.images import Images
from glancefs.model import Image

JSON_TYPE: Final = "application/json"
PAGE: Final = 500
"""How many images are held at a time."""

Represent = Callable[[Image, str, Dialect], dict[str, Any]]

_encode = json.JSONEncoder().encode


class Lists:
    """Answers requests for lists."""

    def __init__(self, *, images: Images) -> None:
        self._images = images

    def get(self, request: Request, dialect: Dialect, represent: Represent) -> Response:
        """Give the list that the query asks for. Raises InvalidQuery, InvalidRequest."""
        rows = self._rows(request, list_request(request, dialect))
        first = list(islice(rows, PAGE))

        def encoded(images: Iterable[Image]) -> str:
            return _encode([represent(image, request.base_url, dialect) for image in images])[1:-1]

        if len(first) < PAGE:
            return whole(200, JSON_TYPE, f'{{"images": [{encoded(first)}]}}\n'.encode())
        return Response(status=200, headers=[("Content-Type", JSON_TYPE)], body=_streamed(first, rows, encoded))

    def head(self, request: Request, dialect: Dialect) -> Response:
        """Answer as `get` does, without the list."""
        wanted = list_request(request, dialect)
        self._images.find(request.context, replace(wanted.query, limit=1))
        return Response(status=200, headers=[("Content-Type", JSON_TYPE)])

    def _rows(self, request: Request, wanted: ListRequest) -> Iterator[Image]:
        if wanted.limit is None:
            return self._images.find_all(request.context, wanted.query, page_size=PAGE)
        if wanted.limit > PAGE:
            everything = self._images.find_all(request.context, wanted.query, page_size=PAGE)
            return islice(everything, wanted.limit)
        page: Sequence[Image] = self._images.find(request.context, replace(wanted.query, limit=max(1, wanted.limit)))
        return iter(page[: wanted.limit])


def _streamed(
    first: Sequence[Image], rows: Iterator[Image], encoded: Callable[[Iterable[Image]], str]
) -> Iterator[bytes]:
    yield f'{{"images": [{encoded(first)}'.encode()
    while page := list(islice(rows, PAGE)):
        yield f", {encoded(page)}".encode()
    yield b"]}\n"

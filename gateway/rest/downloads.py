# SPDX-License-Identifier: Apache-2.0
"""HEAD and GET of one image.

Answers for the headers that tell about an image, for its data, whole or in ranges, and for conditional requests (seed
checklist, statements 9 to 12). Who may see the image, `Images` decides.

Threading: `Downloads` is immutable; an answer belongs to one request.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from gateway.bodies import DATA_TYPE, ImageBody
from gateway.conditions import failed_condition, range_applies
from gateway.problems import Problem, problem_response
from gateway.ranges import ByteRange, Multipart, wanted_ranges
from gateway.rest.dialect import Dialect
from gateway.rest.representations import etag_of, last_modified, meta_headers
from gateway.wsgi import SUBJECT_KEY, Request, Response
from glancefs.images import Images
from glancefs.model import Image
from glancefs.reader import ImageReader


class Downloads:
    """Answers requests that read one image."""

    def __init__(self, *, images: Images) -> None:
        self._images = images

    def head(self, request: Request, dialect: Dialect, image_id: str) -> Response:
        """Tell everything about an image in headers. Raises ImageNotFound."""
        image = self._images.get(request.context, image_id)
        failed = failed_condition(request, etag=etag_of(image), modified=image.updated_at, is_read=True)
        if failed is not None:
            return _unread(request, dialect, image, failed)
        headers = _headers(request, dialect, image)
        headers += [("Content-Type", DATA_TYPE), ("Content-Length", str(image.size)), ("Accept-Ranges", "bytes")]
        return Response(status=200, headers=headers)

    def get(self, request: Request, dialect: Dialect, image_id: str) -> Response:
        """Give an image's data, or the ranges that are asked for. Raises ImageNotFound, also where it has none."""
        image = self._images.get(request.context, image_id)
        failed = failed_condition(request, etag=etag_of(image), modified=image.updated_at, is_read=True)
        if failed is not None:
            return _unread(request, dialect, image, failed)
        request.environ[SUBJECT_KEY] = image.name
        reader = self._images.open_image(image)
        try:
            return _data(request, dialect, reader)
        except BaseException:
            reader.close()
            raise


def _data(request: Request, dialect: Dialect, reader: ImageReader) -> Response:
    image = reader.image
    ranges = None
    if range_applies(request, etag=etag_of(image), modified=image.updated_at):
        ranges = wanted_ranges(request.header("range"), reader.size)
    headers = _headers(request, dialect, image)
    headers.append(("Accept-Ranges", "bytes"))
    if ranges is None:
        headers += [("Content-Type", DATA_TYPE), ("Content-Length", str(reader.size))]
        return Response(status=200, headers=headers, body=ImageBody(reader, [ByteRange(0, reader.size)]))
    if not ranges:
        reader.close()
        return _unsatisfiable(request, dialect, reader.size)
    return Response(status=206, headers=headers, body=_partial(reader, ranges, headers))


def _partial(reader: ImageReader, ranges: Sequence[ByteRange], headers: list[tuple[str, str]]) -> ImageBody:
    if len(ranges) == 1:
        only = ranges[0]
        headers += [
            ("Content-Type", DATA_TYPE),
            ("Content-Length", str(len(only))),
            ("Content-Range", only.content_range(reader.size)),
        ]
        return ImageBody(reader, [only])
    multipart = Multipart(ranges, size=reader.size, content_type=DATA_TYPE)
    headers += [("Content-Type", multipart.content_type), ("Content-Length", str(multipart.length))]
    return ImageBody(reader, multipart.pieces())


def _headers(request: Request, dialect: Dialect, image: Image) -> list[tuple[str, str]]:
    headers = meta_headers(image, request.base_url, dialect)
    etag = etag_of(image)
    if etag is not None:
        headers.append(("ETag", etag))
    # An image can vanish, or become private, at any time: caches must ask.
    headers += [("Last-Modified", last_modified(image)), ("Cache-Control", "no-cache")]
    return headers


def _unread(request: Request, dialect: Dialect, image: Image, status: HTTPStatus) -> Response:
    if status is HTTPStatus.NOT_MODIFIED:
        return Response(status=304, headers=_headers(request, dialect, image))
    return precondition_failed(request, dialect)


def precondition_failed(request: Request, dialect: Dialect) -> Response:
    """Answer a request whose condition does not hold (RFC 9110, section 15.5.13)."""
    problem = Problem(
        status=412,
        code="precondition-failed",
        detail="The image is not in the state that the request asks for.",
    )
    return problem_response(problem, accept=request.header("accept"), prefers_text=dialect.prefers_text)


def _unsatisfiable(request: Request, dialect: Dialect, size: int) -> Response:
    problem = Problem(
        status=416,
        code="range-not-satisfiable",
        detail=f"The image is {size} bytes long; nothing of what was asked for is in it.",
        headers=(("Content-Range", f"bytes */{size}"), ("Accept-Ranges", "bytes")),
    )
    return problem_response(problem, accept=request.header("accept"), prefers_text=dialect.prefers_text)

# SPDX-License-Identifier: Apache-2.0
"""GET and HEAD of files: data, whole or in ranges, by the path that the images API sends them on.

Answers for the headers of an answer with data and for what has none. Folders are `gateway.dav.pages`.

Threading: pure functions; an answer belongs to one request.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from typing import BinaryIO, Final

from wsgidav.dav_error import DAVError

from gateway.bodies import DATA_TYPE, Data, ImageBody
from gateway.conditions import failed_condition, range_applies
from gateway.dav.properties import content_type_of, etag_of, http_date
from gateway.ranges import ByteRange, Multipart, wanted_ranges
from gateway.wsgi import Request, Response, whole
from glancefs.errors import WrongStatus
from glancefs.staging import StagedUpload
from glancefs.tree import Entry, EntryKind, ImageTree

_BILLION: Final = 1_000_000_000
_BLOCK: Final = 1 << 20


def modified_at(entry: Entry) -> datetime:
    """Give the time of modification in whole seconds."""
    return datetime.fromtimestamp(entry.mtime_ns // _BILLION, UTC)


def download(request: Request, tree: ImageTree, entry: Entry) -> Response:
    """Answer GET or HEAD of a file. Raises DAVError (412), WrongStatus where the data are still to come."""
    headers = [("Last-Modified", http_date(entry.mtime_ns // _BILLION)), ("Cache-Control", "no-cache")]
    etag = etag_of(entry)
    if etag is not None:
        headers.append(("ETag", etag))
    failed = failed_condition(request, etag=etag, modified=modified_at(entry), is_read=True)
    if failed is HTTPStatus.NOT_MODIFIED:
        return Response(status=304, headers=headers)
    if failed is not None:
        raise DAVError(failed, "What the request asks for does not hold.")
    if entry.kind is EntryKind.DOCUMENT:
        return whole(200, content_type_of(entry), tree.read_document(entry), headers)
    headers.append(("Accept-Ranges", "bytes"))
    if request.method == "HEAD":
        headers += [("Content-Type", DATA_TYPE), ("Content-Length", str(entry.size))]
        return Response(status=200, headers=headers)
    data = _data(tree, entry)
    try:
        return _answer(request, data, entry, headers)
    except BaseException:
        data.close()
        raise


def _data(tree: ImageTree, entry: Entry) -> Data:
    if entry.kind is EntryKind.IMAGE:
        return tree.open(entry)
    if entry.staged is not None:
        return StagedData(entry.staged)
    if entry.size:
        raise WrongStatus(f"{entry.path!r} has no data yet.")
    return NoData()


def _answer(request: Request, data: Data, entry: Entry, headers: list[tuple[str, str]]) -> Response:
    size = entry.size
    ranges = None
    if range_applies(request, etag=etag_of(entry), modified=modified_at(entry)):
        ranges = wanted_ranges(request.header("range"), size)
    if ranges is None:
        headers += [("Content-Type", DATA_TYPE), ("Content-Length", str(size))]
        return Response(status=200, headers=headers, body=ImageBody(data, [ByteRange(0, size)] if size else []))
    if not ranges:
        told = [("Content-Range", f"bytes */{size}")]
        raise DAVError(416, f"The file is {size} bytes long.", add_headers=told)
    if len(ranges) == 1:
        headers += [
            ("Content-Type", DATA_TYPE),
            ("Content-Length", str(len(ranges[0]))),
            ("Content-Range", ranges[0].content_range(size)),
        ]
        return Response(status=206, headers=headers, body=ImageBody(data, ranges))
    multipart = Multipart(ranges, size=size, content_type=DATA_TYPE)
    headers += [("Content-Type", multipart.content_type), ("Content-Length", str(multipart.length))]
    return Response(status=206, headers=headers, body=ImageBody(data, multipart.pieces()))


class StagedData:
    """The data of a staged file, to be sent after its request has let go of it."""

    def __init__(self, staged: StagedUpload) -> None:
        self.file: BinaryIO | None = os.fdopen(os.dup(staged.fileno), "rb", buffering=0)

    def iter(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Give the bytes from ``start`` up to, not including, ``stop`` (None: the end), in pieces."""
        assert self.file is not None  # noqa: S101 - it is set when made
        stop = os.fstat(self.file.fileno()).st_size if stop is None else stop
        while start < stop and (piece := os.pread(self.file.fileno(), min(_BLOCK, stop - start), start)):
            yield piece
            start += len(piece)

    def close(self) -> None:
        """Let go of the file."""
        if self.file is not None:
            self.file.close()


class NoData:
    """The data of an image that has none; also what an empty body brings."""

    file = None

    def iter(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Give nothing."""
        del start, stop
        return iter(())

    def readinto(self, buffer: memoryview, /) -> int:
        """Be at the end."""
        del buffer
        return 0

    def close(self) -> None:
        """Have nothing to let go of."""

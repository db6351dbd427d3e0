# SPDX-License-Identifier: Apache-2.0
"""The data of one image on their way from a server, across broken connections.

Answers for going on where a connection broke (RFC 9110, sections 13.1.5 and 14.2: ``If-Range`` and ``Range``), for a
bounded number of tries, and for the checksum of the whole. Does not know where the data go.

Threading: a download belongs to one caller.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

import urllib3
from urllib3 import exceptions as failures

from glancefs.errors import ChecksumMismatch, InvalidRequest, StaleImage, Unavailable
from glancefs.headers import meta_from_headers
from glancefs.transport import Transport

CHUNK_SIZE: Final = 1 << 18
"""Small enough to come often over a slow line, large enough to cost nothing over a fast one."""
LONGEST_PAUSE: Final = 8.0
"""Between two tries, in seconds."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")


class Download:
    """One image's bytes from ``start`` up to, not including, ``stop`` (None: the end), and its metadata.

    Asks at once; raises what the answer tells of, and InvalidRequest for a range that holds nothing.
    """

    def __init__(
        self,
        *,
        transport: Transport,
        path: str,
        start: int = 0,
        stop: int | None = None,
        tries: int = 7,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        if start < 0 or (stop is not None and stop <= start):
            message = f"From byte {start} up to {stop} there is nothing to read."
            raise InvalidRequest(message)
        self._transport = transport
        self._path = path
        self._position = start
        self._stop = stop
        self._tries = tries
        self._sleep = sleep
        self._etag: str | None = None
        self._digest = hashlib.sha256() if start == 0 and stop is None else None
        response = self._ask()
        self.meta: Mapping[str, Any] = meta_from_headers(response.headers.items())
        self._etag = response.headers.get("ETag")
        size = self.meta.get("size")
        if stop is None and isinstance(size, int):
            self._stop = size
        # Begun here, so that closing the generator lets go of the connection also when nobody asked for a chunk.
        self.chunks = self._chunks(response)
        next(self.chunks)

    def _chunks(self, response: urllib3.BaseHTTPResponse) -> Generator[bytes]:
        failed = 0
        try:
            yield b""
            while True:
                before = self._position
                try:
                    yield from self._of(response)
                except (failures.HTTPError, OSError) as error:
                    broken = self._transport.failed(error)
                else:
                    break
                response.close()
                failed = 0 if self._position - before >= CHUNK_SIZE else failed
                response, failed = self._ask_again(broken, failed)
            self._verify()
        finally:
            response.close()

    def _of(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        """Give what one answer brings; an answer that ends too early raises as a broken connection does."""
        skipped = self._skipped(response)
        for chunk in response.stream(CHUNK_SIZE, decode_content=False):
            if skipped:
                chunk, skipped = chunk[skipped:], max(0, skipped - len(chunk))  # noqa: PLW2901 - the rest of the chunk
            if not chunk:
                continue
            self._position += len(chunk)
            if self._digest:
                self._digest.update(chunk)
            yield chunk
        if self._stop is not None and self._position < self._stop:
            raise failures.ProtocolError("The connection ended too early.")

    def _skipped(self, response: urllib3.BaseHTTPResponse) -> int:
        """Tell how many bytes come first that are here already: none where the server gave the range asked for."""
        if response.status != HTTPStatus.PARTIAL_CONTENT:
            return self._position
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not match or int(match[1]) != self._position:
            message = f"{self._transport.base} answers with another part of the image than the one asked for."
            raise Unavailable(message)
        return 0

    def _ask(self) -> urllib3.BaseHTTPResponse:
        headers = {}
        if self._position or self._stop is not None:
            last = "" if self._stop is None else self._stop - 1
            headers["Range"] = f"bytes={self._position}-{last}"
            if self._etag:
                headers["If-Range"] = self._etag
        return self._transport.request("GET", self._path, headers=headers)

    def _ask_again(self, broken: Unavailable, failed: int) -> tuple[urllib3.BaseHTTPResponse, int]:
        """Ask for the rest. Raises what the last try raised; StaleImage when it is another image meanwhile."""
        while (failed := failed + 1) < self._tries:
            self._sleep(min(LONGEST_PAUSE, 0.125 * 2**failed))
            try:
                response = self._ask()
            except Unavailable as error:
                broken = error
                continue
            if response.headers.get("ETag") != self._etag:
                response.close()
                raise StaleImage("The image became another one while it was downloaded.")
            return response, failed
        raise broken

    def _verify(self) -> None:
        declared = self.meta.get("checksum")
        if self._digest is None or not isinstance(declared, str) or not declared.startswith("sha256:"):
            return
        found = f"sha256:{self._digest.hexdigest()}"
        if found != declared:
            message = f"The data that arrived have the checksum {found}, not {declared}."
            raise ChecksumMismatch(message)

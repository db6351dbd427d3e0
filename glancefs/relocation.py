# SPDX-License-Identifier: Apache-2.0
"""Moving the data of an image from one store to another while it is read.

Answers for the order of steps: copy, read the copy back and compare it, point the row at it by compare-and-swap, remove
the old data. Killed at any moment, the image is whole in the one place or in the other, and a sweep removes what is
left in the second; begun again, it goes on from where that leaves it. Whoever reads the old data meanwhile is led to
the new ones by `glancefs.reader`.

Threading: may run in many threads and processes at once; of several on one image, one moves it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import BinaryIO, Final

from glancefs.context import RequestContext
from glancefs.errors import (
    ChecksumMismatch,
    DataMissing,
    GlancefsError,
    ImageNotFound,
    StaleImage,
    StoreUnavailable,
    UnsupportedStore,
    WrongStatus,
)
from glancefs.measure import MeasuredSource
from glancefs.model import Image, ImageStatus, Location
from glancefs.registries.base import Registry
from glancefs.rules import check_may_move
from glancefs.stores.base import Store, Stored

_log = logging.getLogger(__name__)

_BLOCK: Final = 1 << 20


class Relocation:
    """Moves data between the stores of one node. ``clock`` gives the present, for ``updated_at``."""

    def __init__(self, *, registry: Registry, stores: Mapping[str, Store], clock: Callable[[], datetime]) -> None:
        self._registry = registry
        self._stores = stores
        self._clock = clock

    def move(
        self, context: RequestContext, image_id: str, *, to: str, progress: Callable[[int], object] = lambda _: None
    ) -> Image:
        """Move an image's data, and give the image as it is then; one whose data are there already is fine.

        ``progress`` is told of bytes copied and of bytes read back; what it raises ends the move. Raises
        NotAuthenticated, Forbidden, ImageNotFound, WrongStatus where there are no data, UnsupportedStore,
        ChecksumMismatch where the data are not what they should be (they stay), DataMissing, StoreFull, Unavailable.
        """
        check_may_move(context)
        target = self._stores.get(to)
        if target is None:
            message = f"There is no store {to!r} here; there are {', '.join(sorted(self._stores))}."
            raise UnsupportedStore(message)
        image, old = self._available(image_id)
        if old.store == to:
            return image
        source = self._stores.get(old.store)
        if source is None:
            message = f"The store {old.store!r}, which holds the data, is not configured here."
            raise StoreUnavailable(message)
        with target.claim() as key:
            stored = self._copy(image, old, source=source, target=target, key=key, progress=progress)
            try:
                self._verify(image, stored, target, progress)
                moved = self._switch(image, old, stored)
            except (ChecksumMismatch, DataMissing, ImageNotFound, WrongStatus):
                # Any other failure may have come after the commit: a sweep knows, this place does not.
                target.delete(stored.location)
                raise
        try:
            source.delete(old)
        except GlancefsError as error:
            _log.warning("the old data of image %s stay until the next sweep: %s", image_id, error)
        return moved

    def _available(self, image_id: str) -> tuple[Image, Location]:
        image = self._registry.get(image_id)
        if image.status is ImageStatus.DELETED:
            raise ImageNotFound.by_id(image_id)
        if image.status is not ImageStatus.AVAILABLE or image.location is None:
            message = f"Image {image_id!r} has no data to move: its status is {image.status}."
            raise WrongStatus(message)
        return image, image.location

    def _copy(
        self,
        image: Image,
        old: Location,
        *,
        source: Store,
        target: Store,
        key: str,
        progress: Callable[[int], object],
    ) -> Stored:
        with source.open(old) as stream:
            measured = MeasuredSource(_Told(stream, progress), size=image.size, most=None)
            return target.add(key, measured, size=image.size)

    def _verify(self, image: Image, stored: Stored, target: Store, progress: Callable[[int], object]) -> None:
        """Read the copy back: what is about to be removed is the only other one."""
        digest = hashlib.sha256(usedforsecurity=False)
        with target.open(stored.location) as stream:
            while piece := stream.read(_BLOCK):
                digest.update(piece)
                progress(len(piece))
        for checksum in (stored.checksum, f"sha256:{digest.hexdigest()}"):
            if checksum != image.checksum:
                message = f"The data of image {image.id!r} have the checksum {checksum}, not {image.checksum}."
                raise ChecksumMismatch(message)

    def _switch(self, image: Image, old: Location, stored: Stored) -> Image:
        """Point the row at the copy, over whatever metadata others changed meanwhile."""
        while True:
            current, location = self._available(image.id)
            if location != old:
                message = f"Image {image.id!r} was moved by somebody else meanwhile."
                raise WrongStatus(message)
            moved = replace(
                current,
                store=stored.location.store,
                location=stored.location,
                updated_at=max(self._clock(), current.updated_at),
            )
            try:
                return self._registry.replace(moved, expected_revision=current.revision)
            except StaleImage:
                continue


class _Told:
    """A stream as a source that tells how far it is."""

    def __init__(self, stream: BinaryIO, progress: Callable[[int], object]) -> None:
        self._stream = stream
        self._progress = progress

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer, possibly in part."""
        piece = self._stream.read(len(buffer))
        buffer[: len(piece)] = piece
        self._progress(len(piece))
        return len(piece)

# SPDX-License-Identifier: Apache-2.0
"""The use cases of images at a distance: what `glancefs.images.Images` does, done by a server.

Answers for `glancefs.tree.ports.TreeImages`. The server knows who asks, so of a context only the lock tokens count.

Threading: thread-safe, as the connection is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from glancefs.context import RequestContext
from glancefs.errors import GlancefsError, ImageNotFound, ImmutableImage, PathTaken, SizeMismatch, WrongStatus
from glancefs.localfile import LocalFile
from glancefs.model import Image, ImageChanges, ImageStatus, NewImage
from glancefs.reader import DataReader
from glancefs.registries.base import ImageQuery
from glancefs.remote.ahead import Ahead, AheadFile
from glancefs.remote.connection import ServerConnection
from glancefs.remote_source import RemoteSource, SourceReader
from glancefs.stores.base import Source, Space


class RemoteImages:
    """The images of a server. ``open_data`` opens an image's data for reading (None: range by range).

    ``ahead`` has what was sent already of files that are complete now.
    """

    def __init__(
        self,
        *,
        server: ServerConnection,
        open_data: Callable[[Image], DataReader] | None = None,
        ahead: Ahead | None = None,
    ) -> None:
        self._server: Final = server
        self._ahead: Final = ahead
        self._open_data: Final = open_data or self._read_plainly

    # ---- asking

    def get(self, context: RequestContext, image_id: str) -> Image:
        """See `Images.get`."""
        return self._image("images/get", context, image_id=image_id)

    def find_all(self, context: RequestContext, query: ImageQuery, *, page_size: int = 500) -> Iterator[Image]:
        """See `Images.find_all`."""
        while True:
            page: list[Image] = self._server.call("images/find", context, query=replace(query, limit=page_size))
            yield from page
            if len(page) < page_size:
                return
            query = replace(query, marker=page[-1].id)

    def open_image(self, image: Image) -> DataReader:
        """See `Images.open_image`. Asks nothing: what is not there any more shows at the first read."""
        if image.status is not ImageStatus.AVAILABLE:
            message = f"Image {image.id!r} has no data: its status is {image.status}."
            raise ImageNotFound(message)
        return self._open_data(image)

    def allocated(self, image: Image) -> int:
        """Give the size: what data take on the server's disk is not told."""
        if image.status is not ImageStatus.AVAILABLE:
            message = f"Image {image.id!r} has no data: its status is {image.status}."
            raise ImageNotFound(message)
        return image.size

    def space(self) -> Space | None:
        """See `Images.space`."""
        space: Space | None = self._server.call("images/space", RequestContext())
        return space

    # ---- adding

    def create(self, context: RequestContext, new: NewImage, *, replacing: str | None = None) -> Image:
        """See `Images.create`."""
        return self._image("images/create", context, new=new, replacing=replacing)

    def copy(self, context: RequestContext, image_id: str, new: NewImage, *, replacing: str | None = None) -> Image:
        """See `Images.copy`."""
        return self._image("images/copy", context, image_id=image_id, new=new, replacing=replacing)

    def add(
        self,
        context: RequestContext,
        new: NewImage,
        source: Source,
        *,
        size: int | None = None,
        replacing: str | None = None,
        only_new: bool = False,
    ) -> Image:
        """See `Images.add`. The data of a `LocalFile` are declared with their checksum.

        Whether it is the only one of its name is asked before its data are sent.
        """
        if only_new and self._server.call("folders/first_named", context, name=new.name) is not None:
            raise PathTaken(f"There is an image {new.name!r} already.")
        size, checksum = _declared(source, size, new.size)
        if new.checksum is None and checksum is not None:
            new = replace(new, checksum=checksum)
        ahead = self._following(source)
        return self._server.send("images/add", context, source, size=size, ahead=ahead, new=new, replacing=replacing)

    def upload(
        self,
        context: RequestContext,
        image_id: str,
        source: Source,
        *,
        size: int | None = None,
        checksum: str | None = None,
        changes: ImageChanges | None = None,
    ) -> Image:
        """See `Images.upload`. A second try whose first one succeeded without our hearing of it succeeds too."""
        image = self.get(context, image_id)
        declared = None if isinstance(source, LocalFile) else image.size or None
        size, known = _declared(source, size, declared)
        # What a queued image was declared to be is the server's to hold against what comes.
        sent = checksum or (known if image.checksum is None else None)
        try:
            return self._server.send(
                "images/upload",
                context,
                source,
                size=size,
                ahead=self._following(source),
                may_go_on=_is_being_taken_back,
                image_id=image_id,
                checksum=sent,
                changes=changes or ImageChanges(),
                resizes=isinstance(source, LocalFile),
            )
        except ImmutableImage:
            there = self.get(context, image_id)
            if image.status is ImageStatus.QUEUED and known is not None and there.checksum == known:
                return there
            raise

    # ---- changing

    def declare_size(self, context: RequestContext, image_id: str, size: int) -> Image:
        """See `Images.declare_size`."""
        return self._image("images/declare_size", context, image_id=image_id, size=size)

    def update(
        self,
        context: RequestContext,
        image_id: str,
        changes: ImageChanges,
        *,
        expected_revision: int | None = None,
        replacing: str | None = None,
    ) -> Image:
        """See `Images.update`."""
        return self._image(
            "images/update",
            context,
            image_id=image_id,
            changes=changes,
            expected_revision=expected_revision,
            replacing=replacing,
        )

    def delete(self, context: RequestContext, image_id: str, *, expected_revision: int | None = None) -> None:
        """See `Images.delete`."""
        self._server.call("images/delete", context, image_id=image_id, expected_revision=expected_revision)

    # ---- inside

    def _image(self, name: str, context: RequestContext, /, **arguments: Any) -> Image:  # noqa: ANN401 - as calls have them
        image: Image = self._server.call(name, context, **arguments)
        return image

    def _following(self, source: Source) -> AheadFile | None:
        return None if self._ahead is None else self._ahead.of(source)

    def _read_plainly(self, image: Image) -> DataReader:
        return SourceReader(image=image, source=RemoteSource(client=self._server.client, image=image))


def _declared(source: Source, size: int | None, declared: int | None) -> tuple[int, str | None]:
    """Give the size and the checksum of what is to be sent. Raises SizeMismatch."""
    if isinstance(source, LocalFile):
        return source.size, source.checksum
    said = {one for one in (size, declared) if one is not None}
    if len(said) != 1:
        message = "What is sent to a server has one size, known beforehand."
        raise SizeMismatch(message)
    return said.pop(), None


def _is_being_taken_back(error: GlancefsError) -> bool:
    """Say whether a refusal may be of a first try that the server has not given up yet."""
    return isinstance(error, WrongStatus)

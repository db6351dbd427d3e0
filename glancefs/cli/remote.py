# SPDX-License-Identifier: Apache-2.0
"""Images of a server, over its images API.

Answers for who the server is told we are (the environment, or ``~/.netrc``, never the command line, which every user of
the machine can read), and for making images of metadata.

Threading: belongs to one command.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

from glancefs.cli.backend import Progress
from glancefs.client import PAGE_SIZE, Client
from glancefs.config import RemoteConfig
from glancefs.credentials import credentials_for
from glancefs.errors import ConfigError, InvalidRequest, Unavailable
from glancefs.headers import TIME_FORMAT
from glancefs.model import Image, ImageChanges, ImageStatus, ImageType, NewImage
from glancefs.registries.base import ImageQuery

_PLAIN_FILTERS: Final = (
    *("name", "type", "status", "disk_format", "container_format", "owner", "store", "size_min", "size_max"),
    "sort_key",
)
_SAID: Final = (
    *("id", "name", "type", "store", "size", "checksum", "is_public", "properties", "disk_format"),
    *("container_format", "virtual_size", "min_disk", "min_ram", "owner"),
)


class RemoteBackend:
    """The images of one server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def find_all(self, query: ImageQuery, *, limit: int | None = None) -> Iterator[Image]:
        """See `Backend`."""
        filters: dict[str, Any] = {name: getattr(query, name) for name in _PLAIN_FILTERS}
        filters |= {"is_public": query.is_public, "sort_dir": query.sort_direction, "properties": query.properties}
        if query.changed_since is not None:
            filters["changes_since"] = query.changed_since
        size = PAGE_SIZE if limit is None else max(1, min(PAGE_SIZE, limit))
        return map(self._image, self._client.iter_images(page_size=size, limit=limit, **filters))

    def get(self, image_id: str) -> Image:
        """See `Backend`."""
        return self._image(self._client.get_image_meta(image_id))

    def add(self, new: NewImage, data: BinaryIO | None, *, size: int | None, progress: Progress) -> Image:
        """See `Backend`."""
        meta = {name: value for name in _SAID if (value := getattr(new, name)) is not None}
        if new.protected:
            meta["protected"] = True
        if size is not None:
            meta["size"] = size
        return self._image(self._client.add_image(meta, data, progress=progress))

    def upload(self, image_id: str, data: BinaryIO, *, size: int | None, progress: Progress) -> Image:
        """See `Backend`."""
        meta = {} if size is None else {"size": size}
        return self._image(self._client.update_image(image_id, meta, data, progress=progress))

    def update(self, image: Image, changes: ImageChanges) -> Image:
        """See `Backend`."""
        meta = changes.said()
        # The API can set properties or replace them all, and nothing in between.
        purge = changes.purge_properties or bool(changes.removed_properties)
        meta["properties"] = changes.properties_after(image.properties) if purge else changes.properties
        return self._image(self._client.update_image(image.id, meta, purge_properties=purge))

    def delete(self, image: Image) -> None:
        """See `Backend`."""
        self._client.delete_image(image.id)

    def move(self, image: Image, *, to: str, progress: Progress) -> Image:
        """See `Backend`."""
        return self._image(self._client.move_image(image.id, to, progress=progress))

    def read(self, image: Image, *, start: int = 0) -> Generator[bytes]:
        """See `Backend`."""
        if start < image.size:
            # A range, so that the data are hashed once, by the caller.
            yield from self._client.get_image(image.id, start=start, stop=image.size)[1]

    def _image(self, meta: Mapping[str, Any]) -> Image:
        try:
            return image_of(meta)
        except (KeyError, ValueError, TypeError):
            message = f"{self._client.url} tells of images in a way that is not understood here."
            raise Unavailable(message) from None


def image_of(meta: Mapping[str, Any]) -> Image:
    """Make an image of what a server tells of it. Raises KeyError, ValueError, TypeError for what can't be one."""
    return Image(
        id=str(meta["id"]),
        name=str(meta["name"]),
        type=ImageType(meta["type"]),
        status=ImageStatus(meta["status"]),
        size=int(meta["size"]),
        store=str(meta.get("store") or ""),
        owner=meta.get("owner") or None,
        is_public=bool(meta["is_public"]),
        created_at=_time(meta["created_at"]),
        updated_at=_time(meta["updated_at"]),
        deleted_at=_time(meta["deleted_at"]) if meta.get("deleted_at") else None,
        checksum=meta.get("checksum") or None,
        properties={str(key): str(value) for key, value in meta["properties"].items()},
        disk_format=meta.get("disk_format") or None,
        container_format=meta.get("container_format") or None,
        virtual_size=meta.get("virtual_size"),
        min_disk=meta.get("min_disk"),
        min_ram=meta.get("min_ram"),
        protected=bool(meta.get("protected", False)),
    )


def open_server(*, url: str, remote: RemoteConfig) -> RemoteBackend:
    """Open a server, as the user whom the environment or ``~/.netrc`` names, else as nobody. Raises ConfigError."""
    who = credentials_for(url, file=None, remote=remote)
    try:
        if remote.cacert is not None:
            remote.cacert.read_bytes()
        client = Client(url, user=who.user, password=who.password, token=who.token, cacert=remote.cacert)
    except OSError as error:
        message = f"The file of trusted certificates {remote.cacert} can't be read: {error.strerror}."
        raise ConfigError(message) from None
    except InvalidRequest as error:
        raise ConfigError(str(error)) from None
    return RemoteBackend(client)


def _time(text: str) -> datetime:
    return datetime.strptime(text.replace("T", " "), TIME_FORMAT).replace(tzinfo=UTC)

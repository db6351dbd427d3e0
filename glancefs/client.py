# SPDX-License-Identifier: Apache-2.0
"""The Python client of the images API (seed: "Using Glance Programmatically with Glance's Client").

::

    from glancefs.client import Client

    with Client("glance.openstack.org", 9292) as client:
        meta, chunks = client.get_image("http://glance.openstack.org/images/1")

Answers for the documented calls, for metadata with Python's types and for images named by URI or by identifier.
Errors are those of `glancefs.errors`, also under the names of `glancefs.exception`. Never holds an image's data whole.

Threading: a client may be used from many threads at once; a generator of chunks belongs to one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, unquote, urlencode, urlsplit

from glancefs.download import Download
from glancefs.errors import ImageNotFound, InvalidRequest, NotFound, Unavailable
from glancefs.headers import PREFIX, TIME_FORMAT, encode_header_value, meta_from_headers, meta_to_headers, typed
from glancefs.model import normal_properties, property_key
from glancefs.ranges import Ranges
from glancefs.transfer import ImageData, Upload
from glancefs.transport import Credentials, Transport, problem_error

DEFAULT_PORT: Final = 9292
PAGE_SIZE: Final = 500

Meta = dict[str, Any]


class Client:
    """Speaks to one image server, given by host and port or by URL."""

    def __init__(
        self,
        host: str,
        port: int | None = None,
        *,
        use_ssl: bool = False,
        user: str | None = None,
        password: str | None = None,
        token: str | None = None,
        timeout: float = 60.0,
        cacert: Path | str | None = None,
        tries: int = 7,
    ) -> None:
        """Take where the server is and who asks; connects with the first call.

        ``timeout`` is in seconds, for connecting and for every silence. ``cacert`` is a file of certificates to trust
        in place of the system's. ``tries`` is how often in a row a broken download is taken up before it fails.
        Raises InvalidRequest for what can't be a server.
        """
        self._transport = Transport(
            base=_base(host, port, use_ssl=use_ssl),
            credentials=Credentials(user=user, password=password, token=token),
            timeout=timeout,
            cacert=Path(cacert) if cacert else None,
        )
        self._ranges = Ranges(transport=self._transport, timeout=timeout)
        self._tries = tries
        self._own_bases: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The server's base URL."""
        return self._transport.base

    def close(self) -> None:
        """Let go of the connections; may be called twice."""
        self._ranges.close()
        self._transport.close()

    # ---- asking

    def get_images(self, **filters: Any) -> list[Meta]:  # noqa: ANN401 - each filter has its own type
        """Give the public images, briefly: uri, id, name, type and size of each, newest first.

        ``filters`` narrow the list (``name``, ``type``, ``status``, ``size_min``, ``size_max``, ``changes_since``,
        ``properties``), order it (``sort_key``, ``sort_dir``), cut it (``limit``, ``marker``), or widen it:
        ``is_public=False`` gives the caller's private images, ``is_public=None`` all that the caller may see.
        """
        return list(self.iter_images(detailed=False, **filters))

    def get_images_detailed(self, **filters: Any) -> list[Meta]:  # noqa: ANN401 - each filter has its own type
        """Give the public images with all their metadata; ``filters`` as for `get_images`."""
        return list(self.iter_images(detailed=True, **filters))

    def iter_images(
        self,
        *,
        detailed: bool = True,
        page_size: int = PAGE_SIZE,
        **filters: Any,  # noqa: ANN401 - each filter has its own type
    ) -> Iterator[Meta]:
        """Give what `get_images` gives one by one, asked for in pages; ``filters`` are the same."""
        path = "/images/detail" if detailed else "/images/"
        left = filters.pop("limit", None)
        query = list(_query(filters))
        while left is None or left > 0:
            limit = page_size if left is None else min(page_size, left)
            page = self._page(f"{path}?{urlencode([*query, ('limit', str(limit))])}")
            yield from page
            if len(page) < limit:
                return
            left = None if left is None else left - len(page)
            query = [(name, value) for name, value in query if name != "marker"]
            query.append(("marker", str(page[-1]["id"])))

    def get_image_meta(self, uri: str) -> Meta:
        """Give an image's metadata; ``uri`` is its URI or identifier. Raises NotFound."""
        return self._head(self._id_of(uri))

    def get_image(self, uri: str, *, start: int = 0, stop: int | None = None) -> tuple[Meta, Generator[bytes]]:
        """Give an image's metadata and its data, in chunks of at most 256 KiB.

        A connection that breaks is taken up where it broke. With ``start`` and ``stop`` only these bytes come; the
        whole is verified against the image's checksum, and after its last chunk raises ChecksumMismatch if it is
        another. Closing the generator lets go of the connection. Raises NotFound, also when there are no data yet.
        """
        image_id = self._id_of(uri)
        download = Download(transport=self._transport, path=_path(image_id), start=start, stop=stop, tries=self._tries)
        return self._learnt(dict(download.meta)), download.chunks

    def get_range(self, uri: str, start: int, stop: int) -> bytes | bytearray:
        """Give the bytes of an image's data from ``start`` up to, not including, ``stop``, in one piece.

        For many reads of small parts; they are in memory whole. Raises as `get_image` does.
        """
        image_id = self._id_of(uri)
        found = self._ranges.fetch(_path(image_id), start, stop) if 0 <= start < stop else None
        if found is not None:
            return found
        # Another answer than the plain one: what it means, and what is to be tried again, is known there.
        _, chunks = self.get_image(image_id, start=start, stop=stop)
        with closing(chunks):
            # Servers may send the whole in place of a part.
            return b"".join(chunks)[: stop - start]

    # ---- changing

    def add_image(
        self,
        image_meta: Mapping[str, Any],
        image_data: ImageData | None = None,
        *,
        progress: Callable[[int], object] | None = None,
    ) -> Meta:
        """Add an image and give all its metadata, its ``id`` among them; without data it is queued.

        ``image_meta`` takes name, type, id, store, size, is_public, properties (a mapping) and the other fields that
        can be said. ``image_data`` is a file open for reading, bytes, or an iterable of bytes. ``progress`` is called
        with the size of each block that was sent.

        Raises Duplicate for an id that is taken; BadRequest for what can't be, an unsupported store or a wrong size;
        NotAuthorized, Forbidden; ServiceUnavailable, after which it is not known whether the image was added.
        """
        return self._send("POST", "/images/", _sayable(image_meta), image_data, progress=progress)

    def update_image(
        self,
        uri: str,
        image_meta: Mapping[str, Any] | None = None,
        image_data: ImageData | None = None,
        *,
        purge_properties: bool = False,
        progress: Callable[[int], object] | None = None,
    ) -> Meta:
        """Change the fields that ``image_meta`` names and give all metadata; a field of None is unset.

        Properties that aren't named stay, unless ``purge_properties``. ``image_data`` are the data of a queued image.
        Raises as `add_image` does, and NotFound, or Conflict for an image that has its data.
        """
        meta = {name: "" if value is None else value for name, value in _sayable(image_meta or {}).items()}
        if purge_properties:
            meta["purge-properties"] = True
        return self._send("PUT", _path(self._id_of(uri)), meta, image_data, progress=progress)

    def delete_image(self, uri: str) -> None:
        """Delete an image. Raises NotFound, NotAuthorized, Forbidden."""
        self._transport.request("DELETE", _path(self._id_of(uri))).drain_conn()

    def move_image(self, uri: str, store: str, *, progress: Callable[[int], object] | None = None) -> Meta:
        """Move an image's data to another store of the server, for its admins; give all metadata.

        ``progress`` is called with how many bytes were copied or read back since the last call. What breaks off in the
        middle leaves the image where it was, and may be begun again. Raises NotFound, NotAuthorized, Forbidden,
        BadRequest for a store that is none, Conflict where there are no data, ServiceUnavailable.
        """
        headers = {f"{PREFIX}store": encode_header_value(store)}
        response = self._transport.request("PUT", f"{_path(self._id_of(uri))}/store", headers=headers)
        done, last = 0, {}
        for last in self._transport.read_lines(response):
            before, done = done, int(last.get("done", done))
            if progress is not None:
                progress(done - before)
        if "problem" in last:
            raise problem_error(last["problem"])
        if not isinstance(last.get("image"), dict):
            raise self._strange()
        return self._learnt(_typed(last["image"]))

    # ---- inside

    def _page(self, path: str) -> list[Meta]:
        answer = self._transport.read_json(self._transport.request("GET", path))
        images = answer.get("images") if isinstance(answer, dict) else None
        if not isinstance(images, list) or not all(isinstance(image, dict) for image in images):
            raise self._strange()
        return [self._learnt(_typed(image)) for image in images]

    def _head(self, image_id: str) -> Meta:
        try:
            response = self._transport.request("HEAD", _path(image_id))
        except NotFound:
            raise ImageNotFound.by_id(image_id) from None
        response.drain_conn()
        return self._learnt(meta_from_headers(response.headers.items()))

    def _send(
        self,
        method: str,
        path: str,
        meta: Mapping[str, Any],
        data: ImageData | None,
        *,
        progress: Callable[[int], object] | None,
    ) -> Meta:
        upload = None if data is None else Upload(data, progress=progress)
        response = self._transport.request(method, path, headers=dict(meta_to_headers(meta)), upload=upload)
        answer = self._transport.read_json(response)
        image = answer.get("image") if isinstance(answer, dict) else None
        if not isinstance(image, dict):
            raise self._strange()
        return self._learnt(_typed(image))

    def _strange(self) -> Unavailable:
        return Unavailable(f"{self.url} answers, but not as an image server does.")

    def _id_of(self, uri: str) -> str:
        """Give the identifier in a URI of this server, or the identifier itself.

        Whatever the URI says, only the client's own server is asked. Raises InvalidRequest for a URI of another one.
        """
        if "://" not in uri:
            if not uri or "/" in uri:
                message = f"{uri!r} is neither the id of an image nor its URI."
                raise InvalidRequest(message)
            return uri
        base, images, last = uri.rpartition("/images/")
        image_id = unquote(last.rstrip("/"))
        if not images or not image_id or "/" in image_id:
            message = f"{uri!r} is not the URI of an image."
            raise InvalidRequest(message)
        # A server may call itself otherwise than the client does, behind a proxy for instance: then it is asked.
        if not (self._is_own(base) or base in self._own_bases or self._head(image_id).get("uri") == uri):
            message = f"{uri!r} is not an image of {self.url}."
            raise InvalidRequest(message)
        return image_id

    def _is_own(self, base: str) -> bool:
        own = urlsplit(self.url)
        try:
            said = urlsplit(base)
            port = said.port
        except ValueError:
            return False
        return said.hostname == own.hostname and port in {None, own.port}

    def _learnt(self, meta: Meta) -> Meta:
        base, images, _ = str(meta.get("uri", "")).rpartition("/images/")
        if images:
            self._own_bases.add(base)
        return meta


def _base(host: str, port: int | None, *, use_ssl: bool) -> str:
    if "://" in host:
        return host
    name = f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host
    has_port = name.rpartition(":")[2].isdigit() and not name.endswith("]")
    return f"http{'s' if use_ssl else ''}://{name}" + ("" if has_port and port is None else f":{port or DEFAULT_PORT}")


def _path(image_id: str) -> str:
    return f"/images/{quote(image_id, safe='')}"


def _sayable(meta: Mapping[str, Any]) -> Meta:
    """Give metadata as they can be sent: properties under the keys that they will have."""
    properties = meta.get("properties")
    if not properties:
        return {name: value for name, value in meta.items() if name != "properties"}
    texts = {str(key): str(value) for key, value in properties.items()}
    return dict(meta) | {"properties": normal_properties(texts)}


def _typed(image: Mapping[str, Any]) -> Meta:
    return {name: typed(name, value) for name, value in image.items()}


def _query(filters: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in filters.items():
        if name == "properties":
            for key, text in value.items():
                yield f"property-{property_key(key)}", str(text)
        elif name == "is_public":
            yield name, str(value).lower()
        elif name in {"changes_since", "changed_since"}:
            yield "changes-since", value.strftime(TIME_FORMAT) if isinstance(value, datetime) else str(value)
        elif value is not None:
            yield name, str(value)

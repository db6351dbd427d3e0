# SPDX-License-Identifier: Apache-2.0
"""OpenStack Swift as an object engine.

::

    parts/KEY/NUMBER   the parts of data/KEY, which is a static large object where it is larger than one part
    parts/KEY/mNUMBER  lists of parts, where one list can't hold them all

Answers for calls through python-swiftclient on pooled connections, for tokens that expire in the middle, and for the
translation of what fails. The parts of an object are numbered without a gap and counted in its metadata, so that all of
them are removed without asking a list, which may lag behind.

Threading: may be used by many threads; each call leases a connection of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Final, TypeVar

from swiftclient import client as swift

from glancefs.stores.base import Space
from glancefs.stores.objects.engine import EngineError, Found, Part, Transient, Unfinished
from glancefs.stores.objects.pieces import PieceReader
from glancefs.stores.swift_access import CUT, Absent, Connection, SwiftAccess, Unmet

T = TypeVar("T")

_PARTS: Final = "parts/"
_DATA: Final = "data/"
_COUNT: Final = "x-object-meta-glancefs-parts"
_LISTS: Final = "x-object-meta-glancefs-lists"
_REMOVERS: Final = 4
"""How many parts are removed at once."""
_LIST_LIMIT: Final = 1000
"""How many parts one list holds, unless the cluster says so (``/info``, slo.max_manifest_segments)."""
_CHUNK: Final = 1 << 20


class SwiftEngine:
    """One container of a Swift account."""

    has_quotas: Final = True

    def __init__(self, *, access: SwiftAccess, container: str, page_size: int = 5000) -> None:
        self._access: Final = access
        self._container: Final = container
        self._page_size: Final = page_size
        self._list_limit: int | None = None

    def prepare(self) -> None:
        """Make the container if it is not there."""
        self._access.call(partial(swift.put_container, container=self._container))

    def put(self, name: str, data: bytes, *, is_new: bool = False) -> bool:
        """Keep a small object; see `ObjectEngine`."""
        headers = {"If-None-Match": "*"} if is_new else {}
        try:
            self._put(name, data, headers=headers)
        except Unmet:
            return False
        return True

    def look(self, name: str) -> Found | None:
        """Tell of an object; by the newest of all its copies, but for data, which never change."""
        headers = self._head(name, is_newest=not name.startswith(_DATA))
        return None if headers is None else _found(name, headers)

    def renew(self, name: str) -> bool:
        """Set an object's time anew; see `ObjectEngine`."""
        try:
            self._access.call(partial(swift.post_object, container=self._container, name=name, headers={}))
        except Absent:
            return False
        return True

    def read(self, name: str, start: int, stop: int) -> SwiftBody | None:
        """Give a part of an object; its connection is lent until the body is closed."""
        work = partial(
            swift.get_object,
            container=self._container,
            name=name,
            resp_chunk_size=_CHUNK,
            headers={"Range": f"bytes={start}-{stop - 1}"},
        )
        try:
            (_, body), connection = self._access.begin(work)
        except Absent:
            return None
        return SwiftBody(body, connection, self._access)

    def remove(self, name: str) -> None:
        """Remove an object, and then its parts, which nobody sees any more."""
        headers = self._head(name) if name.startswith(_DATA) else {}
        if headers is None:
            return
        self._delete(name)
        self._remove_parts(name, parts=int(headers.get(_COUNT, 0)), lists=int(headers.get(_LISTS, 0)))

    def page(self, prefix: str, after: str) -> Sequence[Found]:
        """Give the next page of a list; see `ObjectEngine`."""
        return self._page(prefix, after)

    # Large objects

    def begin(self, name: str) -> str:
        """Begin a large object, which takes no call."""
        del name
        return "parts"

    def put_part(self, name: str, token: str, number: int, data: memoryview) -> Part:
        """Keep one part; see `ObjectEngine`."""
        del token
        etag = self._put(_part(name, f"{number:06}"), data)
        return Part(number=number, size=len(data), etag=etag)

    def finish(self, name: str, token: str, parts: Sequence[Part]) -> None:
        """Make a static large object, of lists of parts where there are too many for one."""
        del token
        entries = [self._entry(_part(name, f"{part.number:06}"), part.etag, part.size) for part in parts]
        limit = self._most_entries()
        lists = 0
        while len(entries) > limit:
            chunks = [entries[at : at + limit] for at in range(0, len(entries), limit)]
            entries = [self._put_list(name, lists + number, chunk) for number, chunk in enumerate(chunks)]
            lists += len(chunks)
        counts = {_COUNT: str(len(parts)), _LISTS: str(lists)}
        self._put(name, json.dumps(entries).encode(), headers=counts, is_list=True)

    def discard(self, name: str, token: str) -> None:
        """Remove the parts of an object that is not to be."""
        del token
        prefix = _part(name, "")
        after = ""
        while page := self._page(prefix, after):
            self._remove_all([found.name for found in page])
            after = page[-1].name

    def unfinished(self, prefix: str) -> Sequence[Unfinished]:
        """Give the objects that have parts, but no list of them."""
        names = (found.name.removeprefix(prefix) for found in self._walk(prefix))
        name = next(names, None)
        unfinished = []
        for folder in self._walk(_PARTS, delimiter="/"):
            key = folder.name.removeprefix(_PARTS).rstrip("/")
            # Both lists are in order.
            while name is not None and name < key:
                name = next(names, None)
            if name != key and self._head(prefix + key) is None:
                size = sum(part.size for part in self._walk(folder.name))
                unfinished.append(Unfinished(name=prefix + key, token="parts", size=size))  # noqa: S106 - no secret
        return unfinished

    def space(self) -> Space | None:
        """Tell what is left of the container's quota, if it has one."""
        try:
            headers = self._access.call(partial(swift.head_container, container=self._container))
        except Absent:
            return None
        quota = headers.get("x-container-meta-quota-bytes")
        if quota is None:
            return None
        used = int(headers.get("x-container-bytes-used", 0))
        return Space(total=int(quota), free=max(0, int(quota) - used))

    def close(self) -> None:
        """Let go of connections."""
        self._access.close()

    # Steps

    def _entry(self, name: str, etag: str, size: int) -> Mapping[str, object]:
        return {"path": f"/{self._container}/{name}", "etag": etag, "size_bytes": size}

    def _put_list(self, name: str, number: int, entries: Sequence[Mapping[str, object]]) -> Mapping[str, object]:
        place = _part(name, f"m{number:06}")
        self._put(place, json.dumps(entries).encode(), is_list=True)
        headers = self._head(place)
        if headers is None:
            raise Transient("what was kept is not there", place)
        return self._entry(place, headers["etag"].strip('"'), int(headers["content-length"]))

    def _most_entries(self) -> int:
        if self._list_limit is None:
            try:
                said = self._access.call(_capabilities)
                self._list_limit = int(said["slo"]["max_manifest_segments"])
            except (EngineError, Absent, KeyError, ValueError):
                # Clusters need not tell.
                return _LIST_LIMIT
        return self._list_limit

    def _remove_parts(self, name: str, *, parts: int, lists: int) -> None:
        numbers = [f"m{number:06}" for number in range(lists)] + [f"{number:06}" for number in range(1, parts + 1)]
        self._remove_all([_part(name, number) for number in numbers])

    def _remove_all(self, names: Sequence[str]) -> None:
        if len(names) <= 1:
            for name in names:
                self._delete(name)
            return
        with ThreadPoolExecutor(_REMOVERS, thread_name_prefix="remove") as pool:
            for done in [pool.submit(self._delete, name) for name in names]:
                done.result()

    def _delete(self, name: str) -> None:
        self._about(swift.delete_object, name)

    def _head(self, name: str, *, is_newest: bool = True) -> Mapping[str, str] | None:
        return self._about(swift.head_object, name, headers={"X-Newest": "true"} if is_newest else {})

    def _put(
        self,
        name: str,
        data: bytes | memoryview,
        *,
        headers: Mapping[str, str] | None = None,
        is_list: bool = False,
    ) -> str:
        """Keep an object, and give the MD5 that it has here and there."""

        def work(url: str, token: str, *, http_conn: Connection) -> str:
            reader = PieceReader(data)
            etag = swift.put_object(
                url,
                token,
                self._container,
                name,
                contents=reader if data else b"",
                content_length=len(data),
                content_type="application/octet-stream",
                headers=headers,
                query_string="multipart-manifest=put" if is_list else None,
                http_conn=http_conn,
            )
            # What a list's ETag is, the cluster makes of its parts' ones.
            if not is_list and etag != reader.md5():
                raise Transient("it did not get what was sent", name)
            return reader.md5()

        try:
            return self._access.call(work)
        except Absent as error:
            # Right after it was made, a proxy that remembers what was not there may still say so.
            raise Transient("its container is gone", error) from error

    def _walk(self, prefix: str, delimiter: str | None = None) -> Iterator[Found]:
        after = ""
        while page := self._page(prefix, after, delimiter):
            yield from page
            after = page[-1].name

    def _page(self, prefix: str, after: str, delimiter: str | None = None) -> Sequence[Found]:
        work = partial(
            swift.get_container,
            container=self._container,
            prefix=prefix,
            marker=after,
            limit=self._page_size,
            delimiter=delimiter,
        )
        try:
            headers, entries = self._access.call(work)
        except Absent:
            return []
        return [_listed(entry, headers) for entry in entries]

    def _about(self, work: Callable[..., T], name: str, **options: object) -> T | None:
        """Give what a call about one object gives, None where there is no such object."""
        try:
            return self._access.call(partial(work, container=self._container, name=name, **options))
        except Absent:
            return None


class SwiftBody:
    """Bytes on their way out, and the connection that they come on."""

    def __init__(self, body: swift._ObjectBody, connection: swift.HTTPConnection, access: SwiftAccess) -> None:
        self._body: Final = body
        self._access: Final = access
        self._connection: swift.HTTPConnection | None = connection
        self._is_at_end = False

    def read(self, size: int, /) -> bytes:
        """Give up to so many bytes; nothing at the end. Raises Transient."""
        try:
            data: bytes = self._body.read(size)
        except CUT as error:
            raise Transient("the data broke off", error) from error
        self._is_at_end = not data
        return data

    def close(self) -> None:
        """Give the connection back if it can be used again."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._is_at_end:
            self._access.give_back(connection)
        else:
            self._body.close()
            connection.close()


def _capabilities(url: str, token: str, *, http_conn: Connection) -> Mapping[str, Any]:
    del url, token
    place, connection = http_conn
    said: Mapping[str, Any] = swift.get_capabilities((place._replace(path="/info"), connection))
    return said


def _part(name: str, number: str) -> str:
    return f"{_PARTS}{name.removeprefix(_DATA)}/{number}"


def _found(name: str, headers: Mapping[str, str]) -> Found:
    modified = float(headers["x-timestamp"])
    now = parsedate_to_datetime(headers["date"]).timestamp()
    return Found(
        name=name, size=int(headers["content-length"]), modified=headers["x-timestamp"], age=max(0.0, now - modified)
    )


def _listed(entry: Mapping[str, Any], headers: Mapping[str, str]) -> Found:
    if "subdir" in entry:
        return Found(name=entry["subdir"], size=0, modified="", age=0.0)
    modified = datetime.fromisoformat(entry["last_modified"]).replace(tzinfo=UTC)
    now = parsedate_to_datetime(headers["date"])
    age = max(0.0, (now - modified).total_seconds())
    return Found(name=entry["name"], size=entry["bytes"], modified=entry["last_modified"], age=age)

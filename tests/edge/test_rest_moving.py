# SPDX-License-Identifier: Apache-2.0
"""PUT of an image's store: who may, what is told while data move, and what happens when nobody listens any more.

Threading: servers answer from threads of their own.
"""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO

import pytest

from glancefs import errors
from glancefs.client import Client
from glancefs.model import Location
from glancefs.stores.memory import MemoryStore
from tests.support.mounting import eventually
from tests.support.rawhttp import RawClient
from tests.support.rest import KERNEL, OCTETS, MakeRest, OverHttp, Rest, basic

DATA = bytes(range(256)) * 1000
TO_OTHER = {"x-image-meta-store": "other"}


class Watched(MemoryStore):
    """A store whose reading back goes on byte by byte for as long as it is `slow`."""

    def __init__(self) -> None:
        super().__init__(scheme="other")
        self.slow = threading.Event()
        self.under_way = 0

    def open(self, location: Location, start: int = 0, stop: int | None = None) -> BinaryIO:
        self.under_way += 1
        return _Dripping(self, super().open(location, start, stop).read())


class _Dripping(io.BytesIO):
    def __init__(self, store: Watched, data: bytes) -> None:
        super().__init__(data)
        self._store = store

    def read(self, size: int | None = -1, /) -> bytes:
        if not self._store.slow.is_set():
            return super().read(size)
        time.sleep(0.02)
        return super().read(1)

    def close(self) -> None:
        if not self.closed:
            self._store.under_way -= 1
        super().close()


@pytest.fixture
def other() -> Watched:
    return Watched()


@pytest.fixture(params=["wsgi", "http"])
def node(request: pytest.FixtureRequest, make_rest: MakeRest, other: Watched) -> Rest:
    return make_rest(over=request.param, others={"other": other, "small": MemoryStore(capacity=10)})


@pytest.fixture
def served(make_rest: MakeRest, other: Watched) -> Rest:
    return make_rest(over="http", others={"other": other})


def lines(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in body.splitlines()]


def begin(rest: Rest, image_id: str) -> RawClient:
    """Begin a move, and leave when it is under way."""
    assert isinstance(rest.send, OverHttp)
    client = RawClient(rest.send.target)
    fields = {"Host": "images", "Authorization": basic("root", "root")} | TO_OTHER
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    client.send(f"PUT /images/{image_id}/store HTTP/1.1\r\n{head}\r\n".encode())
    return client


def until(client: RawClient, words: bytes) -> None:
    """Read lines up to one that holds these words."""
    while words not in client.line():
        pass


def test_an_admin_moves_data_and_is_told_what_came_of_it(node: Rest) -> None:
    image = node.add(KERNEL | OCTETS, DATA)
    reply = node("PUT", "/images/1/store", TO_OTHER, user="root")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/x-ndjson")
    *_, last = lines(reply.body)
    assert last == {"image": image | {"store": "other", "updated_at": last["image"]["updated_at"]}}
    got = node("GET", "/images/1")
    assert (got.body, got.headers["x-image-meta-store"]) == (DATA, "other")
    # What is there already is fine, and so is the way back.
    for store in ("other", "file"):
        *_, last = lines(node("PUT", "/images/1/store/", {"x-image-meta-store": store}, user="root").body)
        assert last["image"]["store"] == store
    assert node("GET", "/images/1").body == DATA


def test_what_cannot_be_is_refused_before_it_begins(node: Rest, expect_log: Callable[[str], None]) -> None:
    expect_log("StoreFull: The store 'memory' has no room")
    node.add(KERNEL | OCTETS, DATA)
    node.add(KERNEL, None)

    def refused(path: str, headers: dict[str, str], user: str | None = "root", method: str = "PUT") -> tuple[int, str]:
        reply = node(method, path, headers, user=user)
        return reply.status, reply.code

    assert refused("/images/1/store", TO_OTHER, None) == (401, "not-authenticated")
    assert refused("/images/1/store", TO_OTHER, "alice") == (403, "forbidden")
    assert refused("/images/99/store", TO_OTHER) == (404, "image-not-found")
    assert refused("/images/2/store", TO_OTHER) == (409, "wrong-status")
    assert refused("/images/1/store", {}) == (400, "invalid-request")
    assert refused("/images/1/store", {"x-image-meta-store": "tape"}) == (400, "unsupported-store")
    assert refused("/images/1/store", {"x-image-meta-store": "small"}) == (507, "store-full")
    assert refused("/images/1/store", TO_OTHER, "root", "POST") == (405, "method-not-allowed")
    assert node("PUT", "/v1/images/1/store", TO_OTHER, user="root").status == 404
    assert node("GET", "/images/1").headers["x-image-meta-store"] == "file"


def test_what_fails_in_the_middle_is_told_at_the_end(
    node: Rest, other: Watched, expect_log: Callable[[str], None]
) -> None:
    node.add(KERNEL | OCTETS, DATA)
    expect_log("a move failed: ChecksumMismatch")
    other.open = lambda *_: io.BytesIO(b"something else")  # type: ignore[method-assign]  # a store that keeps badly
    reply = node("PUT", "/images/1/store", TO_OTHER, user="root")
    *_, last = lines(reply.body)
    assert (reply.status, last["problem"]["type"]) == (200, "urn:glancefs:error:checksum-mismatch")
    assert node("GET", "/images/1").headers["x-image-meta-store"] == "file"


def test_images_are_read_while_they_move_and_how_far_it_is_shows(served: Rest, other: Watched) -> None:
    served.add(KERNEL | OCTETS, DATA)
    other.slow.set()
    with begin(served, "1") as client:
        until(client, b'{"done": ')
        assert served("GET", "/images/1").body == DATA
        other.slow.clear()
        until(client, b'"store": "other"')
    assert served("GET", "/images/1").body == DATA


def test_a_caller_who_goes_away_ends_it_and_the_image_stays_where_it_was(served: Rest, other: Watched) -> None:
    served.add(KERNEL | OCTETS, DATA)
    other.slow.set()
    with begin(served, "1"):
        eventually(lambda: other.under_way == 1)
    eventually(lambda: other.under_way == 0)
    assert served("GET", "/images/1").headers["x-image-meta-store"] == "file"
    other.slow.clear()
    assert served("PUT", "/images/1/store", TO_OTHER, user="root").status == 200
    assert served("GET", "/images/1").body == DATA


def test_the_client_moves_data_and_tells_how_far_they_are(
    served: Rest, other: Watched, expect_log: Callable[[str], None]
) -> None:
    served.add(KERNEL | OCTETS, DATA)
    expect_log("a move failed: ChecksumMismatch")
    assert isinstance(served.send, OverHttp)
    told: list[int] = []

    def tell(size: int) -> None:
        told.append(size)
        other.slow.clear()

    with Client(*served.send.target, user="root", password="root") as client:
        other.slow.set()
        meta = client.move_image("1", "other", progress=tell)
        assert (meta["store"], meta["size"]) == ("other", len(DATA))
        assert len(DATA) < sum(told) < 2 * len(DATA)
        with pytest.raises(errors.UnsupportedStore):
            client.move_image("1", "tape")
        assert client.move_image("1", "file")["store"] == "file"
        other.open = lambda *_: io.BytesIO(b"something else")  # type: ignore[method-assign]  # it keeps badly
        with pytest.raises(errors.ChecksumMismatch, match="have the checksum"):
            client.move_image("1", "other")
        assert client.get_image_meta("1")["store"] == "file"


def test_more_than_two_at_once_are_told_to_come_back(
    served: Rest, other: Watched, expect_log: Callable[[str], None]
) -> None:
    expect_log("2 images are being moved already")
    for _ in range(3):
        served.add(KERNEL | OCTETS, DATA)
    other.slow.set()
    with begin(served, "1") as first, begin(served, "2") as second:
        eventually(lambda: other.under_way == 2)
        third = served("PUT", "/images/3/store", TO_OTHER, user="root")
        assert (third.status, third.headers["retry-after"]) == (503, "5")
        other.slow.clear()
        for client in (first, second):
            until(client, b'"store": "other"')
    assert served("PUT", "/images/3/store", TO_OTHER, user="root").status == 200

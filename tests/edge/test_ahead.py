# SPDX-License-Identifier: Apache-2.0
"""Data that come before their image is spoken of, as any program may send them; and that none of them stay.

Threading: the server answers in threads of its own.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

from glancefs.arrivals import MOST_OF_ONE, Arrivals
from glancefs.context import RequestContext
from glancefs.errors import AheadLost, TooManyUploads, UploadTooLarge
from glancefs.model import ImageType, NewImage
from tests.support.mounting import eventually
from tests.support.use_cases import Far, held

DATA = os.urandom(3 << 20)
CHECKSUM = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
KEY = "a key of sixteen letters or more"
ANN = RequestContext(user="ann")
BOB = RequestContext(user="bob")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    """One server for all."""
    place = Far(tmp_path_factory.mktemp("ahead") / "data")
    yield place
    place.close()


class Sender:
    """A client with one connection."""

    def __init__(self, place: Far, user: str = "ann") -> None:
        parts = urlsplit(place.server.url)
        self.connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
        self._who = {"Authorization": f"Basic {b64encode(f'{user}:password of {user}'.encode()).decode()}"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def ask(self, name: str, data: bytes | None = None, **arguments: object) -> tuple[int, Any]:
        """Make a call, and give its status and what it says."""
        line = json.dumps(arguments).encode() + b"\n"
        kind = "application/json" if data is None else "application/octet-stream"
        headers = {**self._who, "Content-Type": kind}
        self.connection.request("POST", f"/tree/v1/{name}", line + (data or b""), headers)
        response = self.connection.getresponse()
        said = json.loads(response.read() or b"null")
        return response.status, said.get("answer") if response.status == 200 else said["type"].rpartition(":")[2]

    def send(self, offset: int, data: bytes, key: str = KEY) -> tuple[int, Any]:
        """Send a piece."""
        return self.ask("ahead/send", data, key=key, offset=offset)

    def add(self, there: int, data: bytes, key: str = KEY, **new: object) -> tuple[int, Any]:
        """Add an image of what is there and the rest."""
        return self.ask(
            "images/add", data, new={"name": "disk", "type": "raw", **new}, ahead={"key": key, "size": there}
        )


@pytest.fixture
def sender(place: Far) -> Iterator[Sender]:
    """Somebody who has begun to send."""
    with Sender(place) as sender:
        assert sender.ask("ahead/begin", key=KEY) == (200, None)
        yield sender
        sender.ask("ahead/drop", key=KEY)
    assert held() == 0
    assert list((place.folder / "images/incoming").iterdir()) == []


def data_of(place: Far, image_id: str) -> bytes:
    with place.core.images.open(ANN, image_id) as reader:
        return b"".join(reader.iter())


def test_what_came_in_pieces_is_an_image_once_the_rest_is_there(place: Far, sender: Sender) -> None:
    assert sender.send(0, DATA[:1_000_000]) == (200, None)
    assert sender.send(1_000_000, b"") == (200, None)
    assert sender.send(1_000_000, DATA[1_000_000:2_500_000]) == (200, None)
    assert held() == 1
    status, image = sender.add(2_500_000, DATA[2_500_000:], checksum=CHECKSUM, size=len(DATA))
    assert (status, image["size"], image["checksum"], image["status"]) == (200, len(DATA), CHECKSUM, "available")
    assert data_of(place, image["id"]) == DATA
    assert sender.send(0, b"more") == (409, "ahead-lost")


@pytest.mark.parametrize("rest", [0, 5])
def test_a_queued_image_gets_what_came_ahead(place: Far, sender: Sender, rest: int) -> None:
    _, image = sender.ask("images/create", new={"name": "queued", "type": "raw"})
    sender.send(0, DATA[: len(DATA) - rest])
    ahead = {"key": KEY, "size": len(DATA) - rest}
    said = {"image_id": image["id"], "checksum": CHECKSUM, "changes": {}, "ahead": ahead}
    status, image = sender.ask("images/upload", DATA[len(DATA) - rest :], **said)
    assert (status, image["status"]) == (200, "available")
    assert data_of(place, image["id"]) == DATA


@pytest.mark.parametrize("offset", [0, 99, 101])
def test_a_piece_at_another_offset_ends_it(sender: Sender, offset: int) -> None:
    sender.send(0, DATA[:100])
    assert sender.send(offset, DATA[:100]) == (409, "ahead-lost")
    assert sender.send(100, DATA[:100]) == (409, "ahead-lost")
    assert held() == 0


def test_another_size_than_what_is_there_is_no_image(place: Far, sender: Sender) -> None:
    before = place.core.registry.revision()
    sender.send(0, DATA[:100])
    assert sender.add(99, DATA[99:]) == (409, "ahead-lost")
    assert sender.add(100, DATA[100:]) == (409, "ahead-lost")
    assert place.core.registry.revision() == before


def test_data_that_are_not_those_that_were_declared_are_no_image(place: Far, sender: Sender) -> None:
    before = place.core.registry.revision()
    sender.send(0, DATA[:-1])
    assert sender.add(len(DATA) - 1, b"?", checksum=CHECKSUM) == (400, "checksum-mismatch")
    assert (held(), place.core.registry.revision()) == (0, before)


def test_what_can_not_be_an_image_leaves_nothing(sender: Sender) -> None:
    sender.send(0, DATA[:100])
    assert sender.add(100, b"", store="none such") == (400, "unsupported-store")
    assert held() == 0


def test_a_key_is_its_users_alone(place: Far, sender: Sender) -> None:
    sender.send(0, DATA[:100])
    with Sender(place, "bob") as other:
        assert other.add(100, DATA[100:]) == (409, "ahead-lost")
        assert other.send(100, b"spoilt") == (409, "ahead-lost")
        assert other.ask("ahead/drop", key=KEY) == (200, None)
        assert other.ask("ahead/begin", key=KEY) == (200, None)
        assert other.ask("ahead/drop", key=KEY) == (200, None)
    status, image = sender.add(100, DATA[100:], checksum=CHECKSUM)
    assert (status, image["owner"]) == (200, "ann")


def test_a_key_begins_once_and_has_some_length(sender: Sender) -> None:
    assert sender.ask("ahead/begin", key=KEY) == (409, "ahead-lost")
    assert sender.ask("ahead/begin", key="short") == (400, "invalid-request")
    assert sender.ask("ahead/begin", key="x" * 65) == (400, "invalid-request")
    assert sender.send(0, b"", key="x" * 65) == (400, "invalid-request")


def test_what_is_dropped_is_gone(sender: Sender) -> None:
    sender.send(0, DATA)
    assert sender.ask("ahead/drop", key=KEY) == (200, None)
    assert held() == 0
    assert sender.ask("ahead/drop", key=KEY) == (200, None)
    assert sender.send(len(DATA), b"more") == (409, "ahead-lost")


def test_a_piece_that_breaks_off_ends_it(place: Far, sender: Sender) -> None:
    sender.send(0, DATA[:100])
    with Sender(place) as other:
        line = json.dumps({"key": KEY, "offset": 100}).encode() + b"\n"
        other.connection.putrequest("POST", "/tree/v1/ahead/send")
        for name, value in {**other._who, "Content-Type": "application/octet-stream"}.items():
            other.connection.putheader(name, value)
        other.connection.putheader("Content-Length", str(len(line) + len(DATA)))
        other.connection.endheaders(line + DATA[:1000])
        assert isinstance(other.connection.sock, socket.socket)
        other.connection.sock.shutdown(socket.SHUT_RDWR)
    eventually(lambda: held() == 0)
    assert sender.send(1100, b"more") == (409, "ahead-lost")


def test_nobody_sends_ahead(place: Far) -> None:
    with Sender(place) as nobody:
        nobody._who = {}
        assert nobody.ask("ahead/begin", key=KEY)[0] == 401
        assert nobody.send(0, b"data")[0] == 401
        assert nobody.ask("ahead/drop", key=KEY)[0] == 401


def test_there_are_so_many_at_a_time(tmp_path: Path) -> None:
    arrivals = Arrivals(folder=tmp_path / "new" / "folder", max_upload=None, most=MOST_OF_ONE + 2)
    for number in range(MOST_OF_ONE):
        arrivals.begin(ANN, f"the key of number {number}")
    with pytest.raises(TooManyUploads):
        arrivals.begin(ANN, "one too many of ann")
    for number in range(2):
        arrivals.begin(BOB, f"the key of number {number}")
    with pytest.raises(TooManyUploads):
        arrivals.begin(BOB, "one too many of all")
    arrivals.drop(ANN, "the key of number 0")
    arrivals.begin(BOB, "one more of them all")
    arrivals.close()
    arrivals.close()
    with pytest.raises(AheadLost):
        arrivals.begin(ANN, "one after the end")


def test_what_is_waited_for_in_vain_is_let_go(tmp_path: Path) -> None:
    arrivals = Arrivals(folder=tmp_path, max_upload=None, patience=0.2)
    arrivals.begin(ANN, KEY)
    arrivals.append(ANN, KEY, 0, _Source(DATA), len(DATA))
    eventually(lambda: held(str(tmp_path)) == 0)
    with pytest.raises(AheadLost):
        arrivals.append(ANN, KEY, len(DATA), _Source(b"x"), 1)
    arrivals.close()


def test_more_than_the_node_takes_is_refused_and_gone(tmp_path: Path) -> None:
    arrivals = Arrivals(folder=tmp_path, max_upload=100)
    arrivals.begin(ANN, KEY)
    arrivals.append(ANN, KEY, 0, _Source(DATA[:60]), 60)
    with pytest.raises(UploadTooLarge):
        arrivals.append(ANN, KEY, 60, _Source(DATA[:41]), 41)
    assert held(str(tmp_path)) == 0
    arrivals.close()


def test_where_there_are_no_files_without_names_nothing_is_sent_ahead() -> None:
    arrivals = Arrivals(folder=Path("/proc"), max_upload=None)
    with pytest.raises(AheadLost):
        arrivals.begin(ANN, KEY)
    arrivals.close()


def test_a_full_disk_is_told_when_the_image_is_made(tmp_path: Path) -> None:
    arrivals = Arrivals(folder=Path("/dev/shm"), max_upload=None)
    arrivals.begin(ANN, KEY)
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        # EFBIG is one of the ways in which a file system says so.
        with pytest.raises(AheadLost):
            arrivals.append(ANN, KEY, 0, _Source(DATA), len(DATA))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    arrivals.close()


def test_a_store_that_can_not_adopt_reads_what_came(place: Far) -> None:
    # On another file system nothing can be linked.
    arrivals = Arrivals(folder=Path("/dev/shm"), max_upload=None)
    arrivals.begin(ANN, KEY)
    arrivals.append(ANN, KEY, 0, _Source(DATA[:-9]), len(DATA) - 9)
    new = NewImage(name="read", type=ImageType.RAW, checksum=CHECKSUM)
    with arrivals.complete(ANN, KEY, len(DATA) - 9, _Source(DATA[-9:]), 9) as file:
        image = place.core.images.add(ANN, new, file, size=file.size)
    arrivals.close()
    assert data_of(place, image.id) == DATA


class _Source:
    """Data in memory."""

    def __init__(self, data: bytes) -> None:
        self._left = memoryview(data)

    def readinto(self, buffer: memoryview, /) -> int:
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

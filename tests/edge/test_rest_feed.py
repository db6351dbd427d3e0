# SPDX-License-Identifier: Apache-2.0
"""The change feed over HTTP: what it tells, and that waiting for it costs no thread.

Threading: some tests wait in threads of their own.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from glancefs.client import Client
from tests.support.use_cases import Far

WAITING = 40
PATIENCE = 120.0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Far]:
    place = Far(tmp_path / "data")
    yield place
    place.close()


class Follower:
    """One connection that asks for changes as ann."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=PATIENCE)

    def ask(self, query: str) -> None:
        self.connection.request("GET", f"/images/changes?{query}", headers=_ANN)

    def told(self) -> tuple[int, Any]:
        response = self.connection.getresponse()
        return response.status, json.loads(response.read())

    def close(self) -> None:
        self.connection.close()


_ANN = {"Authorization": "Basic YW5uOnBhc3N3b3JkIG9mIGFubg=="}


@pytest.fixture
def client(place: Far) -> Iterator[Client]:
    with Client(place.server.url, user="ann", password="password of ann") as client:
        yield client


def worker_threads() -> int:
    return sum(1 for thread in threading.enumerate() if thread.name.startswith("worker "))


def test_changes_are_told_with_everything_about_each_image(place: Far, client: Client) -> None:
    client.add_image({"name": "a/b", "type": "raw"}, b"data")
    with closing(Follower(place.server.url)) as follower:
        follower.ask("since=0")
        status, said = follower.told()
        assert status == 200
        (image,) = said["changes"]["images"]
        assert (image["name"], image["size"], image["location"], said["changes"]["revision"]) == ("a/b", 4, None, 1)
        follower.ask("since=1&wait=0")
        assert follower.told() == (200, {"changes": {"images": [], "folders": [], "revision": 1}})


@pytest.mark.parametrize("query", ["since=x", "wait=-1", "limit=9999999999999999999", "before=3", "since=1.5"])
def test_what_means_nothing_is_refused(place: Far, query: str) -> None:
    with closing(Follower(place.server.url)) as follower:
        follower.ask(query)
        status, said = follower.told()
    assert (status, said["type"]) == (400, "urn:glancefs:error:invalid-query")


def test_many_wait_without_a_thread_for_each_and_all_are_woken(place: Far, client: Client) -> None:
    client.get_images()
    before = worker_threads()
    with ExitStack() as stack:
        followers = [stack.enter_context(closing(Follower(place.server.url))) for _ in range(WAITING)]
        for follower in followers:
            follower.ask("since=0&wait=30")
        _until(lambda: len(_waiting(place)) == WAITING)
        # Others get their answers meanwhile.
        assert client.get_images() == []
        assert worker_threads() <= before + 4
        image = client.add_image({"name": "news", "type": "raw"}, b"x")
        for follower in followers:
            status, said = follower.told()
            assert (status, [one["id"] for one in said["changes"]["images"]]) == (200, [image["id"]])
        # The connections go on.
        followers[0].ask("since=1&wait=0")
        assert followers[0].told()[0] == 200
    _until(lambda: not any(thread.name == "feed" for thread in threading.enumerate()))


def test_who_waits_in_vain_is_told_so_in_time(place: Far) -> None:
    with closing(Follower(place.server.url)) as follower:
        follower.ask("since=0&wait=1")
        assert follower.told() == (200, {"changes": {"images": [], "folders": [], "revision": 0}})
        follower.ask("since=0&wait=1")
        assert follower.told()[0] == 200


def test_who_leaves_while_waiting_is_forgotten(place: Far) -> None:
    with closing(Follower(place.server.url)) as follower:
        follower.ask("since=0&wait=30")
        _until(lambda: len(_waiting(place)) == 1)
    _until(lambda: not _waiting(place))
    assert not _waiting(place)


def test_who_asks_for_more_while_waiting_is_answered_in_order(place: Far) -> None:
    parts = urlsplit(place.server.url)
    fields = f"Host: a\r\nAuthorization: {_ANN['Authorization']}"
    request = f"GET /images/changes?since=0&wait=30 HTTP/1.1\r\n{fields}\r\n\r\n"
    with socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE) as sock:
        sock.sendall(request.encode())
        _until(lambda: len(_waiting(place)) == 1)
        sock.sendall(b"GET /versions HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        received = b""
        while piece := sock.recv(65_536):
            received += piece
    first, second = received.split(b"HTTP/1.1 ")[1:]
    assert b'"revision": 0' in first
    assert b"versions" in second


def test_a_server_that_stops_lets_go_of_who_waits(tmp_path: Path) -> None:
    place = Far(tmp_path / "data")
    with closing(Follower(place.server.url)) as follower:
        follower.ask("since=0&wait=30")
        _until(lambda: len(_waiting(place)) == 1)
        began = time.monotonic()
        place.close()
        assert follower.told()[0] == 200
        assert time.monotonic() - began < 25


def _waiting(place: Far) -> list[object]:
    engine = place.server._engine
    assert engine is not None
    return [connection for connection in engine.parking.everyone() if connection.stage.value == "news"]


def _until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)

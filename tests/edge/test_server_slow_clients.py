# SPDX-License-Identifier: Apache-2.0
"""Slow, silent and many clients: whatever they do, short requests of others are answered."""

import contextlib
import socket
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from gateway.http.sendfile import FileSlice
from tests.edge.conftest import Serve, Served
from tests.support.rawhttp import RawClient

HEAD = b"HEAD /quick HTTP/1.1\r\nHost: x\r\n\r\n"
UPLOAD = b"PUT /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n"
CHUNKED = b"PUT /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
DOWNLOAD = b"GET /download HTTP/1.1\r\nHost: x\r\n\r\n"
STREAM = b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n"
FEW = {"max_uploads": 4, "max_downloads": 4, "reserve": 2}
BIG = 64 << 20


@pytest.fixture
def big_file(tmp_path: Any) -> Iterator[Any]:
    path = tmp_path / "big"
    with path.open("wb+") as file:
        file.truncate(BIG)
        yield file


@pytest.fixture
def app(big_file: Any) -> Any:
    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[Any]:
        path = environ["PATH_INFO"]
        if path == "/upload":
            buffer = bytearray(1 << 16)
            while environ["wsgi.input"].readinto(buffer):
                pass
        if path == "/download":
            start_response("200 OK", [("Content-Length", str(BIG))])
            return [FileSlice(big_file, 0, BIG)]
        start_response("200 OK", [])
        if path == "/stream":
            return iter([bytes(1 << 16)] * (BIG >> 16))
        return [b"hello"]

    return answer


@contextlib.contextmanager
def many(served: Served, count: int, *data: bytes) -> Iterator[list[RawClient]]:
    """Open connections that send something and then nothing; what they receive they don't read."""
    with contextlib.ExitStack() as stack:
        clients = []
        for number in range(count):
            client = stack.enter_context(served.connect())
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.send(data[number % len(data)])
            clients.append(client)
        yield clients


@pytest.mark.parametrize(
    "data",
    [
        (b"",),
        (b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r"),
        (UPLOAD, UPLOAD + bytes(1000), CHUNKED, CHUNKED + b"5\r\nab"),
        (b"PUT /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc",),
        (b"PUT /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n",),
        (DOWNLOAD,),
        (STREAM,),
        (HEAD * 200,),
        (UPLOAD, DOWNLOAD, STREAM, b"", b"GET", HEAD * 200),
    ],
    ids=["silent", "heads", "uploads", "small bodies", "expecting", "readers", "stream readers", "pipelines", "all"],
)
def test_fifty_slow_clients_leave_threads_for_short_requests(serve: Serve, app: Any, data: tuple[bytes, ...]) -> None:
    served = serve(app, **FEW, small_body_patience=0.1, slotless_patience=0.05)
    with many(served, 50, *data), served.connect() as quick:
        for _ in range(20):
            assert quick.ask(HEAD, method="HEAD").status == 200
            with served.connect() as fresh:
                assert fresh.ask(HEAD, method="HEAD").status == 200


def test_uploads_beyond_the_cap_are_sent_away_before_their_bodies(serve: Serve, app: Any) -> None:
    served = serve(app, **FEW)
    with many(served, 4, UPLOAD):
        wait_until(lambda: served.engine.uploads.taken == 4)
        for request in (UPLOAD, CHUNKED, UPLOAD.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")):
            with served.connect() as client:
                answer = client.ask(request)
                assert (answer.status, answer.headers["retry-after"]) == (503, "5")
                assert b"urn:glancefs:error:too-many-uploads" in answer.body
    wait_until(lambda: served.engine.uploads.taken == 0)
    with served.connect() as client:
        assert client.ask(UPLOAD + bytes(10_000_000)).status == 200


def test_downloads_beyond_the_cap_are_told_to_come_back(serve: Serve, app: Any) -> None:
    served = serve(app, **FEW)
    with many(served, 4, DOWNLOAD):
        wait_until(lambda: served.engine.downloads.taken == 4)
        with served.connect() as client:
            answer = client.ask(DOWNLOAD)
            assert (answer.status, answer.headers["retry-after"], answer.closes) == (503, "5", False)
            assert client.ask(DOWNLOAD.replace(b"GET", b"HEAD"), method="HEAD").headers["content-length"] == str(BIG)
    wait_until(lambda: served.engine.downloads.taken == 0)
    with served.connect() as client:
        assert len(client.ask(DOWNLOAD).body) == BIG


def test_a_small_body_that_is_slow_arrives_nevertheless(serve: Serve) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [environ["wsgi.input"].read()]

    served = serve(app, small_body_patience=0.05)
    with served.connect() as client:
        client.send(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            client.send(b"x")
            threading.Event().wait(0.1)
        assert client.answer().body == b"x" * 10


def test_a_head_that_is_not_complete_in_time_is_408(serve: Serve, app: Any) -> None:
    with serve(app, head_timeout=0.2).connect() as client:
        client.send(b"GET / HTTP/1.1\r\n")
        answer = client.answer()
        assert (answer.status, answer.closes) == (408, True)


def test_dripping_headers_do_not_move_the_deadline(serve: Serve, app: Any) -> None:
    with serve(app, head_timeout=0.4).connect() as client:
        client.send(b"GET / HTTP/1.1\r\n")
        client.sock.settimeout(0.05)
        with contextlib.suppress(OSError):
            for number in range(400):
                client.send(b"X-%d: y\r\n" % number)
                with contextlib.suppress(TimeoutError):
                    client.exactly(1)
                    break
        client.sock.settimeout(20)
        assert b"408" in client.rest()


def test_an_idle_connection_is_closed_without_a_word(serve: Serve, app: Any) -> None:
    with serve(app, idle_timeout=1).connect() as client:
        assert client.ask(HEAD, method="HEAD").status == 200
        assert client.rest() == b""


def test_a_reader_that_takes_nothing_is_cut(serve: Serve, app: Any) -> None:
    served = serve(app, write_timeout=0.3)
    with many(served, 1, DOWNLOAD) as clients:
        wait_until(lambda: served.engine.downloads.taken == 1)
        wait_until(lambda: served.engine.downloads.taken == 0)
        assert len(clients[0].rest()) < BIG


def test_beyond_the_limit_the_connection_that_idles_longest_goes(serve: Serve, app: Any) -> None:
    served = serve(app, max_connections=10)
    with many(served, 10, HEAD) as clients:
        for client in clients:
            client.answer(method="HEAD")
        with served.connect() as late:
            assert late.ask(HEAD, method="HEAD").status == 200
            assert clients[0].rest() == b""
            assert clients[9].ask(HEAD, method="HEAD").status == 200


def test_beyond_the_limit_half_requests_give_way_to_new_ones(serve: Serve, app: Any) -> None:
    served = serve(app, max_connections=10)
    with many(served, 10, b"GET"), served.connect() as late:
        assert late.ask(HEAD, method="HEAD").status == 200


def test_keep_alive_serves_more_connections_than_there_are_threads(serve: Serve, app: Any) -> None:
    served = serve(app, **FEW)
    with many(served, 200, HEAD) as clients:
        for _ in range(3):
            for client in clients:
                assert client.answer(method="HEAD").status == 200
                client.send(HEAD)


def wait_until(condition: Any) -> None:
    for _ in range(2000):
        if condition():
            return
        threading.Event().wait(0.01)
    pytest.fail("it did not come to that")

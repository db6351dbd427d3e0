# SPDX-License-Identifier: Apache-2.0
"""Bodies of requests: whole or an error, never held in memory, never taken for the next request."""

import os
import socket
import struct
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.admission import Pace, Places, Ticket
from gateway.http.body import ChunkedBody
from gateway.http.wire import Wire
from glancefs.errors import InvalidRequest, UploadTruncated
from tests.edge.conftest import Serve
from tests.support.rawhttp import RawClient

MEBI = 1 << 20


class Sink:
    """An application that reads the body to its end and remembers what became of each request."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, int | str]] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if environ["PATH_INFO"].startswith("/refuse"):
            self.seen.append((*request, "refused"))
            start_response("401 Unauthorized", [("Content-Type", "text/plain")])
            return [b"no"]
        buffer = bytearray(MEBI)
        total = 0
        try:
            while count := environ["wsgi.input"].readinto(buffer):
                total += count
        except UploadTruncated as error:
            self.seen.append((*request, "truncated"))
            start_response("400 Bad Request", [("Content-Type", "text/plain")])
            return [str(error).encode()]
        self.seen.append((*request, total))
        start_response("201 Created", [("Content-Type", "text/plain")])
        return [str(total).encode()]


def flood(client: RawClient, *, limit: int) -> int:
    """Send until the server cuts the connection; gives how much it let us send."""
    sent = 0
    try:
        while sent < limit:
            client.send(bytes(MEBI))
            sent += MEBI
    except OSError:
        return sent
    return sent


def head(line: str, *headers: str) -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


@pytest.mark.parametrize("size", [1000, 100_000], ids=["small", "large"])
def test_a_body_that_is_short_of_its_length_is_an_error(serve: Serve, size: int) -> None:
    sink = Sink()
    with serve(sink).connect() as client:
        client.send(head("PUT /a", f"Content-Length: {size}") + b"x" * (size // 2))
        client.finish()
        answer = client.answer()
    assert answer.status == 400
    assert sink.seen == [("PUT", "/a", "truncated")]


def test_a_body_whose_client_is_reset_is_an_error(serve: Serve) -> None:
    sink = Sink()
    done = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        try:
            return sink(environ, start_response)
        finally:
            done.set()

    with serve(app).connect() as client:
        client.send(head("PUT /a", "Content-Length: 100000") + b"x" * 50_000)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert done.wait(20)
    assert sink.seen == [("PUT", "/a", "truncated")]


@pytest.mark.parametrize(
    "body",
    [
        b"5\r\nhello\r\n",
        b"5\r\nhel",
        b"5\r\nhello\r\n0\r\n",
        b"5\r\nhello\r\n0\r\nTrailer: x\r\n",
        b"",
    ],
)
def test_a_cut_chunked_body_is_an_error(serve: Serve, body: bytes) -> None:
    sink = Sink()
    with serve(sink).connect() as client:
        client.send(head("PUT /a", "Transfer-Encoding: chunked") + body)
        client.finish()
        assert client.answer().status == 400
    assert sink.seen == [("PUT", "/a", "truncated")]


@pytest.mark.parametrize(
    "body",
    [
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5_0\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"\r\n\r\n",
        b"5\nhello\n0\n\n" + b" " * 2000,
        b"5\r\nhelloo\r\n0\r\n\r\n",
        b"5\r\nhell\r\n0\r\n\r\n....",
        b"3\r\nabc\r\n2\r\nxyz\r\n0\r\n\r\n",
        b"3\r\nabc\r\n2\r\nxy\n\r0\r\n\r\n",
        b"3\r\nabc\r\n2\r\nxy\r\n-1\r\nz\r\n0\r\n\r\n",
        b"ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        b"5;" + b"x" * 5000 + b"\r\nhello\r\n0\r\n\r\n",
        b"0\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
    ],
)
def test_a_malformed_chunked_body_is_an_error_and_ends_the_connection(serve: Serve, body: bytes) -> None:
    sink = Sink()
    with serve(sink).connect() as client:
        answer = client.ask(head("PUT /a", "Transfer-Encoding: chunked") + body)
        assert (answer.status, answer.closes) == (400, True)
        assert client.rest() == b""
    assert sink.seen == [("PUT", "/a", "truncated")]


def test_chunk_extensions_and_trailers_are_taken_and_the_next_request_follows(serve: Serve) -> None:
    sink = Sink()
    body = b'5;name="a;b"\r\nhello\r\nA ; x\r\n0123456789\r\n000\r\nExpires: never\r\nX: y\r\n\r\n'
    with serve(sink).connect() as client:
        client.send(head("PUT /a", "Transfer-Encoding: Chunked") + body + head("GET /b"))
        assert client.answer().body == b"15"
        assert client.answer().body == b"0"


def test_a_refused_body_is_neither_awaited_nor_held(serve: Serve) -> None:
    before = psutil.Process().memory_info().rss
    with serve(Sink()).connect() as client:
        answer = client.ask(head("PUT /refuse", f"Content-Length: {1 << 30}"))
        assert (answer.status, answer.closes) == (401, True)
        sent = flood(client, limit=1 << 30)
    assert sent < 100 * MEBI
    assert psutil.Process().memory_info().rss - before < 50 * MEBI


def test_a_refusal_reaches_a_client_that_goes_on_sending(serve: Serve) -> None:
    with serve(Sink()).connect() as client:
        client.send(head("PUT /refuse", "Content-Length: 3000000") + b"x" * 3_000_000)
        assert client.answer().status == 401


def test_a_small_refused_body_does_not_cost_the_connection(serve: Serve) -> None:
    with serve(Sink()).connect() as client:
        assert client.ask(head("PUT /refuse", "Content-Length: 5") + b"hello").status == 401
        assert client.ask(head("GET /b")).status == 201


@pytest.mark.parametrize("expectation", ["100-continue", "100-Continue"])
def test_100_continue_is_sent_when_the_application_reads(serve: Serve, expectation: str) -> None:
    with serve(Sink()).connect() as client:
        client.send(head("PUT /a", "Content-Length: 5", f"Expect: {expectation}"))
        assert client.answer().status == 100
        client.send(b"hello")
        assert client.answer().body == b"5"


def test_a_refusal_without_reading_never_asks_for_the_body(serve: Serve) -> None:
    with serve(Sink()).connect() as client:
        answer = client.ask(head("PUT /refuse", "Content-Length: 5", "Expect: 100-continue"))
        assert (answer.status, answer.closes) == (401, True)
        assert client.rest() == b""


def test_the_application_can_tell_that_the_client_waits(serve: Serve) -> None:
    awaited = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        awaited.append(environ["glancefs.body_awaited"])
        start_response("204 No Content", [])
        return []

    served = serve(app)
    for headers in (["Content-Length: 5", "Expect: 100-continue"], []):
        with served.connect() as client:
            assert client.ask(head("PUT /a", *headers)).status == 204
    assert awaited == [True, False]


def test_an_unread_chunked_body_is_never_taken_for_a_request(serve: Serve) -> None:
    sink = Sink()
    smuggled = head("DELETE /victim")
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(smuggled), smuggled)
    with serve(sink).connect() as client:
        answer = client.ask(head("PUT /refuse", "Transfer-Encoding: chunked") + body)
        assert (answer.status, answer.closes) == (401, True)
        assert client.rest() == b""
    assert sink.seen == [("PUT", "/refuse", "refused")]


def test_a_half_read_body_is_never_taken_for_a_request(serve: Serve) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [environ["wsgi.input"].read(3)]

    smuggled = head("GET /victim")
    with serve(app).connect() as client:
        client.send(head("PUT /a", f"Content-Length: {3 + len(smuggled)}") + b"abc" + smuggled)
        client.finish()
        assert client.answer().body == b"abc"
        assert client.rest() == b""


def test_a_body_is_read_to_its_end_and_not_beyond(serve: Serve) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"]
        start_response("200 OK", [])
        return [body.read(2), b"|", body.readline(), b"|", body.read(), b"|", body.read(), b"|", body.read(10)]

    with serve(app).connect() as client:
        client.send(head("PUT /a", "Content-Length: 12") + b"ab\ncd\nefgh\nX" + head("GET /b"))
        assert client.answer().body == b"ab|\n|cd\nefgh\nX||"
        assert client.answer().body == b"||||"


def test_read_without_a_size_is_bounded(serve: Serve) -> None:
    raised = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        try:
            environ["wsgi.input"].read()
        except InvalidRequest as error:
            raised.append(str(error))
        start_response("413 Content Too Large", [])
        return []

    with serve(app).connect() as client:
        assert client.ask(head("PUT /a", f"Content-Length: {1 << 40}")).status == 413
    assert raised


def test_chunks_are_not_held_and_cost_what_their_bytes_cost(serve: Serve) -> None:
    sink = Sink()
    before = psutil.Process().memory_info().rss
    size = 512 * MEBI
    block = bytes(MEBI)
    with serve(sink).connect() as client:
        client.send(head("PUT /a", "Transfer-Encoding: chunked") + b"%x\r\n" % size)
        for _ in range(size // MEBI):
            client.send(block)
        assert client.ask(b"\r\n0\r\n\r\n").body == str(size).encode()
    assert psutil.Process().memory_info().rss - before < 50 * MEBI


def test_many_tiny_chunks_come_out_right(serve: Serve) -> None:
    with serve(Sink()).connect() as client:
        client.send(head("PUT /a", "Transfer-Encoding: chunked"))
        for _ in range(100):
            client.send(b"1\r\nx\r\n" * 1000)
        assert client.ask(b"0\r\n\r\n").body == b"100000"


def test_tiny_chunks_that_came_together_are_taken_together() -> None:
    steps = 0

    class Counting(ChunkedBody):
        def _receive(self, view: memoryview) -> int:
            nonlocal steps
            steps += 1
            return super()._receive(view)

    pace = Pace(ticket=Ticket(Places(total=1)), idle=5, rate=0, grace=1, patience=1)
    read_end, write_end = socket.socketpair()
    with read_end, write_end:
        write_end.sendall(b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n")
        read_end.settimeout(0)
        body = Counting(wire=Wire(read_end), pace=pace, expects=False)
        assert body.readinto(bytearray(MEBI)) == 1000
    assert steps < 10


def test_a_stalled_body_is_an_error(serve: Serve) -> None:
    sink = Sink()
    with serve(sink, body_timeout=0.2).connect() as client:
        answer = client.ask(head("PUT /a", "Content-Length: 100000") + b"x" * 40_000)
        assert (answer.status, answer.closes) == (400, True)
    assert sink.seen == [("PUT", "/a", "truncated")]


def test_a_body_below_the_minimum_rate_is_an_error(serve: Serve) -> None:
    sink = Sink()
    stop = threading.Event()
    with serve(sink, min_rate=1_000_000, min_rate_grace=0.3).connect() as client:
        client.send(head("PUT /a", "Content-Length: 100000"))

        def drip() -> None:
            while not stop.wait(0.02):
                try:
                    client.send(b"x")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        answer = client.answer()
        stop.set()
        dripping.join()
    assert answer.status == 400
    assert b"per second" in answer.body
    assert sink.seen == [("PUT", "/a", "truncated")]


def test_a_truncated_body_that_the_application_lets_pass_is_a_400_without_a_traceback(serve: Serve) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["wsgi.input"].read(1000)
        start_response("200 OK", [])
        return []

    with serve(app).connect() as client:
        client.send(head("PUT /a", "Content-Length: 1000") + b"x")
        client.finish()
        answer = client.answer()
    assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")


def test_a_failed_body_goes_on_failing(serve: Serve) -> None:
    outcomes = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        for _ in range(3):
            try:
                outcomes.append(environ["wsgi.input"].read(1000))
            except UploadTruncated:
                outcomes.append(b"truncated")
        start_response("400 Bad Request", [])
        return []

    with serve(app).connect() as client:
        client.send(head("PUT /a", "Content-Length: 1000") + b"x")
        client.finish()
        client.answer()
    assert outcomes == [b"truncated"] * 3


def test_an_upload_larger_than_memory_should_hold_arrives_whole(serve: Serve, tmp_path: Path) -> None:
    target = tmp_path / "stored"

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        buffer = bytearray(MEBI)
        with target.open("wb") as out:
            while count := environ["wsgi.input"].readinto(buffer):
                out.write(memoryview(buffer)[:count])
        start_response("201 Created", [])
        return []

    data = os.urandom(5 * MEBI + 123)
    with serve(app).connect() as client:
        client.send(head("PUT /a", f"Content-Length: {len(data)}") + data[:100])
        client.send(data[100:])
        assert client.answer().status == 201
    assert target.read_bytes() == data


@given(
    data=st.binary(max_size=3000),
    cuts=st.lists(st.integers(min_value=1, max_value=200), max_size=40),
    reads=st.lists(st.integers(min_value=1, max_value=500), min_size=1, max_size=20),
)
def test_any_chunking_and_any_reading_give_the_same_bytes(data: bytes, cuts: list[int], reads: list[int]) -> None:
    encoded = bytearray()
    rest = data
    for cut in [*cuts, len(data)]:
        piece, rest = rest[:cut], rest[cut:]
        if piece:
            encoded += b"%x\r\n%s\r\n" % (len(piece), piece)
    encoded += b"0\r\n\r\nNEXT"
    pace = Pace(ticket=Ticket(Places(total=1)), idle=5, rate=0, grace=1, patience=1)
    read_end, write_end = socket.socketpair()
    with read_end, write_end:
        write_end.sendall(encoded)
        read_end.settimeout(0)
        wire = Wire(read_end)
        body = ChunkedBody(wire=wire, pace=pace, expects=False)
        got = bytearray()
        turn = 0
        while block := body.read(reads[turn % len(reads)]):
            got += block
            turn += 1
        assert (bytes(got), body.finished, wire.take(10)) == (data, True, b"NEXT")

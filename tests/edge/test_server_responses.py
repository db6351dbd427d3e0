# SPDX-License-Identifier: Apache-2.0
"""Responses: their framing, slices of files, and what happens when an application does not keep its word."""

import logging
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.http.sendfile import FileSlice
from tests.edge.conftest import Serve
from tests.support.certificates import self_signed

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\n\r\n"


def answering(chunks: Iterable[Any], *headers: tuple[str, str], status: str = "200 OK") -> Any:
    def app(_environ: dict[str, Any], start_response: Any) -> Iterable[Any]:
        start_response(status, list(headers))
        return chunks

    return app


@pytest.fixture(params=["plain", "tls"])
def certificate(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return self_signed(tmp_path) if request.param == "tls" else None


def test_a_list_gets_its_length_and_a_generator_gets_chunks(serve: Serve) -> None:
    with serve(answering([b"ab", b"", b"c"])).connect() as client:
        answer = client.ask(GET)
        assert (answer.headers["content-length"], answer.body) == ("3", b"abc")

    def app(_environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield from (b"ab", b"", b"c")

    with serve(app).connect() as client:
        answer = client.ask(GET)
        assert (answer.headers["transfer-encoding"], answer.body) == ("chunked", b"abc")
        assert client.ask(GET).body == b"abc"
        assert client.ask(HEAD, method="HEAD").body == b""
        assert client.ask(GET).body == b"abc"
    with serve(app).connect() as client:
        answer = client.ask(OLD)
        assert "transfer-encoding" not in answer.headers
        assert (answer.body, answer.closes) == (b"abc", True)


def test_slices_of_a_file_leave_whole_and_in_order(serve: Serve, tmp_path: Path, certificate: Path | None) -> None:
    data = os.urandom(3_000_000)
    path = tmp_path / "file"
    path.write_bytes(data)
    with path.open("rb") as file:
        pieces = [b"<", FileSlice(file, 10, 2_000_010), b"|", FileSlice(file, 5, 5), FileSlice(file, 0, 3), b">"]
        expected = b"<" + data[10:2_000_010] + b"|" + data[:3] + b">"
        served = serve(answering(pieces, ("Content-Length", str(len(expected)))), tls_cert=certificate)
        with served.connect() as client:
            assert client.ask(GET).body == expected
            assert client.ask(HEAD, method="HEAD").headers["content-length"] == str(len(expected))
            assert client.ask(GET).body == expected
        served = serve(answering(iter(pieces)), tls_cert=certificate)
        with served.connect() as client:
            answer = client.ask(GET)
            assert (answer.headers["transfer-encoding"], answer.body) == ("chunked", expected)


def test_a_slice_is_its_bytes_for_whoever_iterates(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        piece = FileSlice(file, 2, 7)
        assert (len(piece), bytes(piece), b"".join(piece)) == (5, b"23456", b"23456")
        with pytest.raises(ValueError, match="slice"):
            FileSlice(file, 7, 2)


def test_the_file_wrapper_sends_the_rest_of_a_file_and_closes_it(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    files = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        file = path.open("rb")
        files.append(file)
        file.seek(4)
        start_response("200 OK", [("Content-Length", "6")])
        return environ["wsgi.file_wrapper"](file, 4096)

    with serve(app).connect() as client:
        assert client.ask(GET).body == b"456789"
        assert client.ask(GET).body == b"456789"
    assert files[0].closed


def test_the_write_callable_works(serve: Serve) -> None:
    def app(_environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", [("Content-Length", "4")])
        write(b"ab")
        return [b"cd"]

    with serve(app).connect() as client:
        assert client.ask(GET).body == b"abcd"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_responses_without_content_have_none(serve: Serve, status: str) -> None:
    with serve(answering([b"surplus"], status=status)).connect() as client:
        for _ in range(2):
            answer = client.ask(GET)
            assert (answer.status, answer.closes) == (int(status[:3]), False)


@pytest.mark.expect_log("shorter than its Content-Length")
def test_a_response_short_of_its_length_ends_the_connection_and_is_logged(serve: Serve) -> None:
    with serve(answering(iter([b"abc"]), ("Content-Length", "10"))).connect() as client:
        assert client.ask(GET + GET, method="HEAD").headers["content-length"] == "10"
        assert client.rest() in {b"abc", b""}


@pytest.mark.expect_log("longer than its Content-Length")
def test_a_response_beyond_its_length_is_cut_and_logged(serve: Serve) -> None:
    with serve(answering(iter([b"abc", b"def"]), ("Content-Length", "4"))).connect() as client:
        assert client.ask(GET + GET, method="HEAD").headers["content-length"] == "4"
        assert client.rest() in {b"abcd", b""}


@pytest.mark.expect_log("ended .* bytes early")
def test_a_file_that_shrinks_ends_the_connection(serve: Serve, tmp_path: Path, certificate: Path | None) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1000))
    with path.open("rb") as file:
        app = answering(iter([b"x", FileSlice(file, 0, 2000)]), ("Content-Length", "2001"))
        with serve(app, tls_cert=certificate).connect() as client:
            client.ask(GET, method="HEAD")
            assert len(client.rest()) <= 1001


@pytest.mark.expect_log("the application failed at GET '/'")
def test_an_exception_is_a_500_that_tells_nothing(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    def app(_environ: dict[str, Any], _start_response: Any) -> Iterable[bytes]:
        raise RuntimeError("password=hunter2")

    with serve(app).connect() as client:
        answer = client.ask(GET)
        assert (answer.status, answer.headers["content-type"]) == (500, "application/problem+json")
        assert b"hunter2" not in answer.body
        assert client.ask(GET).status == 500
    records = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(records) == 2
    assert all(record.exc_info for record in records)


@pytest.mark.expect_log("the application failed at GET '/'")
@pytest.mark.parametrize("request_head", [GET, OLD])
def test_an_exception_amid_the_response_ends_the_connection_with_a_reset(serve: Serve, request_head: bytes) -> None:
    closed = threading.Event()

    def app(_environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            yield b"x" * 100
            raise RuntimeError("amid")
        finally:
            closed.set()

    with serve(app).connect() as client:
        client.send(request_head)
        data = client.rest()
    assert b"0\r\n\r\n" not in data
    assert closed.wait(5)


@pytest.mark.expect_log("closing time")
def test_an_iterable_that_fails_to_close_does_not_spoil_its_response(serve: Serve) -> None:
    class Stubborn:
        def __iter__(self) -> Iterator[bytes]:
            yield b"whole"

        def close(self) -> None:
            raise OSError("closing time")

    with serve(answering(Stubborn(), ("Content-Length", "5"))).connect() as client:
        assert client.ask(GET).body == b"whole"
        assert client.rest() == b""


@pytest.mark.expect_log("the application failed")
@pytest.mark.parametrize(
    "broken",
    [
        lambda _environ, _start: [b"no start_response"],
        lambda _environ, _start: [],
        lambda _environ, start: start("200", []) or [],
        lambda _environ, start: start("200 OK\r\nX: y", []) or [],
        lambda _environ, start: start("200 OK", [("X", "a\r\nSet-Cookie: b")]) or [],
        lambda _environ, start: start("200 OK", [("X: y\r\nZ", "a")]) or [],
        lambda _environ, start: start("200 OK", [("X", "\u20ac")]) or [],
        lambda _environ, start: start("200 OK", [("Content-Length", "many")]) or [],
        lambda _environ, start: [b"a" for _ in (start("200 OK", []), start("200 OK", []))],
        lambda _environ, start: start("200 OK", []) and ["text"],
        lambda _environ, _start: sys.exit(3),
    ],
)
def test_what_breaks_wsgi_is_a_500(serve: Serve, broken: Any) -> None:
    with serve(broken).connect() as client:
        assert client.ask(GET).status == 500


def test_the_iterable_is_closed_when_the_client_leaves(serve: Serve) -> None:
    closed = threading.Event()

    def app(_environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            while True:
                yield bytes(1 << 16)
        finally:
            closed.set()

    with serve(app).connect() as client:
        client.send(GET)
        client.exactly(1000)
    assert closed.wait(10)


def test_each_request_is_told_of_at_its_end(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["glancefs.user"] = "ann\n"
        environ["glancefs.route"] = "things"
        environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [b"12345"]

    caplog.set_level(logging.INFO, "glancefs.access")
    served = serve(app, observer=lambda **told: seen.append(told))
    with served.connect() as client:
        client.ask(b"PUT /a%0Ab HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
        client.ask(b"BAD\r\n\r\n")
    served.server.stop()
    lines = [record.getMessage() for record in caplog.records if record.name == "glancefs.access"]
    assert len(lines) == len(seen) == 2
    assert '"PUT /a%0Ab" 200 3 ' in lines[0]
    assert " ann\\x0a " in lines[0]
    assert '"- -" 400 0 ' in lines[1]
    assert (seen[0]["route"], seen[0]["method"], seen[0]["status"], seen[0]["bytes_in"]) == ("things", "PUT", 200, 3)
    assert seen[0]["bytes_out"] > 5
    assert seen[0]["seconds"] >= 0


@pytest.mark.expect_log("the observer of requests failed")
def test_an_observer_that_fails_does_no_harm(serve: Serve) -> None:
    def observer(**_told: object) -> None:
        raise RuntimeError("counting is hard")

    with serve(answering([b"x"]), observer=observer).connect() as client:
        assert client.ask(GET).status == 200
        assert client.ask(GET).status == 200

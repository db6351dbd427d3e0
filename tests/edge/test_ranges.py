# SPDX-License-Identifier: Apache-2.0
"""Ranges by the short way: what is expected comes at once, anything else is left to the client that knows it.

Threading: the scripted server answers in a thread of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from glancefs.client import Client
from glancefs.errors import InvalidRequest, NotAuthenticated, NotFound, Unavailable
from tests.edge.test_client_wire import Exchange, Handler, answer, problem, scripted
from tests.support.certificates import self_signed
from tests.support.cli import ServeFolder

DATA = bytes(range(256)) * 4000
ETAG = 'ETag: "sha256:1"\n'


def part(start: int, stop: int, *, of: int = len(DATA), length: int | None = None, more: str = "") -> str:
    """The head of an answer with a range."""
    size = stop - start if length is None else length
    given = f"Content-Range: bytes {start}-{stop - 1}/{of}\n"
    return f"HTTP/1.1 206 Partial Content\n{ETAG}Content-Length: {size}\n{given}{more}\n"


def answering(*answers: tuple[str, bytes], heads: list[str] | None = None, is_left_open: bool = False) -> Handler:
    """Handle a connection on which these answers are given, one to each request."""

    def handle(exchange: Exchange) -> None:
        for head, body in answers:
            asked = exchange.head()
            if heads is not None:
                heads.append(asked)
            exchange.send(head, body)
        if is_left_open:
            exchange.head()

    return handle


@pytest.fixture
def client(tmp_path: Path, served: ServeFolder) -> Iterator[Client]:
    with Client(served(tmp_path / "data")) as client:
        client.add_image({"name": "disk", "type": "raw", "id": "disk"}, DATA)
        yield client


def test_ranges_come_one_after_the_other_on_one_connection() -> None:
    heads: list[str] = []
    answers = [(part(start, start + 10), DATA[start : start + 10]) for start in (0, 100, 999)]
    with scripted(answering(*answers, heads=heads, is_left_open=True)) as client:
        found = [client.get_range("1", start, start + 10) for start in (0, 100, 999)]
    assert found == [body for _, body in answers]
    assert [head.splitlines()[0] for head in heads] == ["GET /images/1 HTTP/1.1"] * 3
    assert "Range: bytes=999-1008" in heads[2]


@pytest.mark.parametrize(
    "first",
    [
        (part(1, 11), DATA[1:11]),
        (part(0, 10, length=5), DATA[:5]),
        (part(0, 10, more="Connection: close\n"), DATA[:10]),
        ("HTTP/1.1 206 Partial Content\nContent-Range: bytes 0-9/9999\nTransfer-Encoding: chunked\n\n", b"0\r\n\r\n"),
        (part(0, 10), DATA[:3]),
        # In one piece: what comes later is nobody's answer, and found out when the connection is used again.
        (part(0, 10) + 30 * "x", b""),
        ("SSH-2.0-OpenSSH_9.2\n", b""),
        ("", b""),
    ],
    ids=["another", "short", "closing", "chunked", "broken", "long", "no HTTP", "nothing"],
)
def test_any_other_answer_is_asked_for_again_the_long_way(first: tuple[str, bytes]) -> None:
    heads: list[str] = []
    second = (part(0, 10), DATA[:10])
    with scripted(answering(first, heads=heads), answering(second, heads=heads)) as client:
        assert client.get_range("1", 0, 10) == DATA[:10]
    assert len(heads) == 2


def test_a_whole_image_in_the_place_of_a_range_is_cut_to_it() -> None:
    whole = (answer("200 OK", ETAG.strip(), length=20), DATA[:20])
    with scripted(answering(whole), answering(whole)) as client:
        assert client.get_range("1", 5, 10) == DATA[5:10]


def test_a_refusal_is_the_error_that_it_tells_of() -> None:
    refusal = (problem("401 Unauthorized", "not-authenticated", "Who are you?"), b"")
    with scripted(answering(refusal), answering(refusal)) as client, pytest.raises(NotAuthenticated, match="Who are"):
        client.get_range("1", 0, 10)


def test_a_connection_that_the_server_has_ended_meanwhile_is_replaced() -> None:
    first, second = (part(0, 10), DATA[:10]), (part(10, 20), DATA[10:20])
    with scripted(answering(first), answering(second)) as client:
        assert client.get_range("1", 0, 10) + client.get_range("1", 10, 20) == DATA[:20]


def test_a_server_that_says_nothing_is_an_error_in_time() -> None:
    def say_nothing(exchange: Exchange) -> None:
        exchange.head()
        exchange.file.read(1)

    with scripted(say_nothing) as client, Client(client.url, timeout=0.3) as hasty:
        with pytest.raises(Unavailable, match="does not answer in time"):
            hasty.get_range("1", 0, 10)
        hasty.close()


def test_a_server_that_falls_silent_in_the_middle_is_an_error_in_time() -> None:
    def begin(exchange: Exchange) -> None:
        exchange.head()
        exchange.send(part(0, 100_000), DATA[:90_000])
        exchange.file.read(1)

    with (
        scripted(begin) as client,
        Client(client.url, timeout=0.3) as hasty,
        pytest.raises(Unavailable, match="does not answer in time"),
    ):
        hasty.get_range("1", 0, 100_000)


def test_a_server_that_is_not_there_is_an_error() -> None:
    with Client("127.0.0.1", 1, tries=1) as client, pytest.raises(Unavailable, match="can't be reached"):
        client.get_range("1", 0, 10)


def test_ranges_of_a_real_server_by_many_threads(client: Client) -> None:
    def fetch(number: int) -> bool:
        start = number * 7919 % (len(DATA) - 1)
        stop = min(len(DATA), start + (1 if number % 3 else 300_000))
        return client.get_range("disk", start, stop) == DATA[start:stop]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(fetch, range(200)))


def test_what_is_no_range_or_no_image_is_refused_as_elsewhere(client: Client) -> None:
    with pytest.raises(NotFound):
        client.get_range("nothing", 0, 10)
    with pytest.raises(InvalidRequest):
        client.get_range("disk", 10, 10)


@pytest.mark.needs("openssl")
def test_ranges_over_tls_are_asked_of_a_server_that_is_trusted(tmp_path: Path, served: ServeFolder) -> None:
    pem = self_signed(tmp_path)
    url = served(tmp_path / "data", {"gateway.tls_cert": str(pem), "gateway.tls_key": str(pem)})
    with Client(url, cacert=pem) as client:
        client.add_image({"name": "disk", "type": "raw", "id": "disk"}, DATA)
        assert client.get_range("disk", 3, 900_000) == DATA[3:900_000]
        assert client.get_range("disk", 7, 9) == DATA[7:9]
    with Client(url, tries=1) as client, pytest.raises(Unavailable, match="can't be trusted"):
        client.get_range("disk", 0, 10)

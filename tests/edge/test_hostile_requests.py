# SPDX-License-Identifier: Apache-2.0
"""Whatever bytes come, there is no 500, no traceback in the log, and the next client is answered."""

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.http.limits import Limits
from gateway.server import Server
from glancefs.errors import UploadTruncated
from tests.edge.conftest import Served
from tests.support.rawhttp import RawClient

HALT = 2.0
"""For how many seconds a client may halt in the middle; the others here do so on a machine that is very busy."""
FINE = b"GET /fine HTTP/1.1\r\nHost: x\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Read every body, decode every text, as a careful application does."""
    path = environ["PATH_INFO"].encode("latin-1").decode("utf-8")
    try:
        body = environ["wsgi.input"].read(1 << 20)
    except UploadTruncated:
        start_response("400 Bad Request", [])
        return [b"truncated"]
    start_response("200 OK", [])
    return [path.encode(), str(len(body)).encode()]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    limits = Limits(
        head_timeout=HALT,
        body_timeout=HALT,
        small_body_patience=0.1,
        linger=0.2,
        max_uploads=8,
        max_downloads=8,
        reserve=4,
    )
    server = Server(app_factory=lambda: application, listen="127.0.0.1:0", limits=limits, shutdown_timeout=5)
    server.start()
    yield Served(server=server)
    server.stop()


def statuses(served: Served, data: bytes) -> list[int]:
    """Send the data and read all that comes; then see that another client is answered."""
    with served.connect() as client:
        with contextlib.suppress(OSError):
            client.send(data)
            client.finish()
        found = told(client)
    with served.connect() as other:
        assert other.ask(FINE).body == b"/fine0"
    return found


def told(client: RawClient) -> list[int]:
    """Read all that comes."""
    return [int(status) for status in STATUS.findall(client.rest())]


CURIOUS = [
    b"",
    b"\r\n",
    b"\r\n\r\n\r\n\r\n",
    b"\0" * 100,
    b"\xff" * 20_000,
    b"GET",
    b"GET /\r\n",
    b"GET /\r\n\r\n",
    b"GET / HTTP/0.9\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"GET http://x HTTP/1.1\r\nHost: y\r\n\r\n",
    b"GET //x/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /%c3%28 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /\xc3\x28 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(10_000)) + b"\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"y" * 1_000_000,
    b"GET /" + b"y" * 1_000_000,
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\n" + SMUGGLED,
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n" + b"x" * 1000,
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999999\r\n\r\nx",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\nx",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 100_000,
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"a" * 100_000,
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding\x00: chunked\r\n\r\n0\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x55" * 300,
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"USER anonymous\r\nPASS x\r\n",
]


@pytest.mark.parametrize("data", CURIOUS, ids=range(len(CURIOUS)))
def test_known_attacks_are_refused_or_answered(served: Served, data: bytes) -> None:
    found = statuses(served, data)
    assert 500 not in found
    assert not re.search(rb"smuggled", data) or found == [400]


def test_pipelined_attacks_end_with_the_first_refusal(served: Served) -> None:
    assert statuses(served, FINE * 3 + b"BAD\r\n\r\n" + FINE * 3) == [200, 200, 200, 400]


def test_a_client_that_stops_halfway_is_answered_or_let_go(served: Served) -> None:
    whole = b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    with contextlib.ExitStack() as stack:
        halting = []
        for end in range(0, len(whole), 5):
            client = stack.enter_context(served.connect())
            client.send(whole[:end])
            if end % 2 == 0:
                client.finish()
            halting.append(client)
        for client in halting:
            assert set(told(client)) <= {400, 408}
    assert statuses(served, FINE) == [200]


TOKENS = st.sampled_from(
    [
        *(b"GET ", b"PUT ", b"HEAD ", b"OPTIONS ", b"/", b"*", b"%2e%2e", b"%00", b"%", b" HTTP/1.1", b" HTTP/1.0"),
        *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"Host: x\r\n", b"Content-Length: 5\r\n"),
        *(b"Content-Length", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n"),
        *(
            b"5\r\nhello\r\n",
            b"0\r\n\r\n",
            b"fffffff\r\n",
            b"hello",
            b"\xff\xfe",
            b"x-image-meta-a_b: 1\r\n",
            b"A" * 9000,
        ),
    ]
)


@settings(max_examples=300)
@given(pieces=st.lists(st.one_of(TOKENS, st.binary(max_size=40)), max_size=14))
@example(pieces=[b"GET ", b"/", b" HTTP/1.1", b"\r\n", b"Host: x\r\n", b"\r\n"])
def test_any_mixture_of_bytes_gets_no_500(served: Served, pieces: list[bytes]) -> None:
    assert 500 not in statuses(served, b"".join(pieces))


@settings(max_examples=200)
@given(
    line=st.sampled_from([b"PUT /a HTTP/1.1", b"PUT /%41?b HTTP/1.1", b"PUT http://h/a HTTP/1.1"]),
    headers=st.lists(
        st.tuples(
            st.one_of(
                st.sampled_from([b"Content-Length", b"Transfer-Encoding", b"X-A_b", b"X-A-B"]), st.binary(max_size=8)
            ),
            st.sampled_from([b":", b": ", b" : ", b":\t", b""]),
            st.one_of(st.sampled_from([b"5", b"chunked", b"0", b"-1", b"5,5"]), st.binary(max_size=12)),
        ),
        max_size=5,
    ),
    body=st.one_of(st.binary(max_size=60), st.just(b"5\r\nhello\r\n0\r\n\r\n")),
)
def test_any_headers_and_body_get_no_500_and_smuggle_nothing(
    served: Served, line: bytes, headers: list[tuple[bytes, bytes, bytes]], body: bytes
) -> None:
    lines = b"".join(name + colon + value + b"\r\n" for name, colon, value in headers)
    found = statuses(served, line + b"\r\nHost: x\r\n" + lines + b"\r\n" + body)
    assert 500 not in found
    assert found.count(200) <= 1 or b"HTTP/1." in body

# SPDX-License-Identifier: Apache-2.0
"""Heads of requests: what is taken, what is refused, and what the application gets to see."""

from collections.abc import Iterable
from typing import Any

import pytest

from tests.edge.conftest import Serve

LIMIT = 8192


class Mirror:
    """An application that shows the environ it was called with."""

    def __init__(self) -> None:
        self.environs: list[dict[str, Any]] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.environs.append(environ)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["PATH_INFO"].encode("latin-1")]


def head(line: str, *headers: str) -> bytes:
    return "\r\n".join([line, *headers, "", ""]).encode("latin-1")


def headers_of(size: int, *, count: int = 1) -> list[str]:
    """Header lines that take exactly `size` bytes with their CRLFs, Host among them."""
    lines = ["Host: x", *(f"X-{number}: " for number in range(count))]
    missing = size - sum(len(line) + 2 for line in lines)
    return [*lines[:-1], lines[-1] + "v" * missing]


@pytest.mark.parametrize("count", [1, 50])
def test_headers_of_exactly_the_limit_work(serve: Serve, count: int) -> None:
    mirror = Mirror()
    with serve(mirror).connect() as client:
        assert client.ask(head("GET / HTTP/1.1", *headers_of(LIMIT, count=count))).status == 200
        assert client.ask(head("GET / HTTP/1.1", *headers_of(LIMIT, count=count))).status == 200
    assert len(mirror.environs) == 2


@pytest.mark.parametrize("count", [1, 50])
def test_one_byte_more_is_431_and_closes(serve: Serve, count: int) -> None:
    mirror = Mirror()
    with serve(mirror).connect() as client:
        answer = client.ask(head("GET / HTTP/1.1", *headers_of(LIMIT + 1, count=count)))
        assert (answer.status, answer.closes) == (431, True)
        assert b"urn:glancefs:error:headers-too-large" in answer.body
        assert client.rest() == b""
    assert not mirror.environs


def test_a_long_path_does_not_count_against_the_headers(serve: Serve) -> None:
    with serve(Mirror()).connect() as client:
        path = "/" + "p" * 8000
        assert client.ask(head(f"GET {path} HTTP/1.1", *headers_of(LIMIT))).body == path.encode()


def test_a_request_line_beyond_the_limit_is_414(serve: Serve) -> None:
    with serve(Mirror()).connect() as client:
        assert client.ask(head(f"GET /{'p' * LIMIT} HTTP/1.1", "Host: x")).status == 414
    with serve(Mirror()).connect() as client:
        assert client.ask(b"GET /" + b"p" * 10_000).status == 414


def test_headers_that_never_end_are_refused_at_the_limit(serve: Serve) -> None:
    with serve(Mirror()).connect() as client:
        assert client.ask(b"GET / HTTP/1.1\r\nX: " + b"y" * 9000).status == 431


def test_underscores_of_the_api_reach_the_application(serve: Serve) -> None:
    mirror = Mirror()
    with serve(mirror).connect() as client:
        client.ask(head("GET / HTTP/1.1", "Host: x", "x-image-meta-is_public: True", "X-Image-Meta-name:  n "))
    environ = mirror.environs[0]
    assert environ["HTTP_X_IMAGE_META_IS_PUBLIC"] == "True"
    assert environ["HTTP_X_IMAGE_META_NAME"] == "n"
    assert environ["glancefs.header_fields"] == (
        (b"Host", b"x"),
        (b"x-image-meta-is_public", b"True"),
        (b"X-Image-Meta-name", b"n"),
    )


@pytest.mark.parametrize(
    "name",
    [
        "Content_Length",
        "Transfer_Encoding",
        "Content_Type",
        "Authorization_",
        "Proxy",
        "Remote_User",
        "X_Forwarded_For",
        "X-Forwarded_For",
        "x-forwarded_host",
        "X-Real_IP",
        "X-Auth_Token",
        "If_Match",
        "Host_",
    ],
)
def test_underscore_forms_of_headers_that_carry_trust_are_dropped(serve: Serve, name: str) -> None:
    mirror = Mirror()
    with serve(mirror).connect() as client:
        assert client.ask(head("GET / HTTP/1.1", "Host: x", f"{name}: 7")).status == 200
    assert "7" not in mirror.environs[0].values()


@pytest.mark.parametrize(
    "pair",
    [
        ("x-image-meta-is_public: 1", "x-image-meta-is-public: 0"),
        ("x-image-meta-property-a_b: 1", "X-Image-Meta-Property-A-B: 1"),
    ],
)
def test_two_headers_that_differ_in_a_dash_alone_are_refused(serve: Serve, pair: tuple[str, str]) -> None:
    mirror = Mirror()
    for order in (pair, pair[::-1]):
        with serve(mirror).connect() as client:
            assert client.ask(head("GET / HTTP/1.1", "Host: x", *order)).status == 400
    assert not mirror.environs


@pytest.mark.parametrize(
    "lines",
    [
        ["Host: x", "Content-Length: 5", "Content-Length: 5"],
        ["Host: x", "Content-Length: 5", "Content-Length: 6"],
        ["Host: x", "Content-Length: -5"],
        ["Host: x", "Content-Length: +5"],
        ["Host: x", "Content-Length: 5, 5"],
        ["Host: x", "Content-Length: 0x5"],
        ["Host: x", "Content-Length: 5 5"],
        ["Host: x", "Content-Length: "],
        ["Host: x", "Content-Length: \xb2"],
        ["Host: x", "Content-Length: " + "9" * 30],
        ["Host: x", "Content-Length : 5"],
        ["Host: x", " Content-Length: 5"],
        ["Host: x", "X: y", "\tfolded"],
        ["Host: x", "Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Host: x", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        ["Host: x", "no colon"],
        ["Host: x", ": no name"],
        ["Host: x", "na me: v"],
        ["Host: x", "nam\xe9: v"],
        ["Host: x", "X: a\x00b"],
        ["Host: x", "X: a\rb"],
        ["Host: x", "X: a\nContent-Length: 5"],
        ["Host: x", "X: \x1b[31m"],
        ["Host: x", "Host: y"],
        ["Host: x", "Authorization: a", "Authorization: b"],
        ["Host: x/y"],
        ["Host: x y"],
        [],
    ],
)
def test_what_two_readers_could_read_differently_is_refused(serve: Serve, lines: list[str]) -> None:
    mirror = Mirror()
    with serve(mirror).connect() as client:
        answer = client.ask(head("PUT / HTTP/1.1", *lines) + b"hello")
        assert (answer.status, answer.closes) == (400, True)
        assert answer.headers["content-type"] == "application/problem+json"
        assert client.rest() == b""
    assert not mirror.environs


@pytest.mark.parametrize("coding", ["gzip", "chunked, identity", "gzip, chunked", "xchunked", "identity", ""])
def test_an_unknown_transfer_coding_is_501(serve: Serve, coding: str) -> None:
    with serve(Mirror()).connect() as client:
        assert client.ask(head("PUT / HTTP/1.1", "Host: x", f"Transfer-Encoding: {coding}")).status == 501


def test_http_10_has_no_transfer_encoding(serve: Serve) -> None:
    with serve(Mirror()).connect() as client:
        assert client.ask(head("PUT / HTTP/1.0", "Transfer-Encoding: chunked")).status == 400


def test_an_unknown_expectation_is_417(serve: Serve) -> None:
    with serve(Mirror()).connect() as client:
        assert client.ask(head("PUT / HTTP/1.1", "Host: x", "Expect: wonders")).status == 417


def test_one_header_repeated_up_to_the_limit_is_joined(serve: Serve) -> None:
    mirror = Mirror()
    with serve(mirror).connect() as client:
        assert client.ask(head("GET / HTTP/1.1", "Host: x", *["a:"] * 2000)).status == 200
    assert mirror.environs[0]["HTTP_A"] == ", " * 1999


def test_list_headers_are_joined_in_their_order(serve: Serve) -> None:
    mirror = Mirror()
    with serve(mirror).connect() as client:
        client.ask(head("GET / HTTP/1.1", "Host: x", "Accept: a", "Cookie: c=1", "accept: b", "Cookie: d=2"))
    assert mirror.environs[0]["HTTP_ACCEPT"] == "a, b"
    assert mirror.environs[0]["HTTP_COOKIE"] == "c=1; d=2"


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/a%20b?c=%20d", "/a b", "c=%20d"),
        ("/a%2Fb%252F", "/a/b%2F", ""),
        ("//evil/a", "//evil/a", ""),
        ("/%C3%A9", "/\xc3\xa9", ""),
        ("/?a?b", "/", "a?b"),
        ("/a:b@c;d=e", "/a:b@c;d=e", ""),
        ("http://other:80/a?b", "/a", "b"),
        ("HTTP://other", "/", ""),
        ("http://other?b", "/", "b"),
    ],
)
def test_targets_are_split_and_decoded(serve: Serve, target: str, path: str, query: str) -> None:
    mirror = Mirror()
    with serve(mirror).connect() as client:
        assert client.ask(head(f"GET {target} HTTP/1.1", "Host: x")).status == 200
    environ = mirror.environs[0]
    assert (environ["PATH_INFO"], environ["QUERY_STRING"], environ["REQUEST_URI"]) == (path, query, target)


def test_the_host_of_an_absolute_target_wins(serve: Serve) -> None:
    mirror = Mirror()
    with serve(mirror).connect() as client:
        client.ask(head("GET http://real:80/ HTTP/1.1", "Host: claimed"))
    assert mirror.environs[0]["HTTP_HOST"] == "real:80"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /a%00b HTTP/1.1", 400),
        ("GET /%zz HTTP/1.1", 400),
        ("GET /% HTTP/1.1", 400),
        ("GET /%ff HTTP/1.1", 400),
        ("GET /\xff HTTP/1.1", 400),
        ("GET /a#b HTTP/1.1", 400),
        ("GET a HTTP/1.1", 400),
        ("GET * HTTP/1.1", 400),
        ("GET http:/// HTTP/1.1", 400),
        ("GET ftp://x/ HTTP/1.1", 400),
        ("GET http://x y/ HTTP/1.1", 400),
        ("CONNECT x:80 HTTP/1.1", 405),
        ("GET  / HTTP/1.1", 400),
        ("GET /\tHTTP/1.1", 400),
        (" GET / HTTP/1.1", 400),
        ("GET / HTTP/1.1 ", 400),
        ("GET / HTTP/11", 400),
        ("GET / http/1.1", 400),
        ("GET / HTTP/2.0", 505),
        ("GET / HTTP/0.9", 505),
        ("GET /", 400),
        ("G(T / HTTP/1.1", 400),
        ("G" * 100 + " / HTTP/1.1", 400),
    ],
)
def test_other_request_lines_are_refused(serve: Serve, line: str, status: int) -> None:
    mirror = Mirror()
    with serve(mirror).connect() as client:
        answer = client.ask(head(line, "Host: x"))
        assert (answer.status, answer.closes) == (status, True)
    assert not mirror.environs


def test_options_of_the_server_as_a_whole_is_answered(serve: Serve) -> None:
    with serve(Mirror()).connect() as client:
        assert client.ask(head("OPTIONS * HTTP/1.1", "Host: x")).status == 204


def test_bare_line_feeds_are_refused_at_once(serve: Serve) -> None:
    for data in (b"GET / HTTP/1.1\nHost: x\n\n", b"GET / HTTP/1.1\r\nHost: x\n\n", b"GET /\r\n"):
        with serve(Mirror()).connect() as client:
            assert client.ask(data).status == 400


def test_a_head_may_come_byte_by_byte_after_an_empty_line(serve: Serve) -> None:
    with serve(Mirror()).connect() as client:
        for byte in b"\r\nGET /slowly HTTP/1.1\r\nHost: x\r\n\r\n":
            client.send(bytes([byte]))
        assert client.answer().body == b"/slowly"


def test_pipelined_requests_are_answered_in_their_order(serve: Serve) -> None:
    with serve(Mirror()).connect() as client:
        client.send(b"".join(head(f"GET /{number} HTTP/1.1", "Host: x") for number in range(100)))
        assert [client.answer().body for _ in range(100)] == [f"/{number}".encode() for number in range(100)]


@pytest.mark.parametrize(
    ("line", "header", "closes"),
    [
        ("GET / HTTP/1.1", "Connection: close", True),
        ("GET / HTTP/1.1", "Connection: Upgrade, Close", True),
        ("GET / HTTP/1.1", "Connection: keep-alive", False),
        ("GET / HTTP/1.0", "X: y", True),
        ("GET / HTTP/1.0", "Connection: Keep-Alive", False),
    ],
)
def test_a_connection_stays_as_long_as_both_sides_want(serve: Serve, *, line: str, header: str, closes: bool) -> None:
    with serve(Mirror()).connect() as client:
        answer = client.ask(head(line, "Host: x", header))
        assert answer.closes is closes
        if closes:
            assert client.rest() == b""
        else:
            assert client.ask(head("GET /again HTTP/1.1", "Host: x")).body == b"/again"

# SPDX-License-Identifier: Apache-2.0
"""Where a server listens, and over what."""

import socket
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from gateway.http.listen import Address
from gateway.server import Server
from glancefs.errors import ConfigError
from tests.edge.conftest import Serve
from tests.support.certificates import self_signed
from tests.support.rawhttp import PATIENCE, RawClient

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [])
    body = environ["wsgi.input"].read()
    keys = ("wsgi.url_scheme", "REMOTE_ADDR", "SERVER_NAME", "SERVER_PORT")
    return [" ".join(str(environ[key]) for key in keys).encode(), b" ", body]


def make(listen: str, **options: Any) -> Server:
    return Server(app_factory=lambda: app, listen=listen, **options)


def test_port_0_becomes_a_real_port_and_is_announced(serve: Serve) -> None:
    announced: list[str] = []
    server = make("127.0.0.1:0", ready=announced.append)
    server.start()
    try:
        assert announced == [server.url]
        assert server.url.startswith("http://127.0.0.1:")
        port = int(server.address.rpartition(":")[2])
        with RawClient(("127.0.0.1", port)) as client:
            assert client.ask(GET).body == f"http 127.0.0.1 127.0.0.1 {port} ".encode()
    finally:
        server.stop()
    with pytest.raises(ConnectionRefusedError):
        RawClient(("127.0.0.1", port))


def test_ipv6_works(serve: Serve) -> None:
    served = serve(app, listen="[::1]:0")
    assert served.server.address.startswith("[::1]:")
    with served.connect() as client:
        assert client.ask(GET).body.startswith(b"http ::1 ::1 ")


def test_a_unix_socket_works_and_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    for _ in range(2):
        server = make(f"unix:{path}")
        server.start()
        with RawClient(str(path)) as client:
            assert client.ask(GET).body == b"http  localhost 0 "
        server.stop()
        assert not path.exists()


def test_a_socket_that_a_killed_server_left_is_replaced(tmp_path: Path, serve: Serve) -> None:
    path = tmp_path / "gateway.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with serve(app, listen=f"unix:{path}").connect() as client:
        assert client.ask(GET).status == 200


def test_what_is_in_use_is_one_clear_error(serve: Serve, tmp_path: Path) -> None:
    taken = serve(app).server.address
    with pytest.raises(ConfigError, match=f"Can't listen at {taken}: another program listens there already"):
        make(taken).start()
    path = tmp_path / "gateway.sock"
    serve(app, listen=f"unix:{path}")
    with pytest.raises(ConfigError, match="another program listens there already"):
        make(f"unix:{path}").start()
    (tmp_path / "file").write_text("not a socket")
    with pytest.raises(ConfigError, match="not a socket"):
        make(f"unix:{tmp_path / 'file'}").start()


@pytest.mark.parametrize(
    "text", ["", "9292", ":9292", "host", "host:", "host:x", "host:65536", "host:-1", "::1:80", "unix:", "h:\u0663"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        Address.parse(text)


@pytest.mark.parametrize("text", ["127.0.0.1:9292", "[::1]:80", "localhost:0", "unix:/run/x.sock"])
def test_an_address_comes_back_as_it_was_written(text: str) -> None:
    assert str(Address.parse(text)) == text


def test_tls_works_both_ways(serve: Serve, tmp_path: Path) -> None:
    served = serve(app, tls_cert=self_signed(tmp_path))
    assert served.server.url.startswith("https://")
    data = b"x" * 3_000_000
    with served.connect() as client:
        for _ in range(2):
            client.send(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" + data)
            answer = client.answer()
            assert answer.body.startswith(b"https 127.0.0.1 ")
            assert answer.body.endswith(b" " + data)


def test_tls_11_is_refused(serve: Serve, tmp_path: Path) -> None:
    served = serve(app, tls_cert=self_signed(tmp_path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    assert isinstance(served.target, tuple)
    with socket.create_connection(served.target, timeout=PATIENCE) as raw, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(raw)
    with served.connect() as client:
        assert client.ask(GET).status == 200


@pytest.mark.parametrize("data", [GET, b"DELETE / HTTP/1.1\r\n\r\n", b"hello\r\n"])
def test_plain_http_to_a_tls_port_is_told_so(serve: Serve, tmp_path: Path, data: bytes) -> None:
    served = serve(app, tls_cert=self_signed(tmp_path))
    with RawClient(served.target) as client:
        answer = client.ask(data)
        assert (answer.status, answer.closes) == (400, True)
        assert b"HTTPS" in answer.body


def test_silent_and_broken_tls_clients_hold_nobody_up(serve: Serve, tmp_path: Path) -> None:
    served = serve(app, tls_cert=self_signed(tmp_path), max_uploads=1, max_downloads=1, reserve=1)
    clients = [RawClient(served.target) for _ in range(20)]
    for number, client in enumerate(clients):
        client.send(b"\x16\x03\x01\x02\x00"[: number % 6])
    try:
        with served.connect() as client:
            assert client.ask(GET).status == 200
    finally:
        for client in clients:
            client.sock.close()


def test_a_handshake_has_a_deadline(serve: Serve, tmp_path: Path) -> None:
    served = serve(app, tls_cert=self_signed(tmp_path), head_timeout=0.2)
    with RawClient(served.target) as client:
        client.send(b"\x16\x03\x01")
        assert client.rest() == b""


@pytest.mark.parametrize("content", [None, "", "-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----\n"])
def test_a_certificate_that_does_not_work_is_one_clear_error(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "cert.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"cert\.pem"):
        make("127.0.0.1:0", tls_cert=path).start()
    with pytest.raises(ConfigError, match="needs its certificate"):
        make("127.0.0.1:0", tls_key=path).start()

# SPDX-License-Identifier: Apache-2.0
"""The client against servers that misbehave: early refusals, broken connections, strange answers.

A scripted server speaks through a plain socket, so that every test says byte by byte what the client meets.

Threading: the scripted server answers in a thread of its own, one connection after the other.
"""

from __future__ import annotations

import hashlib
import io
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from glancefs import errors, exception
from glancefs.client import Client
from glancefs.transfer import Upload

DATA = bytes(range(256)) * 12_288
CHECKSUM = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
BIG = 8 << 20


class Exchange:
    """One connection as the scripted server sees it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.file = connection.makefile("rb")

    def head(self) -> str:
        """Read a request's head."""
        lines = []
        while (line := self.file.readline()) not in {b"\r\n", b""}:
            lines.append(line.decode("latin-1"))
        return "".join(lines)

    def send(self, *pieces: bytes | str) -> None:
        """Send what the client gets to see."""
        for piece in pieces:
            self.connection.sendall(
                piece if isinstance(piece, bytes) else piece.replace("\n", "\r\n").encode("latin-1")
            )


Handler = Callable[[Exchange], object]


@contextmanager
def scripted(*handlers: Handler) -> Iterator[Client]:
    """Give a client of a server that handles one connection with each of these."""
    failures: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)

        def serve() -> None:
            try:
                for handler in handlers:
                    connection, _ = listener.accept()
                    connection.settimeout(20)
                    with connection:
                        exchange = Exchange(connection)
                        with exchange.file:
                            handler(exchange)
            except BaseException as error:  # noqa: BLE001 - the test raises it again
                failures.append(error)
            finally:
                listener.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with Client("127.0.0.1", listener.getsockname()[1], timeout=10) as client:
                yield client
        finally:
            thread.join(30)
    if failures:
        raise failures[0]


def problem(status: str, code: str, detail: str, *, close: bool = True) -> str:
    body = f'{{"type": "urn:glancefs:error:{code}", "title": "x", "detail": "{detail}"}}'
    connection = "close" if close else "keep-alive"
    return (
        f"HTTP/1.1 {status}\nContent-Type: application/problem+json\nConnection: {connection}\n"
        f"Content-Length: {len(body)}\n\n{body}"
    )


def answer(status: str, *headers: str, length: int | None = None) -> str:
    lines = [f"HTTP/1.1 {status}", "Connection: close", *headers]
    return "\n".join([*lines, f"Content-Length: {length or 0}", "", ""])


def image_answer(*headers: str, length: int = len(DATA), status: str = "200 OK", checksum: str = CHECKSUM) -> str:
    meta = [f"x-image-meta-size: {len(DATA)}", f"x-image-meta-checksum: {checksum}", f'ETag: "{checksum}"']
    return answer(status, *meta, *headers, length=length)


CREATED = 'HTTP/1.1 201 Created\nConnection: close\nContent-Length: 25\n\n{"image": {"id": "fresh"}}'.replace(
    "25", "26"
)


def refuse_before_the_body(exchange: Exchange) -> None:
    assert "Expect: 100-continue" in exchange.head()
    exchange.send(problem("409 Conflict", "duplicate", "The id is taken."))
    assert exchange.file.read() == b""


def test_a_refusal_of_the_headers_spares_the_body() -> None:
    asked = []

    def blocks() -> Iterator[bytes]:
        asked.append(1)
        yield DATA

    with scripted(refuse_before_the_body) as client, pytest.raises(exception.Duplicate, match="The id is taken"):
        client.add_image({"name": "a", "type": "raw", "id": "taken"}, blocks())
    assert asked == []


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        ("507 Insufficient Storage", "store-full", errors.StoreFull),
        ("413 Content Too Large", "upload-too-large", errors.UploadTooLarge),
        ("409 Conflict", "immutable-image", errors.ImmutableImage),
        ("503 Service Unavailable", "too-many-uploads", errors.TooManyUploads),
    ],
)
def test_a_refusal_in_the_middle_is_told_and_not_the_broken_pipe(
    status: str, code: str, error: type[errors.GlancefsError]
) -> None:
    def refuse(exchange: Exchange) -> None:
        exchange.head()
        exchange.send("HTTP/1.1 100 Continue\n\n")
        exchange.file.read(1 << 20)
        exchange.send(problem(status, code, "No more."))

    sent: list[int] = []
    with scripted(refuse) as client, pytest.raises(error, match="No more"):
        client.add_image({"name": "a", "type": "raw"}, io.BytesIO(bytes(64 << 20)), progress=sent.append)
    assert sum(sent) < 64 << 20


def test_a_server_that_never_says_continue_gets_the_body() -> None:
    def take(exchange: Exchange) -> None:
        head = exchange.head()
        assert f"Content-Length: {BIG}\r\n" in head
        assert exchange.file.read(BIG) == bytes(BIG)
        exchange.send(CREATED)

    with scripted(take) as client:
        assert client.add_image({"name": "a", "type": "raw"}, bytes(BIG))["id"] == "fresh"


def test_an_iterator_travels_in_chunks() -> None:
    def take(exchange: Exchange) -> None:
        head = exchange.head()
        assert "Transfer-Encoding: chunked" in head
        assert "Content-Length" not in head
        exchange.send("HTTP/1.1 100 Continue\n\n")
        assert exchange.file.read(20) == b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        exchange.send(CREATED)

    with scripted(take) as client:
        assert client.add_image({"name": "a", "type": "raw"}, iter([b"abc", b"", b"de"]))["id"] == "fresh"


def test_an_iterator_that_fails_ends_the_upload_with_its_own_error() -> None:
    def take(exchange: Exchange) -> None:
        exchange.head()
        exchange.send("HTTP/1.1 100 Continue\n\n")
        assert not exchange.file.read().endswith(b"0\r\n\r\n")

    def blocks() -> Iterator[bytes]:
        yield b"abc"
        raise LookupError("lost")

    with scripted(take) as client, pytest.raises(LookupError, match="lost"):
        client.add_image({"name": "a", "type": "raw"}, blocks())


@pytest.mark.parametrize(
    ("size", "said"), [(3 << 20, "bytes before"), (BIG + 1, "on after"), (BIG << 1, "on after")], ids=str
)
def test_a_file_that_changes_its_size_while_it_is_sent_is_no_image(tmp_path: Path, size: int, said: str) -> None:
    file = tmp_path / "image"
    file.write_bytes(bytes(BIG))

    def take(exchange: Exchange) -> None:
        exchange.head()
        os.truncate(file, size)
        exchange.send("HTTP/1.1 100 Continue\n\n")
        assert len(exchange.file.read()) < BIG

    with scripted(take) as client, file.open("rb") as data, pytest.raises(EOFError, match=f"{said} their end"):
        client.add_image({"name": "a", "type": "raw"}, data)


def broken_after(count: int) -> Handler:
    def handle(exchange: Exchange) -> None:
        exchange.head()
        exchange.send(image_answer(), DATA[:count])

    return handle


def rest_from(count: int) -> Handler:
    def handle(exchange: Exchange) -> None:
        head = exchange.head()
        assert f"Range: bytes={count}-{len(DATA) - 1}\r\n" in head
        assert f'If-Range: "{CHECKSUM}"\r\n' in head
        range_ = f"Content-Range: bytes {count}-{len(DATA) - 1}/{len(DATA)}"
        exchange.send(image_answer(range_, status="206 Partial Content", length=len(DATA) - count), DATA[count:])

    return handle


def test_a_broken_download_goes_on_where_it_broke() -> None:
    with scripted(broken_after(1_500_000), rest_from(1_500_000)) as client:
        meta, chunks = client.get_image("1")
        assert b"".join(chunks) == DATA
    assert meta["size"] == len(DATA)


def test_a_server_without_ranges_is_read_again_from_the_start() -> None:
    def whole(exchange: Exchange) -> None:
        exchange.head()
        exchange.send(image_answer(), DATA)

    with scripted(broken_after(1_500_000), whole) as client:
        assert b"".join(client.get_image("1")[1]) == DATA


def test_a_server_that_is_busy_for_a_while_is_asked_again() -> None:
    def busy(exchange: Exchange) -> None:
        exchange.head()
        exchange.send(problem("503 Service Unavailable", "unavailable", "Later."))

    with scripted(broken_after(10), busy, rest_from(10)) as client:
        assert b"".join(client.get_image("1")[1]) == DATA


def test_an_image_that_vanishes_meanwhile_is_not_found() -> None:
    def gone(exchange: Exchange) -> None:
        exchange.head()
        exchange.send(problem("404 Not Found", "image-not-found", "Gone."))

    with scripted(broken_after(10), gone) as client, pytest.raises(exception.NotFound, match="Gone"):
        b"".join(client.get_image("1")[1])


def test_another_image_in_the_same_place_is_not_glued_on() -> None:
    def other(exchange: Exchange) -> None:
        exchange.head()
        # The client may hang up as soon as it has read the head.
        with suppress(ConnectionError):
            exchange.send(image_answer(checksum="sha256:" + "0" * 64), DATA)

    with scripted(broken_after(10), other) as client, pytest.raises(errors.StaleImage):
        b"".join(client.get_image("1")[1])


def test_a_server_that_stays_away_ends_the_download() -> None:
    with (
        scripted(broken_after(10)) as listening,
        Client(listening.url, tries=2) as client,
        pytest.raises(exception.ServiceUnavailable),
    ):
        b"".join(client.get_image("1")[1])


def test_data_with_another_checksum_are_told() -> None:
    def wrong(exchange: Exchange) -> None:
        exchange.head()
        exchange.send(image_answer(), bytes(len(DATA)))

    with scripted(wrong) as client, pytest.raises(errors.ChecksumMismatch):
        b"".join(client.get_image("1")[1])


@pytest.mark.parametrize("started", [False, True])
def test_a_download_that_is_given_up_frees_its_connection(started: bool) -> None:  # noqa: FBT001 - a case of the table
    def endless(exchange: Exchange) -> None:
        exchange.head()
        # Nobody waits for the rest: the connection ends, politely or not, perhaps before all of this is sent.
        with suppress(ConnectionError):
            exchange.send(image_answer(), DATA[: 2 << 20])
            assert exchange.connection.recv(1) == b""

    with scripted(endless) as client:
        _, chunks = client.get_image("1")
        if started:
            next(chunks)
        chunks.close()


def test_an_image_may_have_hundreds_of_properties() -> None:
    headers = [f"x-image-meta-property-key_{number}: {'x' * 20}" for number in range(2000)]

    def many(exchange: Exchange) -> None:
        exchange.head()
        exchange.send(answer("200 OK", *headers, "x-image-meta-name: a", f"x-image-meta-property-long: {'y' * 60_000}"))

    with scripted(many) as client:
        meta = client.get_image_meta("1")
    assert len(meta["properties"]) == 2001
    assert len(meta["properties"]["long"]) == 60_000
    assert meta["name"] == "a"


def test_credentials_go_nowhere_else() -> None:
    def redirect(exchange: Exchange) -> None:
        exchange.head()
        exchange.send(answer("302 Found", "Location: http://127.0.0.1:1/images/1"))

    with scripted(redirect) as client, pytest.raises(errors.GlancefsError, match="302 Found"):
        client.get_image("1")


def test_a_uri_of_another_server_is_refused() -> None:
    def say(exchange: Exchange) -> None:
        assert exchange.head().startswith("HEAD /images/7 ")
        exchange.send(answer("200 OK", "x-image-meta-uri: http://images.example/images/7"))

    with scripted(say) as client, pytest.raises(exception.BadRequest, match="not an image of"):
        client.delete_image("http://elsewhere.example/images/7")


def test_a_server_behind_a_proxy_is_known_by_what_it_calls_itself() -> None:
    def say(exchange: Exchange) -> None:
        assert exchange.head().startswith("HEAD /images/7 ")
        exchange.send(answer("200 OK", "x-image-meta-uri: https://images.example/glance/images/7"))

    def delete(exchange: Exchange) -> None:
        assert exchange.head().startswith("DELETE /images/7 ")
        exchange.send(answer("200 OK"))

    with scripted(say, delete) as client:
        client.delete_image("https://images.example/glance/images/7")
        assert client.url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("400 Bad Request", exception.BadRequest),
        ("401 Unauthorized", exception.NotAuthorized),
        ("403 Forbidden", exception.Forbidden),
        ("404 Not Found", exception.NotFound),
        ("409 Conflict", errors.Conflict),
        ("431 Request Header Fields Too Large", errors.HeadersTooLarge),
        ("502 Bad Gateway", exception.ServiceUnavailable),
        ("503 Service Unavailable", exception.ServiceUnavailable),
        ("507 Insufficient Storage", errors.StoreFull),
        ("500 Internal Server Error", errors.GlancefsError),
    ],
)
def test_answers_of_others_become_errors_by_their_status(status: str, error: type[errors.GlancefsError]) -> None:
    page = "<html>proxy</html>"

    def say(exchange: Exchange) -> None:
        exchange.head()
        exchange.send(answer(status, length=len(page)), page)

    with scripted(say) as client, pytest.raises(error, match=status[:3]) as caught:
        client.delete_image("1")
    assert type(caught.value) is error


@pytest.mark.parametrize("body", ["", "[1]", "hello", '{"images": 3}', '{"images": [3]}'])
def test_what_no_image_server_says_is_told_in_a_sentence(body: str) -> None:
    def say(exchange: Exchange) -> None:
        exchange.head()
        exchange.send(answer("200 OK", length=len(body)), body)

    with scripted(say) as client, pytest.raises(exception.ServiceUnavailable, match="image server"):
        client.get_images()


def test_a_server_that_hangs_up_on_a_question_is_asked_again() -> None:
    def hang_up(exchange: Exchange) -> None:
        exchange.head()

    def say(exchange: Exchange) -> None:
        exchange.head()
        exchange.send(answer("200 OK", length=14), '{"images": []}')

    with scripted(hang_up, say) as client:
        assert client.get_images() == []


def test_a_server_that_hangs_up_on_a_change_is_not_asked_again() -> None:
    def hang_up(exchange: Exchange) -> None:
        exchange.head()

    with scripted(hang_up) as client, pytest.raises(exception.ServiceUnavailable, match="broke the connection"):
        client.add_image({"name": "a", "type": "raw"}, b"data")


def test_nobody_there_is_told_in_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Client("127.0.0.1", port) as client, pytest.raises(exception.ServiceUnavailable) as caught:
        client.get_images()
    assert str(caught.value) == f"http://127.0.0.1:{port} can't be reached: Connection refused."


def test_a_server_without_tls_is_told_in_one_sentence() -> None:
    def plain(exchange: Exchange) -> None:
        exchange.connection.recv(4096)
        exchange.send(answer("400 Bad Request"))

    with (
        scripted(plain) as listening,
        Client(listening.url.replace("http:", "https:")) as client,
        pytest.raises(exception.ServiceUnavailable, match="can't be trusted") as caught,
    ):
        client.add_image({"name": "a", "type": "raw"})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "url"),
    [
        (("glance.example", 9292), "http://glance.example:9292"),
        (("glance.example",), "http://glance.example:9292"),
        (("glance.example:80",), "http://glance.example:80"),
        (("::1", 80), "http://[::1]:80"),
        (("[::1]",), "http://[::1]:9292"),
        (("https://glance.example/images-of/us/",), "https://glance.example/images-of/us"),
    ],
)
def test_a_server_is_named_by_host_and_port_or_by_url(arguments: tuple[str, int], url: str) -> None:
    with Client(*arguments) as client:
        assert client.url == url
    with Client("glance.example", 1, use_ssl=True) as client:
        assert client.url == "https://glance.example:1"


@pytest.mark.parametrize("url", ["ftp://h", "http://", "http://ann:pw@h", "http://h:99999"])
def test_what_is_no_server_is_refused(url: str) -> None:
    with pytest.raises(exception.BadRequest):
        Client(url)


@pytest.mark.parametrize("uri", ["", "a/b", "http://h/other/1", "http://h/images/", "http://h/images/a%2Fb"])
def test_what_is_no_image_is_refused(uri: str) -> None:
    with Client("127.0.0.1", 1) as client, pytest.raises(exception.BadRequest):
        client.get_image_meta(uri)


def test_text_is_no_data() -> None:
    with pytest.raises(TypeError, match="not text"):
        Upload("text")  # type: ignore[arg-type]  # the mistake that the test makes


def test_the_sizes_of_sources_are_found(tmp_path: Path) -> None:
    file = tmp_path / "image"
    file.write_bytes(b"0123456789")
    with file.open("rb") as data:
        data.seek(4)
        assert Upload(data).size == 6
        assert b"".join(Upload(data).blocks()) == b"456789"
    with file.open("rb", buffering=0) as raw:
        assert Upload(raw).size == 10
    with file.open(encoding="ascii") as text:
        upload = Upload(text)
        assert upload.size == 10
        assert b"".join(upload.blocks()) == b"0123456789"
    assert Upload(io.BytesIO(b"abc")).size == 3
    assert Upload(memoryview(b"abc")).size == 3
    assert Upload(iter([b"abc"])).size is None


def test_a_pipe_is_sent_as_it_comes() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as data:
        upload = Upload(data)
        assert upload.size is None
        blocks = upload.blocks()
        with os.fdopen(writing, "wb", buffering=0) as end:
            end.write(b"first")
            assert next(blocks) == b"first"
            end.write(b"second")
            assert next(blocks) == b"second"
        assert list(blocks) == []
        assert upload.is_complete

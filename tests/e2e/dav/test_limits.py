# SPDX-License-Identifier: Apache-2.0
"""What the door stands: images larger than its memory, full disks, clients that vanish or are slower than any."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.conftest import Serve
from tests.e2e.test_limits import files_in, wait_until_nothing_is_kept
from tests.support.dav_folder import DavFolder
from tests.support.mounts import mounted
from tests.support.processes import run
from tests.support.rawhttp import RawClient
from tests.support.servers import RunningServer

MEBI = 1 << 20
MOST_MEMORY = 100 * MEBI


def root_of(server: RunningServer) -> DavFolder:
    """The door's root on a server of the test's own."""
    return DavFolder(server=server, path="/dav")


def begin_put(server: RunningServer, path: str, framing: str, sent: bytes = b"") -> RawClient:
    """Begin to put a file, and stop in the middle."""
    client = RawClient((server.host, server.port))
    client.send(f"PUT /dav/{path} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode() + sent)
    return client


def check_memory(server: RunningServer, tmp_path: Path, *, size: int) -> None:
    """Put and fetch a file of this size, mostly a hole, and look at the server's memory."""
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.write(os.urandom(4096))
        file.truncate(size)
    folder = root_of(server)
    folder.names()
    server.forget_peaks()
    run(["curl", "-sS", "--fail", "-T", sparse, f"{folder.url}/large.img"], timeout=300)
    assert server.peak_memory() < MOST_MEMORY
    assert folder.images()["large.img"]["size"] == str(size)
    fetch_and_compare = 'set -o pipefail; curl -sS --fail "$1" | cmp - "$2"'
    run(["bash", "-c", fetch_and_compare, "-", f"{folder.url}/large.img", sparse], timeout=300)
    assert server.peak_memory() < MOST_MEMORY


@pytest.mark.needs("curl")
def test_a_file_of_512_mib_goes_through_100_mb_of_memory(serve: Serve, tmp_path: Path) -> None:
    check_memory(serve(), tmp_path, size=512 * MEBI)


@pytest.mark.needs("curl")
@pytest.mark.soak
def test_a_file_of_4_gib_goes_through_100_mb_of_memory(serve: Serve, tmp_path: Path) -> None:
    check_memory(serve(), tmp_path, size=4096 * MEBI)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MiB. Named before `serve`, it goes after the servers on it."""
    with mounted(tmp_path, kind="tmpfs", size=64 * MEBI) as place:
        yield place


@pytest.mark.needs("root")
def test_a_full_disk_is_told_and_keeps_nothing_of_it(small_disk: Path, serve: Serve) -> None:
    server = serve(data=small_disk / "data")
    folder = root_of(server)
    folder.put("kept.img", b"x" * MEBI)
    kept = files_in(server)
    with begin_put(server, "a.img", f"Expect: 100-continue\r\nContent-Length: {100 * MEBI}") as client:
        assert client.answer().status == 507
    with begin_put(server, "a.img", "Transfer-Encoding: chunked") as client, ThreadPoolExecutor(1) as sender:
        sending = sender.submit(client.send, 100 * (b"100000\r\n" + b"x" * MEBI + b"\r\n"))
        assert client.answer().status == 507
        with suppress(OSError):
            client.sock.shutdown(socket.SHUT_RDWR)
        # The server closes while there is more to come.
        sending.exception()
    assert files_in(server) == kept
    assert folder.names() == ["kept.img"]
    assert folder.put("a.img", b"y" * 10 * MEBI).status == 201
    # A copy takes no room, or is refused as what takes too much.
    assert folder.ask("COPY", "a.img", {"Destination": f"{folder.url}/b.img"}).status in {201, 507}


@pytest.mark.parametrize(
    ("framing", "sent"),
    [
        ("Content-Length: 10000000", b""),
        ("Content-Length: 10000000", b"x" * 5_000_000),
        ("Transfer-Encoding: chunked", b"100000\r\n" + b"x" * MEBI + b"\r\n100000\r\nxx"),
    ],
    ids=["nothing sent", "half sent", "chunks"],
)
def test_a_put_that_is_cut_leaves_nothing(serve: Serve, framing: str, sent: bytes) -> None:
    server = serve()
    folder = root_of(server)
    begin_put(server, "a.img", framing, sent).sock.close()
    wait_until_nothing_is_kept(server)
    assert folder.names() == []
    assert folder.images() == {}


def test_a_put_that_is_cut_leaves_what_it_was_to_replace(serve: Serve) -> None:
    server = serve()
    folder = root_of(server)
    folder.put("a.img", b"before")
    kept = files_in(server)
    with begin_put(server, "a.img", "Content-Length: 10000000", b"x" * 5_000_000) as client:
        client.finish()
        assert client.answer().status == 400
    assert folder.get("a.img") == b"before"
    assert files_in(server) == kept


def test_others_are_answered_while_50_clients_put_slowly(serve: Serve) -> None:
    server = serve()
    folder = root_of(server)
    folder.put("kept.img", b"data")
    slow = [begin_put(server, f"slow-{number}.img", "Content-Length: 100000", b"x") for number in range(50)]
    assert folder.get("kept.img") == b"data"
    assert folder.names() == ["kept.img"]
    assert folder.put("new.img", b"new").status in {201, 503}
    statuses = []
    for client in slow:
        with client, ThreadPoolExecutor(1) as sender:
            # Whoever is refused may find the connection closed while still sending.
            sending = sender.submit(client.send, b"y" * 99_999)
            answer = client.answer()
            sending.exception()
        statuses.append(answer.status)
        assert answer.status == 201 or int(answer.headers["retry-after"]) > 0
    assert set(statuses) <= {201, 503}
    assert statuses.count(201) >= 30
    assert sum(name.startswith("slow-") for name in folder.names()) == statuses.count(201)


def test_others_are_answered_while_clients_read_slowly(serve: Serve) -> None:
    server = serve()
    folder = root_of(server)
    folder.put("large.img", bytes(32 * MEBI))
    readers = [RawClient((server.host, server.port)) for _ in range(20)]
    for reader in readers:
        reader.send(b"GET /dav/large.img HTTP/1.1\r\nHost: x\r\n\r\n")
        assert reader.line() == b"HTTP/1.1 200 OK"
    assert folder.names() == ["large.img"]
    assert folder.put("new.img", b"new").status == 201
    for reader in readers:
        reader.sock.close()

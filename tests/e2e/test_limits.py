# SPDX-License-Identifier: Apache-2.0
"""What the server stands: images larger than its memory, clients slower than any, full disks, being stopped."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from glancefs.stores.owner import NOTE
from tests.e2e.conftest import Serve
from tests.e2e.stingy import Stingy
from tests.e2e.ways import curl
from tests.support.mounting import eventually
from tests.support.mounts import mounted
from tests.support.processes import PATIENCE, Processes, product, run
from tests.support.rawhttp import RawClient
from tests.support.servers import RunningServer

MEBI = 1 << 20
HEAD = "x-image-meta-name: slow\r\nx-image-meta-type: raw\r\n"
META = {"x-image-meta-name": "an image", "x-image-meta-type": "raw"}
MOST_MEMORY = 100 * MEBI


def files_in(server: RunningServer) -> list[Path]:
    """Every image of the store, complete or not."""
    return [path for path in (server.data / "images").rglob("*") if path.is_file() and path.name != NOTE]


def wait_until_nothing_is_kept(server: RunningServer) -> None:
    """Wait until the server has noticed that a client is gone, and has cleared away what it sent."""
    deadline = time.monotonic() + PATIENCE
    while files_in(server):
        assert time.monotonic() < deadline, files_in(server)
        time.sleep(0.02)


def begin_upload(server: RunningServer, *, size: int, sent: int, expect: bool = False) -> RawClient:
    """Begin to send an image, and stop in the middle."""
    client = RawClient((server.host, server.port))
    ask = "Expect: 100-continue\r\n" if expect else ""
    client.send(f"POST /images/ HTTP/1.1\r\nHost: x\r\n{HEAD}{ask}Content-Length: {size}\r\n\r\n".encode())
    client.send(b"x" * sent)
    return client


# Memory


def check_memory(server: RunningServer, tmp_path: Path, *, size: int) -> None:
    """Send and fetch an image of this size, mostly a hole, and look at the server's memory."""
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.write(os.urandom(4096))
        file.truncate(size)
    server.ask("GET", "/healthcheck")
    server.forget_peaks()
    meta = ["-H", "x-image-meta-name: large", "-H", "x-image-meta-type: raw"]
    answer = run(["curl", "-sS", "--fail", "-X", "POST", "-T", sparse, *meta, f"{server.url}/images"], timeout=300)
    assert f'"size": "{size}"' in answer.out
    assert server.peak_memory() < MOST_MEMORY
    fetch_and_compare = 'set -o pipefail; curl -sS --fail "$1" | cmp - "$2"'
    run(["bash", "-c", fetch_and_compare, "-", f"{server.url}/images/1", sparse], timeout=300)
    assert server.peak_memory() < MOST_MEMORY


@pytest.mark.needs("curl")
def test_an_image_of_1_gib_goes_through_100_mb_of_memory(serve: Serve, tmp_path: Path) -> None:
    check_memory(serve(), tmp_path, size=1024 * MEBI)


@pytest.mark.needs("curl")
@pytest.mark.soak
def test_an_image_of_4_gib_goes_through_100_mb_of_memory(serve: Serve, tmp_path: Path) -> None:
    check_memory(serve(), tmp_path, size=4096 * MEBI)


# Slow and vanishing clients


def test_others_are_answered_while_50_clients_upload_slowly(serve: Serve) -> None:
    server = serve()
    kept = server.ask("POST", "/images/", META, b"data").image["id"]
    slow = [begin_upload(server, size=100_000, sent=1) for _ in range(50)]
    for path in (f"/images/{kept}", "/images/", "/images/detail", "/healthcheck", "/"):
        assert server.ask("HEAD" if kept in path else "GET", path).status == 200
    assert server.ask("GET", f"/images/{kept}").body == b"data"
    statuses = []
    for client in slow:
        with client, ThreadPoolExecutor(1) as sender:
            # Whoever is refused may find the connection closed while still sending.
            sending = sender.submit(client.send, b"y" * 99_999)
            answer = client.answer()
            sending.exception()
        statuses.append(answer.status)
        assert answer.status in {201, 503}
        assert answer.status == 201 or int(answer.headers["retry-after"]) > 0
    assert statuses.count(201) >= 30
    assert len(server.ask("GET", "/images/?is_public=none").json["images"]) == 1 + statuses.count(201)


@pytest.mark.parametrize("sent", [0, 1, 5 * MEBI])
def test_an_upload_that_is_cut_leaves_nothing(serve: Serve, sent: int) -> None:
    server = serve()
    begin_upload(server, size=10 * MEBI, sent=sent).sock.close()
    wait_until_nothing_is_kept(server)
    assert server.ask("GET", "/images/?is_public=none").json == {"images": []}
    assert server.process.stop() == 0


def test_chunks_that_break_off_leave_nothing(serve: Serve) -> None:
    server = serve()
    with RawClient((server.host, server.port)) as client:
        client.send(f"POST /images/ HTTP/1.1\r\nHost: x\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
        client.send(b"100000\r\n" + b"x" * 0x100000 + b"\r\n100000\r\nxx")
    wait_until_nothing_is_kept(server)
    assert server.ask("GET", "/images/?is_public=none").json == {"images": []}


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MiB. Named before `serve`, it goes after the servers on it."""
    with mounted(tmp_path, kind="tmpfs", size=64 * MEBI) as place:
        yield place


@pytest.mark.needs("root")
def test_a_full_disk_is_told_before_the_data_are_asked_for(small_disk: Path, serve: Serve) -> None:
    server = serve(data=small_disk / "data")
    with begin_upload(server, size=100 * MEBI, sent=0, expect=True) as client:
        assert client.answer().status == 507
    assert files_in(server) == []
    assert server.ask("POST", "/images/", META, b"x" * MEBI).status == 201


@pytest.mark.needs("root")
def test_a_disk_that_fills_up_in_the_middle_keeps_nothing_of_it(small_disk: Path, serve: Serve) -> None:
    server = serve(data=small_disk / "data")
    before = server.ask("POST", "/images/", META, b"x" * MEBI).image["id"]
    kept = files_in(server)
    free = os.statvfs(small_disk).f_bavail
    with RawClient((server.host, server.port)) as client, ThreadPoolExecutor(1) as sender:
        client.send(f"POST /images/ HTTP/1.1\r\nHost: x\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
        sending = sender.submit(client.send, 100 * (b"100000\r\n" + b"x" * MEBI + b"\r\n"))
        assert client.answer().status == 507
        with suppress(OSError):
            client.sock.shutdown(socket.SHUT_RDWR)
        # The server closes while there is more to come.
        sending.exception()
    assert files_in(server) == kept
    assert os.statvfs(small_disk).f_bavail >= free - 64
    assert server.ask("GET", f"/images/{before}").body == b"x" * MEBI
    assert server.ask("POST", "/images/", META, b"y" * 10 * MEBI).status == 201


# Starting and stopping


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_lets_what_is_under_way_finish(serve: Serve, workers: int) -> None:
    server = serve(gateway_workers=workers)
    size = 4 * MEBI
    large = server.ask("POST", "/images/", META, bytes(32 * MEBI)).image["id"]
    with begin_upload(server, size=size, sent=size // 2) as upload, RawClient((server.host, server.port)) as download:
        download.send(f"GET /images/{large} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert download.line() == b"HTTP/1.1 200 OK"
        server.process.send(signal.SIGTERM)
        wait_until_refused(server)
        upload.send(b"y" * (size - size // 2))
        assert upload.answer().status == 201
        assert download.rest().endswith(bytes(32 * MEBI))
    assert server.process.wait() == 0
    again = serve()
    images = again.ask("GET", "/images/?is_public=none").json["images"]
    assert sorted(int(image["size"]) for image in images) == [size, 32 * MEBI]


def wait_until_refused(server: RunningServer) -> None:
    """Wait until nobody listens on the server's port."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection((server.host, server.port), timeout=1).close()
        except OSError:
            return
        assert time.monotonic() < deadline, "still listening"
        time.sleep(0.02)


def test_a_port_in_use_is_said_in_one_line(server: RunningServer, tmp_path: Path) -> None:
    listen = f"{server.host}:{server.port}"
    ended = run([product(), "serve", "--data", tmp_path / "data", "--listen", listen], expect=None)
    assert ended.returncode != 0
    said = (ended.out + ended.err).strip()
    assert len(said.splitlines()) == 1
    assert str(server.port) in said


# Downloads that broke off


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_download_that_was_interrupted_goes_on_where_it_broke(
    server: RunningServer, processes: Processes, tmp_path: Path, number: signal.Signals
) -> None:
    data = os.urandom(16 * MEBI)
    image_id = server.ask("POST", "/images/", META, data).image["id"]
    target = tmp_path / "got"
    with Stingy((server.host, server.port), limit=6 * MEBI) as stingy:
        getting = processes.start([product(), "get", image_id, "-o", target], env={"GLANCEFS_URL": stingy.url})
        assert stingy.used_up.wait(PATIENCE)
        # Of what has arrived some is still on its way to the disk.
        eventually(lambda: any(path.stat().st_size for path in tmp_path.iterdir() if "got" in path.name))
        getting.send(number)
        assert getting.wait() != 0
    assert not target.exists() or target.read_bytes() != data
    before = len(server.process.log())
    run([product(), "get", image_id, "-o", target], env={"GLANCEFS_URL": server.url})
    assert target.read_bytes() == data
    assert f'"GET /images/{image_id}" 206 ' in server.process.log()[before:]
    assert [path.name for path in tmp_path.iterdir() if "got" in path.name] == ["got"]


@pytest.mark.needs("curl")
def test_curl_takes_up_a_download_that_broke_off(server: RunningServer, tmp_path: Path) -> None:
    data = os.urandom(4 * MEBI)
    image_id = server.ask("POST", "/images/", META, data).image["id"]
    (tmp_path / "got").write_bytes(data[: 3 * MEBI])
    curl(server, "-C", "-", "-o", tmp_path / "got", f"{server.url}/images/{image_id}")
    assert (tmp_path / "got").read_bytes() == data

# SPDX-License-Identifier: Apache-2.0
"""How many small requests are answered, whatever the size of the registry, and how late beside slow uploads."""

from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bench.conftest import Serve, ServeNginx
from tests.bench.figures import Report
from tests.bench.load import ab, alternate, medians, pairs, wrk
from tests.support.many_images import FEW_OWNER, HALF_OWNER, fill, various_images
from tests.support.processes import product, run
from tests.support.servers import RunningServer

META = {"x-image-meta-name": "small", "x-image-meta-type": "raw", "x-image-meta-is_public": "true"}
CLIENTS = 16
ROUNDS = 5


def test_heads(report: Report, serve: Serve, serve_nginx: ServeNginx) -> None:
    one, two, nginx = serve(workers=1), serve(workers=2), serve_nginx(workers=1)
    for server in (one, two):
        assert server.ask("POST", "/images/", META, b"x" * 1000).status == 201
    (nginx.files / "1").write_bytes(b"x" * 1000)

    def rate(url: str, requests: int) -> float:
        return ab(url, clients=CLIENTS, requests=requests, options=["-i"]).per_second

    runs = alternate(
        ROUNDS,
        one=lambda: rate(f"{one.url}/images/1", 10_000),
        two=lambda: rate(f"{two.url}/images/1", 20_000),
        nginx=lambda: rate(f"{nginx.url}/1", 50_000),
    )
    middle = medians(runs)
    report.add("head", ours=middle["one"], peer=middle["nginx"], runs=[runs])
    report.add("head-2", ours=middle["two"], peer=middle["one"])


@pytest.fixture(scope="session")
def registries(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Data folders whose registries hold 1,000 and 1,000,000 images."""
    folders = {}
    for count in (1_000, 1_000_000):
        data = folders[count] = tmp_path_factory.mktemp(f"images-{count}")
        run([product(), "db", "upgrade", "--data", data])
        fill(data / "registry.sqlite", various_images(count))
        # Nobody reads the data, so there are none; without a folder of theirs no server would start.
        (data / "images").mkdir(exist_ok=True)
        (data / "images" / "registry").touch()
        for user in (HALF_OWNER, FEW_OWNER, "stranger"):
            run([product(), "user", "add", "--data", data, "--password-stdin", user], stdin=b"secret\n")
    return folders


@pytest.mark.parametrize("who", ["half", "few", "stranger", "anonymous"])
def test_lists(report: Report, registries: dict[int, Path], serve: Serve, who: str) -> None:
    servers = {count: serve(workers=2, data=data, auth_mode="htpasswd") for count, data in registries.items()}
    options, query = [], "limit=25"
    if who != "anonymous":
        options = ["-H", "Authorization: Basic " + base64.b64encode(f"{who}:secret".encode()).decode()]
        query += "&is_public=none"

    def rate(server: RunningServer) -> float:
        url = f"{server.url}/images/detail?{query}"
        return wrk(url, clients=CLIENTS, seconds=3, options=options).per_second

    for server in servers.values():
        rate(server)
    runs = alternate(ROUNDS, few=lambda: rate(servers[1_000]), many=lambda: rate(servers[1_000_000]))
    assert min(runs["many"]) > 0
    middle = medians(runs)
    report.add(f"list-{who}", ours=middle["many"], peer=middle["few"], runs=[runs])


def test_pairs(report: Report, tmp_path: Path, serve: Serve, serve_nginx: ServeNginx) -> None:
    ours, nginx = serve(workers=2), serve_nginx(workers=2)
    url = f"{ours.url}/images/"
    runs = alternate(
        ROUNDS,
        bare=lambda: pairs(url, folder=tmp_path, method="POST", size=0, seconds=5),
        data=lambda: pairs(url, folder=tmp_path, method="POST", size=4096, seconds=5),
        nginx=lambda: pairs(f"{nginx.url}/", folder=tmp_path, method="PUT", size=4096, seconds=5),
    )
    middle = medians(runs)
    assert min(middle.values()) > 0
    report.add("pairs", ours=middle["bare"], runs=[runs])
    report.add("pairs-data", ours=middle["data"], peer=middle["nginx"])


@contextmanager
def slow_uploads(server: RunningServer, *, count: int) -> Iterator[None]:
    """Upload from so many clients at once, a few bytes ten times a second."""
    head = "POST /images/ HTTP/1.1\r\nHost: x\r\nx-image-meta-name: slow\r\nx-image-meta-type: raw\r\n"
    senders = [socket.create_connection((server.host, server.port)) for _ in range(count)]
    for sender in senders:
        sender.sendall(f"{head}Content-Length: 100000000\r\n\r\n".encode())
    stop = threading.Event()

    def trickle() -> None:
        while not stop.wait(0.1):
            for sender in senders:
                sender.sendall(b"x" * 1000)

    thread = threading.Thread(target=trickle)
    thread.start()
    # Until each of them has its place.
    time.sleep(2)
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for sender in senders:
            sender.close()


def test_answers_beside_slow_uploads(report: Report, serve: Serve) -> None:
    server = serve(workers=1)
    assert server.ask("POST", "/images/", META, b"x" * 1000).status == 201
    urls = {"slow-head": (f"{server.url}/images/1", ["-i"]), "slow-health": (f"{server.url}/healthcheck", [])}
    for key, (url, options) in urls.items():
        ab(url, clients=4, requests=1000, options=options)
        alone, beside = [], []
        for _ in range(ROUNDS):
            alone.append(ab(url, clients=4, requests=5000, options=options).p99)
            with slow_uploads(server, count=16):
                beside.append(ab(url, clients=4, requests=5000, options=options).p99)
        middle = medians({"alone": alone, "beside": beside})
        report.add(key, ours=middle["beside"], peer=middle["alone"], runs=[alone, beside])

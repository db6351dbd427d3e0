# SPDX-License-Identifier: Apache-2.0
"""The whole product on a database server that is started anew under load: nothing is lost, and the log says why.

Threading: clients are threads; what they note is read when they are over.
"""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import shake_256

import pytest

from glancefs.registries.sql import SqlRegistry
from tests.support.databases import Server, new_server
from tests.support.mounting import eventually
from tests.support.processes import Processes
from tests.support.servers import RunningServer, start_server

CLIENTS = 4
SIZE = 20_000


@dataclass(slots=True)
class Client:
    """Adds images one after the other, each with data of its own, and remembers which were confirmed."""

    node: RunningServer
    number: int
    over: threading.Event
    confirmed: dict[str, str] = field(default_factory=dict)
    """The identifiers by the names."""
    answers: list[int] = field(default_factory=list)

    def run(self) -> None:
        turn = 0
        while not self.over.is_set():
            turn += 1
            name = f"{self.number}-{turn}"
            said = {"x-image-meta-name": name, "x-image-meta-type": "raw", "content-type": "application/octet-stream"}
            reply = self.node.ask("POST", "/images/", said, data_of(name))
            self.answers.append(reply.status)
            if reply.status == http.client.CREATED:
                self.confirmed[name] = reply.image["id"]
            else:
                assert "retry-after" in reply.headers, reply
                time.sleep(0.1)


def data_of(name: str) -> bytes:
    return shake_256(name.encode()).digest(SIZE)


@pytest.fixture(
    params=[
        pytest.param("postgresql", marks=pytest.mark.needs("postgresql")),
        pytest.param("mariadb", marks=[pytest.mark.needs("mariadb"), pytest.mark.soak]),
    ]
)
def own(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Start a server that may be harmed."""
    own = new_server(request.param, durable=True)
    try:
        own.start()
        yield own
    finally:
        own.remove()


def test_a_database_that_is_started_anew_under_load_loses_nothing(
    own: Server, processes: Processes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    url = own.fresh()
    SqlRegistry(url=url, migrate=True).close()
    node = start_server(processes, tmp_path_factory.mktemp("node"), env={"GLANCEFS_REGISTRY": url})
    over = threading.Event()
    clients = [Client(node, number, over) for number in range(CLIENTS)]
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    try:
        _wait_for_more(clients)
        own.stop()
        # Long enough away that requests are refused, and not only late.
        eventually(lambda: node.ask("GET", "/images/").status == http.client.SERVICE_UNAVAILABLE)
        own.start()
        _wait_for_more(clients)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert {status for client in clients for status in client.answers} == {201, 503}
    listed = {image["name"]: image for image in _every_image(node)}
    for name, image_id in (pair for client in clients for pair in client.confirmed.items()):
        assert listed[name]["id"] == image_id
    # One whose answer was lost with the server may be there, too, but then whole.
    for name, image in listed.items():
        assert image["status"] == "available"
        assert node.ask("GET", f"/images/{image['id']}").body == data_of(name)
    with closing(SqlRegistry(url=url)) as registry:
        assert list(registry.integrity_check()) == []
    _check_log(node.process.log())


def _wait_for_more(clients: list[Client]) -> None:
    before = [len(client.confirmed) for client in clients]
    eventually(lambda: all(len(client.confirmed) > seen + 5 for client, seen in zip(clients, before, strict=True)))


def _every_image(node: RunningServer) -> Iterator[dict[str, str]]:
    after = ""
    while page := node.ask("GET", f"/images/detail?is_public=none&limit=500{after}").json["images"]:
        yield from page
        after = f"&marker={page[-1]['id']}"


def _check_log(log: str) -> None:
    """Hold the log against what an operator needs: a line for each request that was refused, each with the reason."""
    told = [line for line in log.splitlines() if re.search(r"\b(WARNING|ERROR|CRITICAL|Traceback)\b", line)]
    assert told
    # One that was at its commit is told that the outcome is not known.
    reason = (
        r"(?:RegistryUnavailable|OutcomeUnknown): The registry(?:'s database)? "
        r".*(can't be reached|broke off|shutting down|starting up)"
    )
    assert [line for line in told if not re.search(reason, line)] == []

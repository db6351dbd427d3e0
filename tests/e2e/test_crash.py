# SPDX-License-Identifier: Apache-2.0
"""The promise about crashes: what was answered is there, whenever the server is killed, and nothing half is seen.

Each round starts a server on what the last one left, holds everything against the ledger, sends mixed traffic from many
clients, and kills all processes of the server at a random moment.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from glancefs.assembly import Assembly, assemble
from glancefs.audit import audit
from glancefs.config import Config
from glancefs.stores.base import Swept
from glancefs.stores.owner import NOTE
from glancefs.sweep import sweep
from tests.e2e.ledger import Entry, Ledger, Payloads
from tests.e2e.nursery import Nursery, open_nursery
from tests.e2e.traffic import Traffic
from tests.support.databases import server as database_server
from tests.support.processes import PATIENCE, Processes, product, run
from tests.support.servers import RunningServer, SomeServer, ask, start_server

pytestmark = pytest.mark.e2e

LONGEST_LIFE = 0.5
"""The longest time in seconds for which a server works before it is killed; with a database server it begins slower."""


class CrashRun:
    """One data folder through many deaths."""

    def __init__(self, *, nursery: Nursery, data: Path, seed: int, registry: str | None = None) -> None:
        self._nursery = nursery
        self._data = data
        self._registry = registry
        self._longest_life = LONGEST_LIFE if registry is None else 4 * LONGEST_LIFE
        self._random = random.Random(seed)
        self._seed = seed
        self.ledger = Ledger(Payloads(seed=seed))
        self.done: dict[str, int] = {}

    def kill_once(self, number: int) -> None:
        """Start, verify, send traffic, kill."""
        born = self._nursery.bear("serve", "--data", str(self._data), "--listen", "127.0.0.1:0")
        server = SomeServer(url=born.wait_for(r"http://[\d.]+:\d+").group())
        self.verify(server, born.log)
        traffic = Traffic(server=server, ledger=self.ledger, seed=self._seed + number)
        traffic.done = self.done
        traffic.start()
        time.sleep(self._random.uniform(0, self._longest_life))
        traffic.expect_death()
        born.kill()
        traffic.join()
        assert not traffic.complaints, "\n".join([*traffic.complaints, born.log.read_text()[-3000:]])

    def verify(self, server: SomeServer, log: Path) -> None:
        """Hold everything against the ledger, from outside and from within."""
        wait_for_nothing_in(self._data / "images" / "incoming")
        wrong = self.ledger.settle(listed_by(server))
        connection = server.connect()
        with contextlib.closing(connection):
            for entry in self.ledger.entries.values():
                wrong += self._complaints_about(entry, connection)
        self.ledger.forget_the_gone()
        wrong += damage_of(self._data, self._registry)
        assert not wrong, "\n".join([*wrong, log.read_text()[-3000:]])

    def _complaints_about(self, entry: Entry, connection: HTTPConnection) -> list[str]:
        """Ask for one image whose state is settled."""
        if entry.id is None:
            return []
        reply = ask(connection, "GET" if entry.is_known_available else "HEAD", f"/images/{entry.id}")
        if reply.status != (404 if entry.is_gone else 200):
            return [f"{entry.name}, which is {entry.states}, is answered with {reply.status}"]
        if entry.is_known_available and reply.body != self.ledger.data_of(entry):
            return [f"the data of {entry.name} are others than were sent"]
        return []

    def verify_by_command(self) -> None:
        """Hold everything against the ledger by what an operator has, with no server running."""
        run([product(), "check", "--data", self._data], env=where(self._registry))
        before = files_below(self._data / "images")
        run([product(), "gc", "--data", self._data], env=where(self._registry))
        assert files_below(self._data / "images") == before
        assert len(before) == len(self.ledger.available())


def listed_by(server: SomeServer) -> Mapping[str, Mapping[str, Any]]:
    """Everything that the server shows, by name."""
    reply = server.ask("GET", "/images/detail?is_public=none")
    assert reply.status == 200, reply
    images = reply.json["images"]
    by_name = {image["name"]: image for image in images}
    assert len(by_name) == len(images)
    return by_name


def wait_for_nothing_in(incoming: Path) -> None:
    """Wait until the sweep at the start is through; a server without traffic has no uploads."""
    deadline = time.monotonic() + PATIENCE
    while incoming.is_dir() and any(incoming.iterdir()):
        assert time.monotonic() < deadline, f"still there: {sorted(incoming.iterdir())}"
        time.sleep(0.01)


def where(registry: str | None) -> dict[str, str]:
    """What tells a command of a registry elsewhere than in the data folder."""
    return {} if registry is None else {"GLANCEFS_REGISTRY": registry}


def damage_of(data: Path, registry: str | None = None) -> list[str]:
    """What the database, the audit and the sweep find, in words."""
    wrong = []
    if registry is None:
        with contextlib.closing(sqlite3.connect(data / "registry.sqlite")) as database:
            verdict = [row[0] for row in database.execute("PRAGMA integrity_check")]
        wrong = [] if verdict == ["ok"] else [f"the database is damaged: {verdict}"]
    with assemble(Config.at(data, None if registry is None else {"registry": registry})) as core:
        wrong += [str(finding) for finding in findings_of(core, quick=True)]
        swept = sweep(registry=core.registry, stores=core.stores)
    if swept != Swept():
        wrong.append(f"the sweep at the start left something: {swept}")
    return wrong


def findings_of(core: Assembly, *, quick: bool) -> list[object]:
    """What the audit complains of."""
    return list(audit(registry=core.registry, stores=core.stores, quick=quick))


def files_below(folder: Path) -> set[Path]:
    """All files, whatever they are, but the note of whose images they are."""
    return {path for path in folder.rglob("*") if path.is_file() and path.name != NOTE}


def check_through_crashes(
    processes: Processes, data: Path, *, workers: int, kills: int, seed: int, registry: str | None = None
) -> None:
    """Kill a server again and again, and verify after each time."""
    env = {"GLANCEFS_GATEWAY_WORKERS": str(workers)} | where(registry)
    with open_nursery(data.with_name("nursery"), env=env) as nursery:
        crashes = CrashRun(nursery=nursery, data=data, seed=seed, registry=registry)
        for number in range(kills):
            crashes.kill_once(number)
    server = start_server(processes, data, env=where(registry))
    crashes.verify(server, server.process.log_path)
    assert server.process.stop() == 0
    crashes.verify_by_command()
    # A run in which nothing happened proves nothing.
    assert set(crashes.done) == {"add", "add_chunked", "queue", "note", "delete", "read", "list"}
    assert sum(crashes.done.values()) > kills
    assert crashes.ledger.available()


@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_answered_survives_fifty_kills(processes: Processes, tmp_path: Path, workers: int) -> None:
    # Half of them each.
    check_through_crashes(processes, tmp_path / "data", workers=workers, kills=25, seed=workers)


KINDS = [pytest.param(kind, marks=pytest.mark.needs(kind)) for kind in ("postgresql", "mariadb")]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_answered_survives_kills_on_a_database_server(processes: Processes, tmp_path: Path, kind: str) -> None:
    registry = database_server(kind).take()
    check_through_crashes(processes, tmp_path / "data", workers=2, kills=3, seed=3, registry=registry)


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_answered_survives_many_kills_on_a_database_server(
    processes: Processes, tmp_path: Path, kind: str
) -> None:
    registry, seed = database_server(kind).take(), int.from_bytes(os.urandom(3))
    check_through_crashes(processes, tmp_path / "data", workers=2, kills=100, seed=seed, registry=registry)


@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_answered_survives_hundreds_of_kills(processes: Processes, tmp_path: Path, workers: int) -> None:
    check_through_crashes(processes, tmp_path / "data", workers=workers, kills=200, seed=int.from_bytes(os.urandom(3)))


def test_a_killed_worker_is_replaced_and_loses_nothing(processes: Processes, tmp_path: Path) -> None:
    server = start_server(processes, tmp_path / "data", env={"GLANCEFS_GATEWAY_WORKERS": "2"})
    ledger = Ledger(Payloads(seed=7))
    traffic = Traffic(server=server, ledger=ledger, seed=7)
    traffic.start()
    time.sleep(0.3)
    traffic.expect_death()
    parent, *workers = server.system_processes()
    os.kill(workers[0].pid, signal.SIGKILL)
    traffic.join()
    server.process.wait_for_line(r"killed by signal 9")
    deadline = time.monotonic() + PATIENCE
    while len(parent.children()) < 2:
        assert time.monotonic() < deadline, "the worker was not replaced"
        time.sleep(0.02)
    assert not traffic.complaints
    settle_after_sweep(server, ledger)
    assert server.process.stop() == 0


def settle_after_sweep(server: RunningServer, ledger: Ledger) -> None:
    """Hold what is there against the ledger, once somebody has swept up after the dead worker."""
    run([product(), "gc", "--data", server.data])
    wait_for_nothing_in(server.data / "images" / "incoming")
    assert not ledger.settle(listed_by(server))
    for entry in ledger.available():
        assert server.ask("GET", f"/images/{entry.id}").body == ledger.data_of(entry)
    assert not damage_of(server.data)


def test_workers_end_when_their_parent_is_killed(processes: Processes, tmp_path: Path) -> None:
    server = start_server(processes, tmp_path / "data", env={"GLANCEFS_GATEWAY_WORKERS": "2"})
    parent, *workers = server.system_processes()
    assert len(workers) == 2
    os.kill(parent.pid, signal.SIGKILL)
    for worker in workers:
        worker.wait(PATIENCE)
    with pytest.raises(ConnectionRefusedError):
        server.ask("GET", "/")

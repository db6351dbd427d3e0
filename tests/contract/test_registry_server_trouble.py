# SPDX-License-Identifier: Apache-2.0
"""What `glancefs.registries.sql` promises when its server is started anew, cut off, killed, stopped or gone.

Answers for nothing being lost that was confirmed, nothing being there twice, and the registry going on by itself. Each
test that harms a server has one of its own, which syncs. The process that is killed is this module, run as a program:
``python -m ... URL``.

Threading: races threads on purpose.
"""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Self

import psycopg
import pytest

from glancefs.errors import InvalidRequest, RegistryUnavailable
from glancefs.registries.base import ImageQuery, every_image
from glancefs.registries.server import ServerDatabase
from glancefs.registries.sql import SqlRegistry
from tests.contract.registry_company import once_available
from tests.contract.registry_model import NOON, an_available_image, an_image
from tests.support.databases import Server, new_server, server
from tests.support.processes import PATIENCE, Processes

KINDS = [pytest.param(kind, marks=pytest.mark.needs(kind)) for kind in ("postgresql", "mariadb")]


@pytest.fixture(autouse=True)
def forgotten_sockets_are_closed_here() -> Iterator[None]:
    """Have the interpreter close the sockets that PyMySQL could not connect, before another test is blamed for them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="unclosed <socket", category=ResourceWarning)
        yield
        gc.collect()


@pytest.fixture(params=KINDS)
def running(request: pytest.FixtureRequest) -> Server:
    return server(request.param)


@pytest.fixture(params=KINDS, scope="module")
def own(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Start a server that may be harmed."""
    own = new_server(request.param, durable=True)
    try:
        own.start()
        yield own
    finally:
        own.remove()


@dataclass(slots=True)
class Traffic:
    """Adds images from some threads, and remembers what it was told."""

    registry: SqlRegistry
    confirmed: set[str] = field(default_factory=set)
    refused: list[RegistryUnavailable] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._add, args=(number,)) for number in range(6)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _add(self, number: int) -> None:
        turn = 0
        while not self._over.is_set():
            turn += 1
            try:
                new = an_available_image(id=f"{number}-{turn}", size=1, properties={"os": "linux"})
                image = self.registry.add(new)
                assert self.registry.get(image.id).size == 1
            except RegistryUnavailable as error:
                self.refused.append(error)
                time.sleep(0.05)
            else:
                self.confirmed.add(image.id)

    def wait_for(self, more: int) -> None:
        """Wait until so many more were confirmed."""
        enough = len(self.confirmed) + more
        deadline = time.monotonic() + PATIENCE
        while len(self.confirmed) < enough:
            assert time.monotonic() < deadline, self.refused[-3:]
            time.sleep(0.02)


def check_that_it_adds_up(registry: SqlRegistry, confirmed: set[str]) -> None:
    """Hold what is there against what was confirmed, and against itself."""
    living = list(every_image(registry, ImageQuery(sees_all=True, is_public=None)))
    assert confirmed <= {image.id for image in living}
    held = list(registry.holdings())
    assert sum(kind.images for kind in held) == len(living)
    changes = registry.changes(since=0, limit=1_000_000)
    assert [image.revision for image in changes.images] == list(range(1, len(changes.images) + 1))
    assert registry.revision() == changes.revision == len(changes.images)
    assert len(
        registry.find(ImageQuery(sees_all=True, is_public=None, properties={"os": "linux"}, limit=10**6))
    ) == len(living)
    assert list(registry.integrity_check()) == []


def restarted(own: Server) -> None:
    own.stop()
    own.start()


def killed(own: Server) -> None:
    own.kill()
    own.start()


def cut(own: Server) -> None:
    assert own.cut() > 0


@pytest.mark.parametrize("harm", [restarted, killed, cut])
def test_under_load_nothing_confirmed_is_lost(own: Server, harm: Callable[[Server], None]) -> None:
    with closing(SqlRegistry(url=own.fresh(), migrate=True)) as registry:
        with Traffic(registry) as traffic:
            traffic.wait_for(30)
            harm(own)
            traffic.wait_for(30)
        check_that_it_adds_up(registry, traffic.confirmed)
    assert {str(error).count("\n") for error in traffic.refused} <= {0}


def test_a_server_that_is_down_is_told_at_once_and_comes_back_by_itself(own: Server) -> None:
    with closing(SqlRegistry(url=own.fresh(), migrate=True)) as registry:
        registry.add(an_image())
        own.stop()
        for use in (registry.revision, lambda: registry.add(an_image())):
            began = time.monotonic()
            with pytest.raises(RegistryUnavailable, match=r"can't be reached|broke off|shutting down"):
                use()
            # As long as others may write nobody waits here, however busy the machine is.
            assert time.monotonic() - began < 25
        own.start()
        assert registry.revision() == 1
        assert registry.add(an_image()).id == "2"


def test_a_server_that_is_stuck_is_given_up(own: Server) -> None:
    with closing(SqlRegistry(url=own.fresh(), migrate=True, busy_timeout=1)) as registry:
        registry.add(an_image())
        assert own.process is not None
        own.freeze()
        try:
            # At the same time, since it is waiting that takes its time.
            with ThreadPoolExecutor(2) as pool:
                for asked in (pool.submit(registry.revision), pool.submit(registry.add, an_image())):
                    with pytest.raises(RegistryUnavailable):
                        asked.result()
        finally:
            own.thaw()
        # What the server was asked for meanwhile it may have to undo first.
        added = once_available(lambda: registry.add(an_image()))
        assert registry.get(added.id) == added
        assert registry.revision() == added.revision


def test_connections_that_died_idle_cost_nobody_an_answer(running: Server) -> None:
    with closing(SqlRegistry(url=running.take(), busy_timeout=10)) as registry:
        registry.add(an_image())
        for turn in range(2, 5):
            running.cut()
            assert registry.get("1").id == "1"
            running.cut()
            assert registry.add(an_image()).id == str(turn)


def test_a_registry_whose_server_has_cut_it_off_is_closed_without_a_word(running: Server) -> None:
    with closing(SqlRegistry(url=running.take(), busy_timeout=1)) as registry:
        registry.add(an_image())
        assert registry.get("1").id == "1"
        registry.wait_for_change(timeout=0.01)
        running.cut()


@pytest.mark.needs("postgresql")
def test_a_connection_that_is_cut_before_it_listens_is_given_up_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    running, execute = server("postgresql"), psycopg.Connection.execute
    cuts: list[int] = []

    def cut_first(connection: psycopg.Connection[Any], query: str | bytes, *arguments: Any, **options: Any) -> Any:
        if str(query).startswith("LISTEN") and not cuts:
            cuts.append(running.cut())
        return execute(connection, query, *arguments, **options)

    monkeypatch.setattr(psycopg.Connection, "execute", cut_first)
    with closing(SqlRegistry(url=running.take())) as registry:
        registry.wait_for_change(timeout=0.01)
        assert sum(cuts) >= 1
        registry.wait_for_change(timeout=0.01)
        with ThreadPoolExecutor(1) as pool:
            heard = pool.submit(registry.wait_for_change, timeout=PATIENCE)
            registry.add(an_image())
            heard.result(PATIENCE / 2)


def test_who_writes_for_ever_makes_changes_fail_and_reads_go_on(running: Server) -> None:
    url = running.take()
    with closing(SqlRegistry(url=url, busy_timeout=1)) as registry, closing(SqlRegistry(url=url)) as other:
        with other._database.connect_to_write() as connection:
            other._database.begin_writing(connection)
            connection.exec_driver_sql("SELECT * FROM counters FOR UPDATE")
            with pytest.raises(RegistryUnavailable, match=r"in use by others for too long|took too long"):
                registry.add(an_image())
            assert registry.revision() == 0
            other._database.end_writing(connection, commit=False)
        assert registry.add(an_image()).id == "1"


def test_an_impossible_change_harms_its_caller_alone(running: Server) -> None:
    with closing(SqlRegistry(url=running.take())) as registry:
        for impossible in (an_image(size=2**63), an_image(name="\ud800"), an_image(id="\udcff")):
            with pytest.raises(InvalidRequest) as refused:
                registry.add(impossible)
            assert "INSERT" not in str(refused.value)
        assert registry.add(an_image()).id == "1"
        assert registry.revision() == 1


def test_more_readers_than_connections_take_turns(running: Server) -> None:
    with closing(SqlRegistry(url=running.take(), connections=2)) as registry:
        registry.add(an_image())
        threads = [threading.Thread(target=lambda: [registry.get("1") for _ in range(20)]) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        database = registry._database
        assert isinstance(database, ServerDatabase)
        assert database._engine.pool.status().startswith("Pool size: 2 ")


@pytest.mark.needs("postgresql")
def test_postgresql_tells_of_changes_at_once() -> None:
    url = server("postgresql").take()
    with closing(SqlRegistry(url=url)) as listener, closing(SqlRegistry(url=url)) as writer:
        listener.wait_for_change(timeout=1)
        heard: list[float] = []

        def wait() -> None:
            began = time.monotonic()
            listener.wait_for_change(timeout=30)
            heard.append(time.monotonic() - began)

        waiting = threading.Thread(target=wait)
        waiting.start()
        writer.add(an_image())
        waiting.join(PATIENCE)
        assert heard
        assert heard[0] < 30
        server("postgresql").cut()
        listener.wait_for_change(timeout=0.1)
        listener.wait_for_change(timeout=0.1)


def test_what_was_acknowledged_outlives_a_kill_of_its_process(running: Server, processes: Processes) -> None:
    url = running.take()
    for kill in range(2):
        process = processes.start([sys.executable, "-m", __name__, url, str(kill)])
        process.wait_for_line(rf"^{kill}-\d+-{30 + 17 * kill}$")
        process.send(signal.SIGKILL)
        process.wait()
    told = {line for process in processes.started for line in process.log().splitlines(keepends=True)}
    with closing(SqlRegistry(url=url)) as registry:
        check_that_it_adds_up(registry, {line.strip() for line in told if line.endswith("\n")})


def main(url: str, kill: str) -> None:
    """Be the process that is killed: add, and say so as soon as it is done."""
    registry = SqlRegistry(url=url)

    def goes_on(number: int) -> None:
        for turn in range(1_000_000):
            image_id = f"{kill}-{number}-{turn}"
            registry.add(an_available_image(id=image_id, size=number, properties={"os": "linux"}, created_at=NOON))
            sys.stdout.write(f"{image_id}\n")
            sys.stdout.flush()

    for number in range(6):
        threading.Thread(target=goes_on, args=(number,)).start()


if __name__ == "__main__":
    main(*sys.argv[1:])

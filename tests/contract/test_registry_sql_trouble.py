# SPDX-License-Identifier: Apache-2.0
"""What `glancefs.registries.sql` promises when its database is busy, full, broken, or its process killed.

Answers for nobody being harmed by somebody else's trouble, and for errors that tell nothing of statements and values.
The process that is killed is this module, run as a program: ``python -m ... FOLDER``.

Threading: some tests race threads on purpose.
"""

from __future__ import annotations

import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from glancefs.errors import InvalidRequest, RegistryUnavailable, StoreFull
from glancefs.model import ImageStatus
from glancefs.registries.base import ImageQuery, every_image
from glancefs.registries.commits import GroupCommit, Transaction
from glancefs.registries.sql import SqlRegistry, registry_url
from tests.contract.registry_company import THREADS, together
from tests.contract.registry_model import NOON, an_available_image, an_image
from tests.support.databases import sqlite
from tests.support.processes import PATIENCE, Processes

if TYPE_CHECKING:
    from sqlalchemy import Connection

HASTE = 0.3
"""For how many seconds the hasty wait for others."""
KILLS = 4
ACKNOWLEDGED = 100


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[SqlRegistry]:
    with closing(SqlRegistry(url=registry_url(tmp_path), migrate=True)) as registry:
        yield registry


@pytest.fixture
def hasty(registry: SqlRegistry, tmp_path: Path) -> Iterator[SqlRegistry]:
    """The same registry, for those who do not wait long for others."""
    with closing(SqlRegistry(url=registry_url(tmp_path), busy_timeout=HASTE)) as hasty:
        yield hasty


@pytest.fixture
def other_writer(registry: SqlRegistry) -> Iterator[sqlite3.Connection]:
    """Somebody who has begun to write, and goes on."""
    path = sqlite(registry).path
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection


def test_a_writer_that_never_ends_makes_changes_fail_and_reads_go_on(
    hasty: SqlRegistry, other_writer: sqlite3.Connection
) -> None:
    with pytest.raises(RegistryUnavailable, match="in use by others for too long"):
        hasty.add(an_image())
    assert hasty.revision() == 0
    assert not hasty.find(ImageQuery(sees_all=True, is_public=None))
    other_writer.execute("ROLLBACK")
    assert hasty.add(an_image()).id == "1"


def test_all_that_wait_for_a_writer_that_never_ends_learn_of_it_together(
    hasty: SqlRegistry, other_writer: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def adds(_: int) -> str:
        try:
            hasty.add(an_image())
        except RegistryUnavailable:
            return "unavailable"
        return "added"

    def begin_writing(connection: Connection) -> None:
        waits.append(None)
        begin(connection)

    waits: list[None] = []
    begin = hasty._database.begin_writing
    monkeypatch.setattr(hasty._database, "begin_writing", begin_writing)
    assert set(together(adds)) == {"unavailable"}
    # One batch for who came first, one for the others, and on a busy machine some for who was late: not one each.
    assert len(waits) < THREADS


def test_a_change_waits_for_a_writer_that_ends(registry: SqlRegistry, other_writer: sqlite3.Connection) -> None:
    ending = threading.Timer(0.05, other_writer.execute, ["ROLLBACK"])
    ending.start()
    assert registry.add(an_image()).id == "1"
    ending.join()


def test_a_full_database_is_a_full_store(registry: SqlRegistry) -> None:
    first = registry.add(an_image())
    assert isinstance(registry._commits, GroupCommit)
    connection = registry._commits._connection
    assert connection is not None
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreFull) as full:
        registry.add(an_image(name="secret" * 100, properties={"key": "x" * 60_000}))
    assert "secret" not in str(full.value)
    assert "INSERT" not in str(full.value)
    assert registry.revision() == first.revision
    assert registry.add(an_image()).id == "2"


def test_an_impossible_change_harms_its_caller_alone(registry: SqlRegistry) -> None:
    impossible = [an_image(size=2**63), an_image(name="\ud800"), an_image(id="\udcff")]

    def adds(turn: int, number: int) -> str:
        if number % 4:
            return registry.add(an_image(id=f"good-{turn}-{number}")).id
        with pytest.raises(InvalidRequest):
            registry.add(impossible[number // 4 % 3])
        return "refused"

    for turn in range(5):
        outcomes = together(partial(adds, turn))
        assert outcomes.count("refused") == 4
        assert {registry.get(image_id).id for image_id in outcomes if image_id != "refused"} == {
            f"good-{turn}-{number}" for number in range(16) if number % 4
        }
    assert list(registry.integrity_check()) == []


def test_an_interrupted_leader_leaves_the_registry_working(registry: SqlRegistry) -> None:
    begun, waiting = threading.Event(), threading.Event()
    outcomes: list[str] = []

    def interrupted(transaction: Transaction) -> None:
        begun.set()
        waiting.wait(PATIENCE)
        time.sleep(0.05)
        raise KeyboardInterrupt

    def leads() -> None:
        try:
            registry._commits.run(interrupted)
        except KeyboardInterrupt:
            outcomes.append("interrupted")

    def follows() -> None:
        outcomes.append(registry.add(an_image()).id)

    leader, follower = threading.Thread(target=leads), threading.Thread(target=follows)
    leader.start()
    begun.wait(PATIENCE)
    follower.start()
    waiting.set()
    leader.join(PATIENCE)
    follower.join(PATIENCE)
    assert sorted(outcomes) == ["1", "interrupted"]
    assert registry.add(an_image()).id == "2"


def test_a_fault_of_ours_comes_out_as_it_is(registry: SqlRegistry) -> None:
    def broken(_: Transaction) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        registry._commits.run(broken)
    assert registry.add(an_image()).id == "1"


def test_a_database_that_breaks_is_unavailable_and_tells_no_secrets(registry: SqlRegistry) -> None:
    registry.add(an_image(id="a"))
    with closing(sqlite3.connect(sqlite(registry).path)) as connection:
        connection.execute("DROP TABLE image_properties")
        connection.execute("ALTER TABLE images RENAME COLUMN name TO title")
        connection.commit()
    for use in (
        lambda: registry.get("secret"),
        lambda: registry.find(ImageQuery(name="secret")),
        lambda: registry.add(an_image(name="secret")),
        lambda: registry.changes(since=0),
    ):
        with pytest.raises(RegistryUnavailable) as broken:
            use()
        said = str(broken.value)
        assert not [word for word in ("secret", "SELECT", "INSERT", "images", "title") if word in said]
        assert broken.value.__suppress_context__ or broken.value.__context__ is None


def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path, processes: Processes) -> None:
    SqlRegistry(url=registry_url(tmp_path), migrate=True).close()
    for kill in range(KILLS):
        process = processes.start([sys.executable, "-m", __name__, tmp_path])
        process.wait_for_line(rf"^(add|delete) .*-{ACKNOWLEDGED + 37 * kill}$")
        process.send(signal.SIGKILL)
        process.wait()
        # The last line may be torn.
        told = [line.split() for line in process.log().splitlines(keepends=True) if line.endswith("\n")]
        with closing(SqlRegistry(url=registry_url(tmp_path))) as registry:
            assert list(registry.integrity_check()) == []
            deleted = {words[1] for words in told if words[0] == "delete"}
            for what, image_id, _ in told:
                status = registry.get(image_id).status
                if what == "delete":
                    assert status is ImageStatus.DELETED
                elif image_id not in deleted:
                    assert status in {ImageStatus.AVAILABLE, ImageStatus.DELETED}
            _check_that_it_adds_up(registry)


def _check_that_it_adds_up(registry: SqlRegistry) -> None:
    living = list(every_image(registry, ImageQuery(sees_all=True, is_public=None)))
    held = list(registry.holdings())
    assert sum(kind.images for kind in held) == len(living)
    assert sum(kind.size for kind in held) == sum(image.size for image in living)
    changes = registry.changes(since=0, limit=1_000_000)
    assert registry.revision() == changes.revision == max(image.revision for image in changes.images)


def main(folder: str) -> None:
    """Be the process that is killed: add and delete, and say so as soon as it is done."""
    registry = SqlRegistry(url=registry_url(Path(folder)))
    told = iter(range(1_000_000))
    lock = threading.Lock()

    def tell(what: str, image_id: str) -> None:
        with lock:
            sys.stdout.write(f"{what} {image_id} -{next(told)}\n")
            sys.stdout.flush()

    def goes_on(number: int) -> None:
        while True:
            added = registry.add(an_available_image(size=number, properties={"os": "linux"}, created_at=NOON))
            tell("add", added.id)
            if int(added.id) % 3:
                registry.delete(added.id, expected_revision=added.revision, deleted_at=datetime.now(UTC))
                tell("delete", added.id)

    together(goes_on, threads=8)


if __name__ == "__main__":
    main(*sys.argv[1:])

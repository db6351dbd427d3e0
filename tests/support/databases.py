# SPDX-License-Identifier: Apache-2.0
"""Database servers for tests: a private PostgreSQL and a private MariaDB, started when first asked for.

Answers for starting, stopping and killing them, and for an empty database in no time: databases are used again,
emptied, once the test that had them is over. Servers run as another user where the tests run as root, keep their files
and sockets apart from the tests', and do not care for the disk unless a test does.

Threading: called from the main thread; databases may be used from anywhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

import psutil
import psycopg
import pymysql
import pytest
from sqlalchemy import event

from glancefs.registries.schema import counters, metadata
from glancefs.registries.server import ServerDatabase
from glancefs.registries.sql import SqlRegistry
from glancefs.registries.sqlite import SqliteDatabase
from tests.support.capabilities import POSTGRESQL, tool
from tests.support.leaks import MARK
from tests.support.processes import Process, Processes, environment, wait_until_stopped

NOBODY: Final = 65534


def _as_nobody() -> list[str]:
    """Give what runs a command as a user of no rights where the tests run as root; it dies with the test run too."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--pdeathsig", "KILL", "--"]


class Server(ABC):
    """A database server of our own."""

    kind: ClassVar[str]

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self.folder = folder
        self.durable = durable
        self.process: Process | None = None
        self._processes = Processes(folder)
        self._free: list[str] = []
        self._taken: list[str] = []
        self._made = 0
        folder.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        # Nor may it go near the tests' folder for temporary files.
        self._environment = {"TMPDIR": str(folder)}
        installed = subprocess.run(
            [*_as_nobody(), *self._installation()],
            check=False,
            cwd=folder,
            capture_output=True,
            timeout=300,
            env=environment(self._environment),
        )
        if installed.returncode:
            said = (installed.stdout + installed.stderr).decode(errors="replace")
            pytest.fail(f"{self.kind} can't be set up:\n{said[-5000:]}", pytrace=False)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._socket().unlink(missing_ok=True)
        self.process = self._processes.start([*_as_nobody(), *self._command()], cwd=self.folder, env=self._environment)
        deadline = time.monotonic() + 120
        while True:
            try:
                # PyMySQL forgets sockets that it could not connect.
                self._socket().stat()
                self.execute("SELECT 1")
            except (FileNotFoundError, psycopg.OperationalError, pymysql.err.OperationalError):
                if not self.process.running or time.monotonic() > deadline:
                    pytest.fail(f"{self.kind} does not start:\n{self.process.log()[-5000:]}", pytrace=False)
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self.process is not None
        self.process.kill()

    def freeze(self) -> None:
        """Stop all of its processes where they are."""
        for process in self._signal(signal.SIGSTOP):
            wait_until_stopped(process.pid)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> list[psutil.Process]:
        assert self.process is not None
        leader = psutil.Process(self.process.pid)
        everybody = [leader, *leader.children(recursive=True)]
        for process in everybody:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        return everybody

    def stop(self) -> None:
        """End it, and everybody's connections."""
        if self.process is not None and self.process.running:
            self._stop()
            self.process.wait(timeout=60)

    def remove(self) -> None:
        """Stop it, and leave nothing."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def take(self) -> str:
        """Give the URL of a database that holds an empty registry."""
        if self._free:
            url = self._free.pop()
            self._empty(url)
        else:
            url = self.fresh()
            SqlRegistry(url=url, migrate=True).close()
        self._taken.append(url)
        return url

    def give_back(self, url: str) -> None:
        """Say that nobody uses a database any longer."""
        if url in self._taken:
            self._taken.remove(url)
            self._free.append(url)

    def give_all_back(self) -> None:
        """Say so of all that were taken."""
        for url in list(self._taken):
            self.give_back(url)

    def fresh(self) -> str:
        """Give the URL of a database that holds nothing yet, and is not used again."""
        self._made += 1
        name = f"test_{self._made}"
        self._make(name)
        return self.url(name)

    @abstractmethod
    def execute(self, *statements: str, url: str | None = None) -> Sequence[Any]:
        """Run statements, each in its own transaction; give the rows of the last one."""

    @abstractmethod
    def url(self, name: str, *, user: str | None = None, password: str | None = None) -> str:
        """Give the URL of a database."""

    @abstractmethod
    def cut(self) -> int:
        """End all connections of others. Gives how many there were."""

    @abstractmethod
    def _installation(self) -> list[str]: ...

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def _socket(self) -> Path: ...

    @abstractmethod
    def _make(self, name: str) -> None: ...

    @abstractmethod
    def _stop(self) -> None: ...

    def _empty(self, url: str) -> None:
        emptied = [table.name for table in reversed(metadata.sorted_tables) if table is not counters]
        identity = uuid.uuid4().hex
        self.execute(
            *(f"DELETE FROM {name}" for name in emptied),  # noqa: S608 - the names are the schema's
            "DELETE FROM counters",
            f"INSERT INTO counters (id, revision, next_id, identity) VALUES (1, 0, 1, '{identity}')",  # noqa: S608 - hex digits
            url=url,
        )


class Postgres(Server):
    """PostgreSQL 15. What is called a database here is a schema: those are cheaper, and nobody sees a difference."""

    kind = "postgresql"

    def execute(self, *statements: str, url: str | None = None) -> Sequence[Any]:
        conninfo = (url or self.url("public")).replace("postgresql+psycopg", "postgresql")
        with psycopg.connect(conninfo, autocommit=True) as connection:
            rows: Sequence[Any] = ()
            for statement in statements:
                cursor = connection.execute(statement.encode())
                rows = cursor.fetchall() if cursor.description else ()
        return rows

    def url(self, name: str, *, user: str | None = None, password: str | None = None) -> str:
        who = f"{user or 'glancefs'}{'' if password is None else f':{password}'}"
        return f"postgresql+psycopg://{who}@/postgres?host={self.folder}&options=-csearch_path%3D{name}"

    def cut(self) -> int:
        rows = self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        return len(rows)

    def _program(self, name: str) -> str:
        assert POSTGRESQL is not None
        if os.geteuid() != 0 or all(parent.stat().st_mode & 1 for parent in POSTGRESQL.parents):
            return str(POSTGRESQL / name)
        # Whose folders the server's user may not enter: it gets a copy. The programs find each other by their places.
        programs = self.folder / "programs"
        if not programs.exists():
            shutil.copytree(POSTGRESQL.parents[3], programs, symlinks=True)
        return str(programs / "lib/postgresql/15/bin" / name)

    def _installation(self) -> list[str]:
        options = ["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--username=glancefs"]
        return [self._program("initdb"), *options, str(self.folder / "data")]

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "fsync": "on" if self.durable else "off",
            "full_page_writes": "on" if self.durable else "off",
            "shared_buffers": "64MB",
            "max_connections": "300",
            "max_wal_size": "256MB",
            "autovacuum_naptime": "10s",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [self._program("postgres"), "-D", str(self.folder / "data"), *options]

    def _socket(self) -> Path:
        return self.folder / ".s.PGSQL.5432"

    def _make(self, name: str) -> None:
        self.execute(f"CREATE SCHEMA {name}")

    def _stop(self) -> None:
        # SIGQUIT would not write anything down; SIGINT ends sessions and does.
        assert self.process is not None
        os.kill(int((self.folder / "data" / "postmaster.pid").read_text().split()[0]), 2)


class Mariadb(Server):
    """MariaDB 10.11."""

    kind = "mariadb"

    def execute(self, *statements: str, url: str | None = None) -> Sequence[Any]:
        name = "mysql" if url is None else url.split("?")[0].rpartition("/")[2]
        connection = pymysql.connect(
            unix_socket=str(self.folder / "socket"), user="root", database=name, charset="utf8mb4", autocommit=True
        )
        try:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def url(self, name: str, *, user: str | None = None, password: str | None = None) -> str:
        who = f"{user or 'root'}{'' if password is None else f':{password}'}"
        return f"mysql+pymysql://{who}@localhost/{name}?unix_socket={self.folder / 'socket'}"

    def cut(self) -> int:
        rows = self.execute(
            "SELECT id FROM information_schema.processlist WHERE id <> connection_id() AND user = 'root'"
        )
        for (number,) in rows:
            # It may have ended by itself.
            with contextlib.suppress(pymysql.err.OperationalError):
                self.execute(f"KILL {number}")
        return len(rows)

    def _installation(self) -> list[str]:
        found = shutil.which("mariadb-install-db")
        assert found is not None
        return [
            found,
            "--no-defaults",
            f"--datadir={self.folder / 'data'}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--innodb-log-file-size=16M",
            "--innodb-flush-method=nosync",
        ]

    def _command(self) -> list[str]:
        found = tool("mariadbd")
        assert found is not None
        options = {
            "datadir": self.folder / "data",
            "socket": self.folder / "socket",
            "pid-file": self.folder / "pid",
            "innodb-flush-log-at-trx-commit": 1 if self.durable else 0,
            "innodb-doublewrite": "ON" if self.durable else "OFF",
            "innodb-flush-method": "fsync" if self.durable else "nosync",
            "innodb-buffer-pool-size": "96M",
            "innodb-log-file-size": "64M",
            "max-connections": 300,
            "performance-schema": "OFF",
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        return [str(found), "--no-defaults", "--skip-networking", "--skip-name-resolve", *words]

    def _socket(self) -> Path:
        return self.folder / "socket"

    def _make(self, name: str) -> None:
        self.execute(f"CREATE DATABASE {name}")

    def _stop(self) -> None:
        os.kill(int((self.folder / "pid").read_text()), 15)


def sqlite(registry: SqlRegistry) -> SqliteDatabase:
    """Give the database of a registry that is on SQLite."""
    database = registry._database
    assert isinstance(database, SqliteDatabase)
    return database


KINDS: Final[dict[str, type[Server]]] = {"postgresql": Postgres, "mariadb": Mariadb}
_running: dict[str, Server] = {}


def server(kind: str) -> Server:
    """Give the server of this run, started if it does not run."""
    if kind not in _running:
        _running[kind] = new_server(kind)
        _running[kind].start()
    return _running[kind]


def new_server(kind: str | type[Server], *, durable: bool = False) -> Server:
    """Make a server of one's own, of a kind or of a class, which the caller is to remove."""
    # Not among the tests' own files, which no other user may come near.
    folder = Path("/tmp") / f"glancefs-database-{os.environ[MARK]}-{uuid.uuid4().hex[:8]}"
    return (KINDS[kind] if isinstance(kind, str) else kind)(folder, durable=durable)


def registry_of(kind: str, folder: Path, **options: Any) -> SqlRegistry:
    """Open the registry that belongs to a folder, in this process or another one: a note in it says where."""
    note = folder / "registry.url"
    if not note.exists():
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(server(kind).take())
    return SqlRegistry(url=note.read_text(), **options)


def forget(kind: str, folder: Path) -> None:
    """Say that the registry of a folder is not used any longer."""
    server(kind).give_back((folder / "registry.url").read_text())


@dataclass(slots=True)
class Meter:
    """Counts what a registry's lookers read."""

    rows: int = 0
    statements: int = 0
    plans: list[str] = field(default_factory=list)


@contextlib.contextmanager
def rows_read(registry: SqlRegistry) -> Iterator[Meter]:
    """Count the rows that looks at the registry read, by what the server itself says of each statement."""
    database = registry._database
    assert isinstance(database, ServerDatabase)
    meter = Meter()
    measure = _explain if database.kind == "PostgreSQL" else _count

    def before(_connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        meter.statements += 1
        measure(cursor, statement, parameters, meter)

    event.listen(database._engine, "before_cursor_execute", before)
    try:
        yield meter
    finally:
        event.remove(database._engine, "before_cursor_execute", before)


def _explain(cursor: Any, statement: str, parameters: Any, meter: Meter) -> None:
    """Have PostgreSQL carry a statement out and tell what it read (https://www.postgresql.org/docs/15/sql-explain.html)."""
    with cursor.connection.cursor() as other:
        found = other.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).fetchone()
    meter.plans.append(f"{statement}\n{json.dumps(found[0], indent=1)}")
    nodes = [found[0][0]["Plan"]]
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if "Relation Name" in node:
            read = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            meter.rows += round(read * node["Actual Loops"])


def _count(cursor: Any, statement: str, parameters: Any, meter: Meter) -> None:
    """Carry a statement out, and have MariaDB tell what it read (https://mariadb.com/kb/en/server-status-variables/)."""
    with cursor.connection.cursor() as other:
        other.execute("FLUSH STATUS")
        other.execute(statement, parameters)
        other.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
        counted = {name: int(value) for name, value in other.fetchall()}
        other.execute(f"EXPLAIN {statement}", parameters)
        meter.plans.append(f"{statement}\n{counted}\n" + "\n".join(map(str, other.fetchall())))
    # What comes from tables of its own making was counted where it was put into them.
    names = ("first", "key", "last", "next", "prev", "rnd")
    meter.rows += sum(counted[f"Handler_read_{name}"] for name in names)


@pytest.fixture(autouse=True)
def databases_are_given_back() -> Iterator[None]:
    """Let the next test have the databases of this one."""
    yield
    for running in _running.values():
        running.give_all_back()


@pytest.fixture(scope="session", autouse=True)
def servers_stop(nothing_is_left: None) -> Iterator[None]:
    """Stop the servers before the run is looked over for what it left."""
    yield
    while _running:
        _running.popitem()[1].remove()

# SPDX-License-Identifier: Apache-2.0
"""The how-to pages of databases and object stores do what they say: each command, as it is printed.

Answers for running a page against a server of its own, with the configuration that the page shows. Only places differ:
the database's address, which on the pages is ``db.example``, and the folders of the system.

Threading: none.
"""

from __future__ import annotations

import io
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from glancefs.context import LOCAL_USER, RequestContext
from glancefs.images import Images
from glancefs.model import ImageType, NewImage
from glancefs.registries.sql import SqlRegistry, registry_url
from glancefs.stores.file import FileStore
from tests.e2e.test_tour import matches, steps
from tests.support.capabilities import POSTGRESQL, ROOT
from tests.support.databases import Postgres, Server, new_server, server
from tests.support.processes import Processes, product, run
from tests.support.proxies import Relay
from tests.support.servers import start_server
from tests.support.swift import KEY, USER, Swift

PAGES = ROOT / "docs" / "how-to"
PASSWORD = "the password"
_MARK = "--- the next command ---"
# The package is installed here; what asks for a password gets it, since there is no terminal.
_PREAMBLE = f"""exec 2>&1
pip() {{ :; }}
createuser() {{ printf '{PASSWORD}\\n{PASSWORD}\\n' | command createuser "$@"; }}
"""


class Page:
    """A how-to page, with its places changed to those of this run."""

    def __init__(self, name: str, places: Mapping[str, str]) -> None:
        self._places = places
        self._shown = (PAGES / name).read_text()
        self._text = self.here(self._shown)

    def here(self, text: str) -> str:
        """Give a text with the places of this run."""
        for place, ours in self._places.items():
            text = text.replace(place, ours)
        return text

    def blocks(self, kind: str) -> list[str]:
        """Give the blocks of a kind, here."""
        found = re.findall(r"^```(\w*)\n(.*?)^```", self._text, re.MULTILINE | re.DOTALL)
        return [block for its_kind, block in found if its_kind == kind]

    def check(self, *, env: Mapping[str, str], home: Path) -> None:
        """Run the page's commands in one shell, without a terminal, and compare what each prints."""
        told = steps(f"<!-- tour -->{self._shown}<!-- /tour -->")
        assert told
        script = _PREAMBLE + "".join(f"{self.here(step.command)}\necho '{_MARK}'\n" for step in told)
        path = os.pathsep.join([str(product().parent), str(POSTGRESQL), os.environ["PATH"]])
        known = {"HOME": str(home), "PATH": path, **env}
        printed = run(["setsid", "--wait", "bash", "-c", script], env=known, cwd=home, timeout=300).out
        for step, lines in zip(told, printed.split(f"{_MARK}\n"), strict=False):
            assert matches(step.output, lines.splitlines()), f"$ {step.command}\n{lines}"
        assert printed.count(_MARK) == len(told), printed


def fill(data: Path) -> None:
    """Make a data folder with two images."""
    data.mkdir()
    with closing(SqlRegistry(url=registry_url(data), migrate=True)) as registry:
        images = Images(registry=registry, stores={"file": FileStore(path=data / "images")}, default_store="file")
        for name, size in (("kernel", 4096), ("distros/disk", 8192)):
            images.add(
                RequestContext(user=LOCAL_USER, is_admin=True),
                NewImage(name=name, type=ImageType.RAW),
                io.BytesIO(os.urandom(size)),
            )


def configured(page: Page, place: Path, data: Path) -> dict[str, str]:
    """Write the configuration that the page shows first; give what the environment says."""
    (place / "config.toml").write_text(page.blocks("toml")[0])
    return {"GLANCEFS_CONFIG": str(place / "config.toml"), "GLANCEFS_DATA": str(data)}


class _GuardedPostgres(Postgres):
    """One whose only user without a password is the administrator."""

    def _installation(self) -> list[str]:
        return [word.replace("=glancefs", "=postgres") for word in super()._installation()]

    def start(self) -> None:
        hba = "local all postgres trust\nlocal all all scram-sha-256\n"
        (self.folder / "data" / "pg_hba.conf").write_text(hba)
        super().start()

    def url(self, name: str, *, user: str | None = None, password: str | None = None) -> str:
        return super().url(name, user=user or "postgres", password=password)


@pytest.fixture
def guarded() -> Iterator[Server]:
    guarded = new_server(_GuardedPostgres)
    try:
        guarded.start()
        yield guarded
    finally:
        guarded.remove()


@pytest.mark.needs("postgresql", "pg_dump")
def test_the_page_on_postgresql(guarded: Server, tmp_path: Path) -> None:
    fill(tmp_path / "data")
    with Relay(listen="127.0.0.1", target=guarded._socket()) as relay:
        places = {
            "db.example:5432": f"127.0.0.1:{relay.port}",
            "db.example": f"127.0.0.1:{relay.port}",
            "/var/lib/glancefs": str(tmp_path / "data"),
            "/etc/glancefs": str(tmp_path),
        }
        page = Page("postgresql.md", places)
        (passwords,) = [block for block in page.blocks("") if block.startswith("127.0.0.1")]
        (tmp_path / ".pgpass").touch(mode=0o600)
        (tmp_path / ".pgpass").write_text(passwords)
        env = configured(page, tmp_path, tmp_path / "data")
        # For the administrator's commands, who types them on the server.
        page.check(env=env | {"PGHOST": str(guarded.folder), "PGUSER": "postgres"}, home=tmp_path)


@pytest.fixture
def shared() -> Iterator[Server]:
    """The server of all tests, which is left without what the page makes."""
    shared = server("mariadb")
    yield shared
    shared.execute("DROP DATABASE glancefs", "DROP DATABASE restored", "DROP USER glancefs@'%'")


@pytest.mark.needs("mariadb", "mariadb-dump")
def test_the_page_on_mariadb(shared: Server, tmp_path: Path) -> None:
    fill(tmp_path / "data")
    with Relay(listen="127.0.0.1", target=shared._socket()) as relay:
        places = {
            "--host=db.example": f"--host=127.0.0.1 --port={relay.port}",
            "db.example": f"127.0.0.1:{relay.port}",
            "/var/lib/glancefs": str(tmp_path / "data"),
            "/etc/glancefs": str(tmp_path),
        }
        page = Page("mariadb.md", places)
        for block in page.blocks("sql"):
            shared.execute(*filter(None, map(str.strip, block.split(";"))))
        (tmp_path / "mariadb.cnf").touch(mode=0o600)
        (tmp_path / "mariadb.cnf").write_text(page.blocks("ini")[0])
        page.check(env=configured(page, tmp_path, tmp_path / "data"), home=tmp_path)


def blank(path: Path, mebibytes: int) -> None:
    with path.open("wb") as file:
        file.truncate(mebibytes << 20)


@pytest.mark.soak
@pytest.mark.needs("swift", "curl")
def test_the_page_on_swift(swift: Swift, processes: Processes, tmp_path: Path) -> None:
    blank(tmp_path / "disk.raw", 40)
    blank(tmp_path / "kernel", 5)
    places = {"https://swift.example/auth/v1.0": swift.auth_url, "images:glancefs": USER, '"…"': f'"{KEY}"'}
    keystone, login, *_ = Page("swift.md", places).blocks("toml")
    assert keystone.splitlines()[1] == 'default_store = "swift"'
    (tmp_path / "config.toml").write_text(f'default_store = "swift"\n{login}')
    env = {"GLANCEFS_CONFIG": str(tmp_path / "config.toml"), "GLANCEFS_DATA": str(tmp_path / "data")}
    server = start_server(processes, tmp_path / "data", env=env)
    account = {"ST_AUTH": swift.auth_url, "ST_USER": USER, "ST_KEY": KEY}
    try:
        Page("swift.md", {"http://127.0.0.1:9292": server.url}).check(env=env | account, home=tmp_path)
    finally:
        # It deletes parts with their image, and then does not find them.
        run([product("swift"), "delete", "glancefs"], env=account, expect=None)


@pytest.mark.needs("swift")
def test_the_page_on_s3(swift: Swift, tmp_path: Path) -> None:
    blank(tmp_path / "disk.raw", 40)
    blank(tmp_path / "kernel", 5)
    places = {"https://s3.example": swift.url, 'access_key = "…"': f'access_key = "{USER}"', '"…"': f'"{KEY}"'}
    page = Page("s3.md", places)
    _, elsewhere = page.blocks("toml")
    config = f'default_store = "s3"\n{elsewhere}'.replace('"images"', f'"images-{secrets.token_hex(4)}"')
    (tmp_path / "config.toml").write_text(config)
    env = {"GLANCEFS_CONFIG": str(tmp_path / "config.toml"), "GLANCEFS_DATA": str(tmp_path / "data")}
    page.check(env=env, home=tmp_path)

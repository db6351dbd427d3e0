# SPDX-License-Identifier: Apache-2.0
"""The WebDAV share for the tests: a whole server in threads of the test, asked over real sockets.

Answers for the fixture `make_dav` and for the users `alice`, `bob` and the admin `root`, whose passwords are their
names. Asserts nothing about what is answered.

Threading: a share may be asked from many threads at once.
"""

from __future__ import annotations

import http.client
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree.ElementTree import Element

import pytest
from defusedxml import ElementTree

from gateway.assembly import make_application, make_metrics
from gateway.server import Server
from glancefs.assembly import Assembly, Trees, assemble
from glancefs.config import Config
from glancefs.context import RequestContext
from glancefs.model import Image
from glancefs.registries.base import ImageQuery
from glancefs.tree.share import SharedTree
from tests.support.rawhttp import PATIENCE, RawClient
from tests.support.rest import basic, entry

DAV = "{DAV:}"
Body = bytes | Iterable[bytes] | None


@dataclass(slots=True, kw_only=True)
class Reply:
    """An answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def xml(self) -> Element:
        """The body, parsed."""
        root: Element = ElementTree.fromstring(self.body)
        return root

    @property
    def entries(self) -> dict[str, dict[str, Element]]:
        """The properties that were found, by the unquoted href and the property's name."""
        return {
            unquote(response.findtext(f"{DAV}href") or ""): {
                prop.tag: prop
                for stat in response.iterfind(f"{DAV}propstat")
                if "200" in (stat.findtext(f"{DAV}status") or "")
                for prop in stat.iterfind(f"{DAV}prop/*")
            }
            for response in self.xml.iterfind(f"{DAV}response")
        }

    @property
    def statuses(self) -> dict[str, int]:
        """The status of each property that the answer tells of."""
        return {
            prop.tag: int((stat.findtext(f"{DAV}status") or "").split()[1])
            for stat in self.xml.iterfind(f"{DAV}response/{DAV}propstat")
            for prop in stat.iterfind(f"{DAV}prop/*")
        }

    @property
    def conditions(self) -> list[str]:
        """The preconditions that failed, by their local names."""
        return [child.tag.removeprefix(DAV) for child in self.xml]


@dataclass(slots=True, kw_only=True)
class Dav:
    """A share, and what is behind it."""

    core: Assembly
    server: Server
    trees: list[SharedTree] = field(default_factory=list)

    @property
    def target(self) -> tuple[str, int]:
        """Where to connect to."""
        host, _, port = self.server.address.rpartition(":")
        return host, int(port)

    @property
    def url(self) -> str:
        """The URL of the share."""
        return f"{self.server.url}/dav"

    def connect(self) -> RawClient:
        """Open a connection for whatever bytes a test sends."""
        return RawClient(self.target)

    def __call__(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        *,
        user: str | None = "alice",
    ) -> Reply:
        """Ask for something below the share as one of the users; None: as nobody. An iterable goes out in chunks."""
        return self.ask(method, f"/dav{path}", headers, body, user=user)

    def ask(
        self, method: str, target: str, headers: Mapping[str, str] | None, body: Body = None, *, user: str | None
    ) -> Reply:
        """Ask for any target."""
        said = dict(headers or {})
        if user is not None:
            said.setdefault("Authorization", basic(user, user))
        connection = http.client.HTTPConnection(*self.target, timeout=PATIENCE)
        try:
            connection.request(method, target, body=body, headers=said)
            response = connection.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            return Reply(status=response.status, headers=fields, body=response.read())
        finally:
            connection.close()

    def put(self, path: str, data: bytes = b"data", *, user: str = "alice", **headers: str) -> Reply:
        """Put a file, which must go well."""
        reply = self("PUT", path, {name.replace("_", "-"): value for name, value in headers.items()}, data, user=user)
        assert reply.status in {201, 204}, reply
        return reply

    def read(self, path: str, *, user: str | None = "alice") -> bytes:
        """Get a file, which must be there."""
        reply = self("GET", path, user=user)
        assert reply.status == 200, reply
        return reply.body

    def names(self, path: str = "/", *, user: str | None = "alice") -> list[str]:
        """List a folder."""
        reply = self("PROPFIND", path, {"Depth": "1"}, user=user)
        assert reply.status == 207, reply
        return [href.removeprefix(f"/dav{path}") for href in reply.entries if href != f"/dav{path}"]

    def prop(self, path: str, name: str, *, user: str | None = "alice") -> str | None:
        """Give the text of one property; None where it is not there."""
        found = self("PROPFIND", path, {"Depth": "0"}, user=user).entries
        element = next(iter(found.values())).get(name)
        return None if element is None else "".join(element.itertext())

    def lock(self, path: str, *, user: str = "alice", depth: str = "infinity", scope: str = "exclusive") -> str:
        """Lock a path; give the token."""
        reply = self("LOCK", path, {"Depth": depth}, lockinfo(scope), user=user)
        assert reply.status in {200, 201}, reply
        return reply.headers["lock-token"].strip("<>")

    def images(self, name: str | None = None) -> list[Image]:
        """Give all images of a name (None: of any), as the registry has them."""
        query = ImageQuery(is_public=None, name=name)
        return list(self.core.images.find_all(RequestContext(user="root", is_admin=True), query))

    def tree(self, user: str = "alice") -> SharedTree:
        """Give a user's tree, as another process would see it."""
        trees = Trees(self.core)
        return trees.of(RequestContext(user=user, is_admin=user == "root"), public_url=self.server.url)


def lockinfo(scope: str = "exclusive") -> bytes:
    """Give the body of a LOCK."""
    return (
        f'<?xml version="1.0"?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:{scope}/></D:lockscope>'
        f"<D:locktype><D:write/></D:locktype><D:owner><D:href>mailto:a@b</D:href></D:owner></D:lockinfo>"
    ).encode()


def propfind(*names: str) -> bytes:
    """Give the body of a PROPFIND that names properties in Clark's notation."""
    props = "".join(_element(name) for name in names)
    return f'<D:propfind xmlns:D="DAV:"><D:prop>{props}</D:prop></D:propfind>'.encode()


def proppatch(values: Mapping[str, str | None]) -> bytes:
    """Give the body of a PROPPATCH that sets properties, or removes those that are None."""
    steps = "".join(
        f"<D:remove><D:prop>{_element(name)}</D:prop></D:remove>"
        if text is None
        else f"<D:set><D:prop>{_element(name, text)}</D:prop></D:set>"
        for name, text in values.items()
    )
    return f'<D:propertyupdate xmlns:D="DAV:">{steps}</D:propertyupdate>'.encode()


def _element(name: str, text: str = "") -> str:
    namespace, _, local = name.removeprefix("{").rpartition("}")
    return f'<{local} xmlns="{namespace}">{text}</{local}>'


class DavMaker:
    """Makes shares that last until `close`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[tuple[Server, Assembly, Any]] = []

    def __call__(self, *, users: bool = True, **said: Any) -> Dav:
        """Make one with options of the configuration, by dotted keys with two underscores."""
        data = self._folder / f"data{len(self._made)}"
        data.mkdir()
        options: dict[str, Any] = {key.replace("__", "."): value for key, value in said.items()}
        if users:
            passwords = data / "users"
            passwords.write_text("".join(entry(user, user) for user in ("alice", "bob", "root")))
            options |= {"auth.mode": "htpasswd", "auth.htpasswd": passwords, "auth.admins": ["root"]}
        config = Config.at(data, options)
        core = assemble(config, migrate=True)
        metrics = make_metrics(config.gateway)
        application = make_application(core, metrics=metrics)
        server = Server(app_factory=lambda: application, listen="127.0.0.1:0", observer=metrics.observe)
        server.start()
        self._made.append((server, core, (application, metrics)))
        return Dav(core=core, server=server)

    def close(self) -> None:
        """End what was made."""
        for server, core, (application, metrics) in reversed(self._made):
            server.stop()
            application.close()
            core.close()
            metrics.close()


@pytest.fixture
def make_dav(tmp_path: Path) -> Iterator[DavMaker]:
    """Make shares that last for the test."""
    maker = DavMaker(tmp_path)
    yield maker
    maker.close()


@pytest.fixture(scope="module")
def dav(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dav]:
    """A share that lasts for the module; each test works in a folder of its own."""
    maker = DavMaker(tmp_path_factory.mktemp("dav"))
    yield maker()
    maker.close()


@pytest.fixture
def folder(dav: Dav) -> str:
    """A folder of the test's own, made by alice: ``/name``."""
    name = secrets.token_hex(6)
    assert dav("MKCOL", f"/{name}").status == 201
    return f"/{name}"

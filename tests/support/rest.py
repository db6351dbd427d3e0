# SPDX-License-Identifier: Apache-2.0
"""The images API for the tests: a whole core below it, asked over WSGI or over real HTTP.

Answers for the fixtures `rest` (both ways, one after the other) and `make_rest` (with options), and for their users:
`alice`, `bob` and the admin `root`, whose passwords are their names. Asserts nothing about what is answered.

Threading: an API may be asked from many threads at once.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import bcrypt
import pytest

from gateway.application import ROUTES, Application
from gateway.auth import HtpasswdAuth
from gateway.health import Health
from gateway.metrics import Metrics, MetricsPage
from gateway.passwords import PasswordFile, RememberedPasswords
from gateway.rest.door import RestDoor
from gateway.server import Server
from glancefs.headers import meta_from_headers
from glancefs.images import Images, utc_now
from glancefs.registries.sql import SqlRegistry, registry_url
from glancefs.relocation import Relocation
from glancefs.stores.base import Store
from glancefs.stores.file import FileStore
from glancefs.stores.memory import MemoryStore
from tests.support.rawhttp import RawClient

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

Headers = Mapping[str, str] | Sequence[tuple[str, str]]
Body = bytes | list[bytes] | None
"""Bytes go with their length, a list goes in chunks."""

KERNEL = {"x-image-meta-name": "a kernel", "x-image-meta-type": "kernel"}
PUBLIC = KERNEL | {"x-image-meta-is_public": "true"}
OCTETS = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)

    @property
    def meta(self) -> dict[str, Any]:
        """The image's metadata in the headers, decoded."""
        return meta_from_headers(self.headers.items())

    @property
    def code(self) -> str:
        """What kind of problem it is."""
        return str(self.json["type"]).removeprefix("urn:glancefs:error:")

    @property
    def detail(self) -> str:
        """The sentence of a problem."""
        return str(self.json["detail"])


class Transport(Protocol):
    """A way to the application."""

    def __call__(self, method: str, target: str, headers: list[tuple[str, str]], body: Body) -> Reply:
        """Carry a request there and its answer back."""


@dataclass(slots=True, kw_only=True)
class Rest:
    """The API of one server."""

    send: Transport
    images: Images
    registry: SqlRegistry
    store: Store
    passwords: Path
    metrics: Metrics
    host: str = "images.example.org"
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(
        self, method: str, target: str, headers: Headers = (), body: Body = None, *, user: str | None = "alice"
    ) -> Reply:
        """Ask for something as one of the users; None: as nobody."""
        said = list(headers.items() if isinstance(headers, Mapping) else headers)
        names = {name.lower() for name, _ in said}
        if "host" not in names:
            said.insert(0, ("Host", self.host))
        if user is not None and "authorization" not in names:
            said.append(("Authorization", basic(user, user)))
        return self.send(method, target, said, body)

    def add(self, headers: Headers = KERNEL, body: Body = b"data", *, user: str = "alice") -> dict[str, Any]:
        """Add an image, and give what the answer tells about it."""
        reply = self("POST", "/images/", headers, body, user=user)
        assert reply.status == 201, reply
        image: dict[str, Any] = reply.json["image"]
        return image

    def ids(self, target: str = "/images/", *, user: str | None = "alice") -> list[str]:
        """Give the ids in a list, in its order."""
        reply = self("GET", target, user=user)
        assert reply.status == 200, reply
        return [image["id"] for image in reply.json["images"]]

    def holds_nothing(self) -> bool:
        """Whether neither registry nor store keeps anything."""
        swept = self.store.sweep(lambda _: ())
        return not self.registry.holdings() and swept.uploads == swept.orphans == 0


def basic(user: str, password: str) -> str:
    """Give the Authorization of a user."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def entry(user: str, password: str) -> str:
    """Give a user's line in a file of users; cheap to check."""
    return f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n"


class OverWsgi:
    """Calls the application as the server would."""

    def __init__(self, application: Application) -> None:
        self.application = application

    def __call__(self, method: str, target: str, headers: list[tuple[str, str]], body: Body) -> Reply:
        """Carry a request there and its answer back."""
        environ = wsgi_environ(method, target, headers, body)
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, fields: list[tuple[str, str]], _: object = None) -> Callable[[bytes], None]:
            started.append((status, fields))
            return lambda _: None

        pieces: Any = self.application(environ, start_response)
        try:
            data = b"".join(bytes(piece) for piece in pieces)
        finally:
            if hasattr(pieces, "close"):
                pieces.close()
        [(status, fields)] = started
        assert all(f"{name}{value}".isascii() for name, value in fields)
        return Reply(status=int(status[:3]), headers={name.lower(): value for name, value in fields}, body=data)


class OverHttp:
    """Sends requests to a server that runs in threads of the test."""

    def __init__(self, server: Server) -> None:
        host, _, port = server.address.rpartition(":")
        self.target = (host, int(port))

    def __call__(self, method: str, target: str, headers: list[tuple[str, str]], body: Body) -> Reply:
        """Carry a request there and its answer back, on a connection of its own."""
        lines = [*headers, ("Connection", "close")]
        if isinstance(body, list):
            lines.append(("Transfer-Encoding", "chunked"))
            data = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in body) + b"0\r\n\r\n"
        else:
            data = body or b""
            if body is not None and "content-length" not in {name.lower() for name, _ in headers}:
                lines.append(("Content-Length", str(len(body))))
        head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines)
        with RawClient(self.target) as client:
            answer = client.ask(head.encode("latin-1") + b"\r\n" + data, method=method)
        return Reply(status=answer.status, headers=answer.headers, body=answer.body)


def wsgi_environ(method: str, target: str, headers: Sequence[tuple[str, str]], body: Body) -> WSGIEnvironment:
    """Give the environ that the server makes of a request."""
    path, _, query = target.partition("?")
    data = b"".join(body) if isinstance(body, list) else body or b""
    environ: WSGIEnvironment = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "9292",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(data),
        "glancefs.header_fields": tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers),
    }
    if isinstance(body, list):
        environ["HTTP_TRANSFER_ENCODING"] = "chunked"
    elif body is not None:
        environ["CONTENT_LENGTH"] = str(len(data))
    for name, value in headers:
        key = name.upper().replace("-", "_")
        if key not in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
            key = f"HTTP_{key}"
        environ[key] = f"{environ[key]}, {value}" if key in environ and key.startswith("HTTP_") else value
    return environ


class RestMaker:
    """Makes APIs, each over a folder of its own, and ends them all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._closing: list[Callable[[], None]] = []

    def __call__(
        self,
        *,
        over: str = "wsgi",
        public_url: str | None = None,
        capacity: int | None = None,
        mounted: Any = None,
        others: Mapping[str, Store] | None = None,
        **options: Any,
    ) -> Rest:
        """Make an API that is asked over "wsgi" or "http"; ``others`` are further stores, options those of Images."""
        folder = self._folder / f"data{len(self._closing)}"
        folder.mkdir()
        passwords = folder / "htpasswd"
        passwords.write_text("".join(entry(user, user) for user in ("alice", "bob", "root")))
        registry = SqlRegistry(url=registry_url(folder), migrate=True)
        self._closing.append(registry.close)
        # Each way has a kind of store of its own, so that data leave as slices of files and as bytes.
        store: Store = (
            FileStore(path=folder / "images") if over == "http" else MemoryStore(scheme="file", capacity=capacity)
        )
        metrics = Metrics(routes=ROUTES)
        self._closing.append(metrics.close)
        stores = {"file": store, **(others or {})}
        images = Images(registry=registry, stores=stores, default_store="file", **options)
        relocation = Relocation(registry=registry, stores=stores, clock=utc_now)
        health = Health(registry=registry, stores={"file": store})
        application = Application(
            door=RestDoor(images=images, relocation=relocation, uploads=metrics.upload),
            authenticator=HtpasswdAuth(
                file=PasswordFile(path=passwords), remembered=RememberedPasswords(), admins=("root",)
            ),
            health=health,
            metrics=MetricsPage(metrics=metrics, registry=registry, health=health),
            public_url=public_url,
            mounted=mounted,
        )
        send = self._serve(application, metrics) if over == "http" else OverWsgi(application)
        return Rest(send=send, images=images, registry=registry, store=store, passwords=passwords, metrics=metrics)

    def close(self) -> None:
        """End what was made."""
        for close in reversed(self._closing):
            close()

    def _serve(self, application: Application, metrics: Metrics) -> Transport:
        server = Server(app_factory=lambda: application, listen="127.0.0.1:0", observer=metrics.observe)
        server.start()
        self._closing.append(server.stop)
        return OverHttp(server)


MakeRest = RestMaker


@pytest.fixture
def make_rest(tmp_path: Path) -> Iterator[RestMaker]:
    """Make APIs that last for the test."""
    maker = RestMaker(tmp_path)
    yield maker
    maker.close()


@pytest.fixture(scope="module")
def make_shared_rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestMaker]:
    """Make APIs that last for the module, for tests that ask many times."""
    maker = RestMaker(tmp_path_factory.mktemp("rest"))
    yield maker
    maker.close()


@pytest.fixture(params=["wsgi", "http"])
def rest(request: pytest.FixtureRequest, make_rest: MakeRest) -> Rest:
    """The API, over WSGI and over HTTP."""
    return make_rest(over=request.param)

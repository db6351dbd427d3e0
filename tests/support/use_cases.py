# SPDX-License-Identifier: Apache-2.0
"""The use cases as several users have them: in this process, or by way of a real server in it.

Answers for making both over the same core, so that one suite can be run over them. Judges nothing.

Threading: a server answers in threads of its own; the rest belongs to one test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.assembly import make_application, make_metrics
from gateway.http.exchange import App
from gateway.server import Server
from glancefs.assembly import Assembly, assemble
from glancefs.cli.htpasswd import Htpasswd
from glancefs.config import Config
from glancefs.context import ANONYMOUS, RequestContext
from glancefs.remote.connection import ServerConnection
from glancefs.remote.folders import RemoteFolders, RemoteLocks
from glancefs.remote.images import RemoteImages
from glancefs.transport import Credentials
from glancefs.tree.ports import TreeFolders, TreeImages, TreeLocks

ADMIN: Final = "root"
USERS: Final = ("ann", "bob", ADMIN)
PATIENCE: Final = 60.0
"""How long an answer may take on a machine that is busy; what a deadline does is tested on its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """One user, and the use cases as that user has them."""

    context: RequestContext
    images: TreeImages
    folders: TreeFolders
    locks: TreeLocks


class Here:
    """The use cases in this process; a context manager is not needed, `close` ends it."""

    def __init__(self, folder: Path) -> None:
        self.core = _core(folder)

    def caller(self, user: str | None) -> Caller:
        """Give a user, or with None nobody."""
        context = _context(user)
        return Caller(context=context, images=self.core.images, folders=self.core.folders, locks=self.core.locks)

    def close(self) -> None:
        """Let go of everything."""
        self.core.close()


@dataclass(slots=True)
class Far:
    """The same by way of a server; ``between`` stands between the server's URL and who asks."""

    folder: Path
    between: Callable[[str], str] = lambda url: url
    wrap: Callable[[App], App] = lambda app: app
    timeout: float = PATIENCE
    said: Mapping[str, object] = field(default_factory=dict)
    """Further options of the server."""
    core: Assembly = field(init=False)
    server: Server = field(init=False)
    opened: list[ServerConnection] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.core = _core(self.folder, self.said)
        for user in USERS:
            Htpasswd(path=self.folder / "htpasswd", cost=4).put(user, f"password of {user}")
        metrics = make_metrics(self.core.config.gateway)
        application = make_application(self.core, metrics=metrics)
        self.server = Server(
            app_factory=lambda: self.wrap(application),
            listen="127.0.0.1:0",
            shutdown_timeout=5,
            on_exit=lambda _: application.close(),
        )
        self.server.start()

    def connect(self, user: str | None) -> ServerConnection:
        """Open the way to the server, as a user or as nobody."""
        credentials = Credentials() if user is None else Credentials(user=user, password=f"password of {user}")
        connection = ServerConnection(url=self.between(self.server.url), credentials=credentials, timeout=self.timeout)
        self.opened.append(connection)
        return connection

    def caller(self, user: str | None) -> Caller:
        """Give a user, or with None nobody."""
        server = self.connect(user)
        return Caller(
            context=_context(user),
            images=RemoteImages(server=server),
            folders=RemoteFolders(server=server),
            locks=RemoteLocks(server=server),
        )

    def close(self) -> None:
        """Let go of everything."""
        for connection in self.opened:
            connection.close()
        self.server.stop()
        self.core.close()


def _core(folder: Path, said: Mapping[str, object] | None = None) -> Assembly:
    users = {"auth.mode": "htpasswd", "auth.htpasswd": str(folder / "htpasswd"), "auth.admins": [ADMIN]}
    return assemble(Config.at(folder, {**users, **(said or {})}), migrate=True)


def _context(user: str | None) -> RequestContext:
    return ANONYMOUS if user is None else RequestContext(user=user, is_admin=user == ADMIN)


def held(folder: str = "incoming") -> int:
    """How many files without a name in a folder, whose path ends so, this process has open: the server is in it."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            found += f"{folder}/#" in str(link.readlink())
        except OSError:
            continue
    return found

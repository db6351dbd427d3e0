# SPDX-License-Identifier: Apache-2.0
"""``glancefs mount URL MOUNTPOINT``: the images of a server as files.

Answers for what is said of such a mount and of no other: credentials, deadlines, and where on this host's disk is
staged what is written. How requests are answered, `glancefs.fuse` knows.

Threading: used by the main thread; a mount in the background is a process of its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from glancefs.errors import ConfigError, GlancefsError

if TYPE_CHECKING:
    from glancefs.fuse.bridge import Deadlines
    from glancefs.fuse.options import MountOptions
    from glancefs.remote_assembly import RemoteAssembly
    from glancefs.transport import Credentials

_log = logging.getLogger(__name__)

_AHEAD: Final = 8
"""How far is fetched ahead of who reads in a run, as a multiple of how far the kernel reads ahead."""
_PART: Final = 0.75
"""The part of the time that a program waits for which the server is waited for."""
_SLOWEST_LINE: Final = 64 * 1024
"""Bytes per second: a line that carries less has no time to carry an image."""


def is_server(source: str) -> bool:
    """Whether a source is the URL of a server, rather than a path."""
    return source.startswith(("http://", "https://"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteMount:
    """What was said of a mount of a server."""

    url: str
    options: MountOptions
    credentials: Credentials
    cacert: Path | None
    staging: Path

    @classmethod
    def of(cls, url: str, options: MountOptions) -> RemoteMount:
        """Read what there is to be read before the mount begins. Raises ConfigError."""
        from glancefs.config import cache_folder, remote_from_environment
        from glancefs.credentials import credentials_for

        if options.multiuser:
            message = "A mount of a server acts as whoever has its credentials: multiuser is for data folders."
            raise ConfigError(message)
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            # Not told again: it stands in the list of processes already.
            message = (
                "Every user of this machine can read a password in a URL. Put user=… and password=… into a file that "
                "only you can read, and say -o credentials=FILE."
            )
            raise ConfigError(message)
        if options.user is not None:
            message = "user= is for a data folder; as whom a server is asked, the credentials say."
            raise ConfigError(message)
        remote = remote_from_environment()
        return cls(
            url=url,
            options=options,
            credentials=credentials_for(url, file=options.credentials, remote=remote),
            cacert=options.cacert or remote.cacert,
            staging=options.staging or cache_folder() / "staging",
        )

    def check_place(self, point: Path) -> None:
        """See that nothing that the mount needs would lie on it: it would wait for itself. Raises ConfigError."""
        for name, folder in (("cache", self.options.cache), ("staging", self.staging)):
            if folder is not None and folder.resolve().is_relative_to(point.resolve()):
                message = f"The folder {folder} of the mount option {name} is on the mount itself."
                raise ConfigError(message)

    def serve(self, point: Path, ready: Callable[[], None]) -> None:
        """Serve the mount until it is taken away or a signal comes.

        Raises ConfigError when it can't be mounted, NotAuthenticated, Unavailable.
        """
        from glancefs.config import notify_address
        from glancefs.fuse.daemon import tell_systemd
        from glancefs.fuse.mount import Session
        from glancefs.fuse.statistics import Statistics

        said, statistics, address = self.options, Statistics(), notify_address()

        def tell() -> None:
            ready()
            tell_systemd(address, "READY=1")

        with (
            self._assemble() as core,
            core.tree(is_public=said.public, documents={"stats": statistics.document}) as tree,
        ):
            threading.Thread(target=_clear_up, args=[core], name="sweep", daemon=True).start()
            session = Session(
                tree=tree,
                point=point,
                # As it was said: mount(8) looks for it in fstab(5).
                source=self.url,
                options=said,
                statistics=statistics,
                ready=tell,
                deadlines=self._deadlines(),
            )
            try:
                session.serve()
            finally:
                tell_systemd(address, "STOPPING=1")
                _log.info("%s is unmounted: %s", point, statistics.line())

    def _assemble(self) -> RemoteAssembly:
        from glancefs.remote_assembly import assemble_remote

        said = self.options
        return assemble_remote(
            self.url,
            credentials=self.credentials,
            cacert=self.cacert,
            timeout=_PART * said.timeout,
            staging=self.staging,
            cache=said.cache,
            cache_size=said.cache_size,
            read_ahead=_AHEAD * 1024 * said.read_ahead,
        )

    def _deadlines(self) -> Deadlines:
        from glancefs.fuse.bridge import Deadlines

        usual = Deadlines()
        return Deadlines(
            look=self.options.timeout, change=max(usual.change, self.options.timeout), slowest_data=_SLOWEST_LINE
        )


def refuse_elsewhere(options: MountOptions) -> None:
    """Raise ConfigError for options that only mean something for a server."""
    said = {"credentials": options.credentials, "cacert": options.cacert, "staging": options.staging}
    said["cache"] = options.cache
    for name, value in said.items():
        if value is not None:
            message = f"The mount option {name} is for mounts of a server, by its URL."
            raise ConfigError(message)


def _clear_up(core: RemoteAssembly) -> None:
    try:
        core.clear_up()
    except GlancefsError as error:
        _log.warning("Old staged files could not be removed: %s", error)

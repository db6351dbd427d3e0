# SPDX-License-Identifier: Apache-2.0
"""From the URL of a server to a working tree on it: the one place that knows every class of a mount far away.

Answers for choosing and connecting the connection, the use cases at a distance, reading and its cache, and staging on
this host's own disk, from where files are sent while they are written. Does not read the configuration.

Threading: an assembly is made once per process, after any fork, and then shared by all threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from glancefs.cache.cache import BlockCache
from glancefs.context import RequestContext
from glancefs.errors import ConfigError, InvalidRequest
from glancefs.remote.ahead import Ahead
from glancefs.remote.calls import Greeting
from glancefs.remote.connection import ServerConnection
from glancefs.remote.folders import RemoteFolders, RemoteLocks
from glancefs.remote.images import RemoteImages
from glancefs.remote_reader import MOST_AHEAD, RemoteReaders
from glancefs.remote_source import RemoteSource
from glancefs.staging import Staging, sweep_staged
from glancefs.transport import Credentials
from glancefs.tree import ImageTree

_STAGED: Final = "staged"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteAssembly:
    """What is known of a server, put together; a context manager that lets go of it."""

    server: ServerConnection
    greeting: Greeting
    readers: RemoteReaders
    ahead: Ahead
    staging_folder: Path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of connections and threads; may be called twice."""
        self.ahead.close()
        self.readers.close()
        self.server.close()

    def tree(
        self, *, is_public: bool | None = None, documents: Mapping[str, Callable[[], bytes]] | None = None
    ) -> ImageTree:
        """Put a tree of images on it, as the server knows us; a context manager.

        ``documents`` are further texts in ``.glance/``. What dead mounts of the same user left is in
        ``.glance/pending`` at once. Raises StoreUnavailable where there can't be a staging folder.
        """
        context = RequestContext(user=self.greeting.user, is_admin=self.greeting.is_admin)
        tree = ImageTree(
            images=RemoteImages(server=self.server, open_data=self.readers.open, ahead=self.ahead),
            folders=RemoteFolders(server=self.server),
            locks=RemoteLocks(server=self.server),
            staging=Staging(
                folder=self.staging_folder,
                user=context.user,
                max_upload=self.greeting.largest,
                is_passage=True,
                follow=self.ahead.follow,
            ),
            context=context,
            documents=documents or {},
            is_public=is_public,
            public_url=self.server.url,
        )
        # Nobody left anything; what has lost its owner is not theirs.
        if context.user is not None:
            tree.recover()
        return tree

    def clear_up(self) -> None:
        """Remove staged files that nobody came back for. Raises StoreUnavailable."""
        sweep_staged(self.staging_folder)


def assemble_remote(
    url: str,
    *,
    credentials: Credentials,
    cacert: Path | None = None,
    timeout: float = 10.0,
    staging: Path,
    cache: Path | None = None,
    cache_size: int = 20 << 30,
    read_ahead: int = MOST_AHEAD,
) -> RemoteAssembly:
    """Ask the server at a URL who it is, and put together what a mount of it needs.

    What is written is staged below ``staging``, and what is read kept in ``cache``, if that is said, up to
    ``cache_size`` bytes; ``read_ahead`` bounds how many bytes are fetched ahead. Raises ConfigError for what is no
    server that mounts can use, NotAuthenticated, Unavailable.
    """
    server = _connect(url, credentials=credentials, cacert=cacert, timeout=timeout)
    try:
        greeting = server.greet()
        readers = RemoteReaders(
            source_of=lambda image: RemoteSource(client=server.client, image=image),
            cache=None if cache is None else BlockCache(path=cache, limit=cache_size),
            patience=timeout,
            most_ahead=read_ahead,
        )
    except BaseException:
        server.close()
        raise
    return RemoteAssembly(
        server=server,
        greeting=greeting,
        readers=readers,
        ahead=Ahead(transport=server.transport, timeout=timeout),
        staging_folder=staging / _folder_of(greeting) / _STAGED,
    )


def _connect(url: str, *, credentials: Credentials, cacert: Path | None, timeout: float) -> ServerConnection:
    try:
        if cacert is not None:
            cacert.read_bytes()
        return ServerConnection(url=url, credentials=credentials, cacert=cacert, timeout=timeout)
    except OSError as error:
        message = f"The file of trusted certificates {cacert} can't be read: {error.strerror}."
        raise ConfigError(message) from None
    except InvalidRequest as error:
        raise ConfigError(str(error)) from None


def _folder_of(greeting: Greeting) -> str:
    """Name a folder by the server: what was staged for one is nothing to another, whatever their URLs are."""
    name = "".join(letter for letter in greeting.identity if letter.isalnum())
    return name or "server"

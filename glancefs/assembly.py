# SPDX-License-Identifier: Apache-2.0
"""From a configuration to a working core: the one place that knows every class.

Answers for choosing and connecting registry, stores and use cases. Does not read the configuration, and starts nothing
that the first use would not start.

Threading: an assembly is made once per process, after any fork, and then shared by all threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from glancefs.arrivals import MOST as MOST_ARRIVALS
from glancefs.arrivals import Arrivals
from glancefs.config import Config
from glancefs.context import LOCAL_USER, RequestContext
from glancefs.dead_properties import DeadProperties
from glancefs.errors import ConfigError
from glancefs.folders import Folders
from glancefs.images import Images, utc_now
from glancefs.locks import Locks
from glancefs.model import ImageStatus
from glancefs.registries.base import Registry, ServedRegistry
from glancefs.registries.remote import RemoteRegistry
from glancefs.registries.sql import SqlRegistry
from glancefs.relocation import Relocation
from glancefs.staging import SharedArea, Staging, sweep_shared, sweep_staged
from glancefs.stores.base import Store, Swept
from glancefs.stores.owner import Owner
from glancefs.storing import make_stores
from glancefs.sweep import sweep
from glancefs.tree import ImageTree
from glancefs.tree.begun import Begun
from glancefs.tree.share import SharedTree
from glancefs.tree.shared import SharedOverlay

STAGED: Final = "staged"
"""The folder of files that are not yet images, beside the uploads of the store that they are for."""

SHARED: Final = "shared"
"""The folder of files that are not yet images, of the doors whose requests come to any process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """The core, put together; a context manager that lets go of it."""

    config: Config
    registry: ServedRegistry
    stores: Mapping[str, Store]
    images: Images
    folders: Folders
    locks: Locks
    dead_properties: DeadProperties
    relocation: Relocation

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def once(self, key: str, *, until: float | None = None) -> Assembly:
        """Give the same core for one change, which is made once however often it is asked for (`ServedRegistry.once`).

        It costs next to nothing, and is let go of without `close`.
        """
        return _over(self.config, self.registry.once(key, until=until), self.stores)

    def close(self) -> None:
        """Let go of connections and threads; may be called twice."""
        for store in self.stores.values():
            store.close()
        self.registry.close()


def assemble(config: Config, *, migrate: bool = False) -> Assembly:
    """Put the core together; with ``migrate`` bring the registry's database up to date first.

    Raises ConfigError for what can't be put together, SchemaTooNew for a database of a later version,
    RegistryUnavailable and StoreUnavailable when they don't answer.
    """
    registry = open_registry(config, migrate=migrate)
    try:
        stores = make_stores(config.stores, owners=_owners(registry, config.stores.configured()))
    except BaseException:
        registry.close()
        raise
    return _over(config, registry, stores)


def _over(config: Config, registry: ServedRegistry, stores: Mapping[str, Store]) -> Assembly:
    return Assembly(
        config=config,
        registry=registry,
        stores=stores,
        images=Images(
            registry=registry,
            stores=stores,
            default_store=config.default_store,
            default_is_public=config.default_is_public,
            image_ids="uuid" if config.image_ids == "uuid" else "integer",
            max_upload=config.gateway.max_upload,
        ),
        folders=Folders(registry=registry, clock=utc_now),
        locks=Locks(registry=registry, clock=utc_now),
        dead_properties=DeadProperties(registry=registry, clock=utc_now),
        relocation=Relocation(registry=registry, stores=stores, clock=utc_now),
    )


def open_registry(config: Config, *, migrate: bool = False) -> ServedRegistry:
    """Open the registry alone, wherever it is; with ``migrate`` bring its database up to date first.

    Raises ConfigError, SchemaTooNew, RegistryUnavailable. The database of a remote one is its server's to migrate.
    """
    if not is_remote(config.registry):
        return SqlRegistry(url=config.registry, migrate=migrate)
    return RemoteRegistry(
        url=config.registry,
        token=registry_token(config),
        cacert=config.registry_cacert,
        timeout=config.registry_timeout,
    )


def open_served_registry(config: Config, *, migrate: bool = False) -> ServedRegistry:
    """Open the registry that this host serves to others. Raises as `open_registry` does."""
    if is_remote(config.registry):
        message = f"registry is {config.registry!r}: what is served is a database, not another server."
        raise ConfigError(message)
    return SqlRegistry(url=config.registry, migrate=migrate)


def is_remote(registry: str) -> bool:
    """Whether a registry's URL leads to a server rather than to a database."""
    return registry.startswith(("http://", "https://"))


def registry_token(config: Config) -> str | None:
    """Give the secret of the registry's server, None where there is none. Raises ConfigError for a file without one."""
    file = config.registry_token_file
    if file is None:
        return config.registry_token
    try:
        token = file.read_text(encoding="ascii").strip()
    except OSError as error:
        message = f"The registry's token can't be read: {file}: {error.strerror}."
        raise ConfigError(message) from None
    except UnicodeDecodeError:
        token = ""
    if not token or not token.isprintable() or " " in token:
        message = f"{file} holds no token: printable ASCII without blanks."
        raise ConfigError(message)
    return token


def _owners(registry: Registry, stores: Iterable[str]) -> Mapping[str, Owner]:
    available = [entry for entry in registry.holdings() if entry.status is ImageStatus.AVAILABLE]
    held = {entry.store for entry in available if entry.images}
    identity = registry.identity()
    return {store: Owner(registry=identity, has_images=store in held) for store in stores}


def assemble_tree(
    core: Assembly,
    *,
    user: str | None = None,
    documents: Mapping[str, Callable[[], bytes]] | None = None,
    context: RequestContext | None = None,
    since: int | None = None,
) -> ImageTree:
    """Put a tree of images on the core, as one user sees it (None: as the admin of this machine); a context manager.

    ``context`` says instead who that is, and nobody may be meant. ``since`` is the time of folders that nobody made, in
    nanoseconds, which several trees of one mount have in common (None: now).

    ``documents`` are further texts in ``.glance/``. What dead mounts of the same user left is in ``.glance/pending``
    at once. Raises StoreUnavailable.
    """
    config = core.config
    if context is None and user is None:
        context = RequestContext(user=LOCAL_USER, is_admin=True)
    if context is None:
        context = RequestContext(user=user, is_admin=user in config.auth.admins)
    staging = Staging(folder=_staged_folder(core), user=context.user, max_upload=config.gateway.max_upload)
    tree = ImageTree(
        images=core.images,
        folders=core.folders,
        locks=core.locks,
        dead_properties=core.dead_properties,
        staging=staging,
        context=context,
        documents=documents or {},
        public_url=config.gateway.public_url or "",
        begun=Begun(since=since),
    )
    # Nobody left anything; what has lost its owner is not theirs.
    if context.user is not None:
        tree.recover()
    return tree


class Trees:
    """Trees for a door whose requests are of many users: one for each request, made from what they share."""

    def __init__(self, core: Assembly) -> None:
        config = core.config
        self._core: Final = core
        self._max_upload: Final = config.gateway.max_upload
        self._area: Final = SharedArea(folder=_shared_folder(core), max_upload=self._max_upload)
        self._since: Final = time.time_ns()

    def of(self, context: RequestContext, *, public_url: str) -> SharedTree:
        """Give the tree of a caller; a context manager, to be left when the request is answered."""
        files = self._area.of(context.user)
        return SharedTree(
            images=self._core.images,
            folders=self._core.folders,
            staging=files,
            context=context,
            documents={},
            locks=self._core.locks,
            dead_properties=self._core.dead_properties,
            public_url=public_url,
            max_upload=self._max_upload,
            begun=Begun(overlay=SharedOverlay(files=files), since=self._since),
        )

    def close(self) -> None:
        """Let go of threads."""
        self._area.close()


def make_arrivals(core: Assembly) -> Arrivals:
    """Give what holds the data that come to this process before their image is spoken of."""
    gateway = core.config.gateway
    # Not more than half of the uploads that there may be at a time are of files whose end nobody knows.
    most = max(1, min(MOST_ARRIVALS, gateway.max_uploads // 2))
    folder = core.stores[core.config.default_store].staging_folder or core.config.data
    return Arrivals(folder=folder, max_upload=gateway.max_upload, most=most)


def clear_up(core: Assembly) -> Swept:
    """Take back what dead processes left: uploads, data that no image names, and staged files that are old.

    Safe beside living ones. Raises RegistryUnavailable, StoreUnavailable.
    """
    files, size = sweep_staged(_staged_folder(core))
    shared, shared_size = sweep_shared(_shared_folder(core))
    swept = sweep(registry=core.registry, stores=core.stores)
    return replace(swept, staged=files + shared, size=swept.size + size + shared_size)


def _staged_folder(core: Assembly) -> Path:
    return (core.stores[core.config.default_store].staging_folder or core.config.data) / STAGED


def _shared_folder(core: Assembly) -> Path:
    return _staged_folder(core).with_name(SHARED)

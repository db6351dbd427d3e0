# SPDX-License-Identifier: Apache-2.0
"""A real core in a folder, and trees of images on it.

Answers for what tests of the tree put together, and for letting go of it.

Threading: belongs to one test.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from glancefs.context import RequestContext
from glancefs.dead_properties import DeadProperties
from glancefs.errors import PathNotFound
from glancefs.folders import Folders
from glancefs.images import Images, utc_now
from glancefs.locks import Locks
from glancefs.model import Image, ImageType, NewImage
from glancefs.registries.sql import SqlRegistry, registry_url
from glancefs.staging import StagedUpload, Staging
from glancefs.stores.base import Store
from glancefs.stores.file import FileStore
from glancefs.tree import Entry, EntryKind, ImageTree, Listed

ALICE, BOB = RequestContext(user="alice"), RequestContext(user="bob")
ADMIN = RequestContext(user="root", is_admin=True)
KERNEL = bytes(0x202) + b"HdrS" + bytes(600)
QCOW2 = b"QFI\xfb" + bytes(600)
STATUS = "user.glance.status"


@dataclass(slots=True, kw_only=True)
class Core:
    """A registry, a store and the use cases over them."""

    folder: Path
    store: Store
    registry: SqlRegistry
    images: Images
    folders: Folders
    trees: list[ImageTree] = field(default_factory=list)
    clock: Callable[[], datetime] = utc_now

    @classmethod
    def at(
        cls, folder: Path, store: Store | None = None, *, clock: Callable[[], datetime] = utc_now, **said: Any
    ) -> Self:
        """Make one, with another store than a folder if that is said."""
        store = store or FileStore(path=folder / "file", sync=False)
        registry = SqlRegistry(url=registry_url(folder), migrate=True)
        images = Images(
            registry=registry, stores={store.scheme: store}, default_store=store.scheme, clock=clock, **said
        )
        folders = Folders(registry=registry, clock=clock)
        return cls(folder=folder, store=store, registry=registry, images=images, folders=folders, clock=clock)

    def tree(self, context: RequestContext = ALICE, *, is_public: bool | None = None) -> ImageTree:
        """Put a tree on it, as a mount of one user would."""
        folder = (self.store.staging_folder or self.folder) / "staged"
        tree = ImageTree(
            images=self.images,
            folders=self.folders,
            locks=Locks(registry=self.registry, clock=self.clock),
            dead_properties=DeadProperties(registry=self.registry, clock=self.clock),
            staging=Staging(folder=folder, user=context.user),
            context=context,
            documents={"stats": lambda: b"1 2 3\n"},
            is_public=is_public,
            public_url="http://images.example",
        )
        tree.recover()
        self.trees.append(tree)
        return tree

    def post(self, name: str, data: bytes | None = b"posted", context: RequestContext = ALICE, **said: Any) -> Image:
        """Add an image through another door; without data it is queued."""
        new = NewImage(**{"name": name, "type": ImageType.RAW} | said)
        if data is None:
            return self.images.create(context, new)
        return self.images.add(context, new, io.BytesIO(data))

    def close(self) -> None:
        """Let go of everything."""
        for tree in self.trees:
            tree.close()
        self.registry.close()


def put(tree: ImageTree, path: str, data: bytes = b"data", said: Mapping[str, bytes] | None = None) -> Image:
    """Write a file as a program does that creates or truncates it; give the image that it becomes."""
    try:
        entry = tree.lookup(path)
    except PathNotFound:
        staged = tree.create(path)
    else:
        staged = tree.stage(entry, truncate=True)
    if data:
        staged.write_at(0, data)
    for name, value in (said or {}).items():
        tree.set_xattr(staged_of(tree, path), f"user.glance.{name}", value)
    image = tree.publish(staged)
    tree.release(staged)
    assert image is not None
    return image


def staged_of(tree: ImageTree, path: str) -> Entry:
    """Give the staged file at a path."""
    entry = tree.lookup(path)
    assert entry.kind is EntryKind.STAGED
    return entry


def read(tree: ImageTree, path: str) -> bytes:
    """Read a file."""
    entry = tree.lookup(path)
    if entry.staged is not None:
        return entry.staged.read_at(0, entry.size)
    with tree.open(entry) as reader:
        return b"".join(reader.iter())


def names(tree: ImageTree, path: str = "", *, page_size: int = 1000) -> list[str]:
    """List a folder."""
    return [entry.name for page in tree.list(path, page_size=page_size) for entry in page]


def walk(tree: ImageTree, path: str = "", *, page_size: int = 2) -> dict[str, Entry]:
    """List everything below a folder, in both ways."""
    found: dict[str, Entry] = {}
    pages = list(tree.list(path, page_size=page_size))
    briefly = [listed for page in tree.list_briefly(path, page_size=page_size) for listed in page]
    assert briefly == [brief(tree, entry) for page in pages for entry in page]
    for page in pages:
        for entry in page:
            assert entry.path not in found, "a folder names everything once"
            found[entry.path] = entry
            if entry.kind is EntryKind.FOLDER:
                found |= walk(tree, entry.path, page_size=page_size)
    return found


def brief(tree: ImageTree, entry: Entry) -> Listed:
    """Give what a listing says of something."""
    image = entry.image
    return Listed(
        path=entry.path,
        name=entry.name,
        kind=entry.kind,
        key=entry.key,
        ino=entry.ino,
        size=entry.size,
        mtime_ns=entry.mtime_ns,
        ctime_ns=entry.ctime_ns,
        allocated=tree.allocated(entry) if image is not None else entry.size,
        owner=None if image is None else image.owner,
        is_public=image is not None and image.is_public,
        entry=entry if image is None else None,
    )


def put_staged(tree: ImageTree, path: str, data: bytes) -> StagedUpload:
    """Begin a file, and leave it at work."""
    staged = tree.create(path)
    staged.write_at(0, data)
    return staged


def get(tree: ImageTree, path: str, name: str) -> str:
    """Ask for an attribute, without its prefix."""
    return tree.get_xattr(tree.lookup(path), f"user.glance.{name}").decode()


def give(tree: ImageTree, path: str, name: str, value: str) -> None:
    """Set an attribute, without its prefix."""
    tree.set_xattr(tree.lookup(path), f"user.glance.{name}", value.encode())

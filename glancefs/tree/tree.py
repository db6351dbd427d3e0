# SPDX-License-Identifier: Apache-2.0
"""Images as files: paths, folders, staged files, and what may be done with them.

Answers for every rule that doors which show files have in common. Knows no kernel, no HTTP, no SQL and no store.

Threading: every method may be called from many threads. All of them may block on the registry or the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Self

from glancefs.context import RequestContext
from glancefs.errors import (
    AttributeNotFound,
    Forbidden,
    ImageNotFound,
    PathTaken,
)
from glancefs.model import Image, ImageChanges, ImageStatus
from glancefs.namesakes import namesake_paths
from glancefs.paths import is_reserved, path_of, split
from glancefs.reader import DataReader
from glancefs.registries.locks import Lock
from glancefs.rules import may_see
from glancefs.staging import StagedUpload
from glancefs.stores.base import Space
from glancefs.tree import attributes
from glancefs.tree.begun import Begun
from glancefs.tree.copying import Copied
from glancefs.tree.entries import (
    MTIME,
    Entry,
    EntryKind,
    Listed,
    Outlined,
    image_key,
    listed_entries,
    mtime_text,
    staged_entry,
)
from glancefs.tree.looking import check_not_reserved
from glancefs.tree.ports import StagingArea, TreeDeadProperties, TreeFolders, TreeImages, TreeLocks
from glancefs.tree.rooms import make_rooms


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeChange:
    """Something that changed, through any door."""

    key: str
    """`Entry.key`: ``image:ID`` or ``folder:PATH``."""
    paths: tuple[str, ...]
    """Every path where it may be seen as it is now (its plain path, and as a namesake); former names are not told."""
    image: Image | None
    """As it is now; None: it is gone, not to be seen, or a folder. Its size and times are the new ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeChanges:
    """A piece of the change feed."""

    changes: tuple[TreeChange, ...]
    revision: int
    """The ``since`` of the next call."""


class ImageTree:
    """The tree of one caller. Everything it shows and does, it shows and does as ``context``.

    Paths are relative to the root, components parted by ``/``, the root is ``""``. File names that came from the kernel
    as bytes go through `glancefs.paths.component_from_bytes` first. Every method raises InvalidPath, PathTooLong for
    paths that no image can have, Unavailable when registry or store do not answer; further errors are named.

    ``documents`` are further texts in ``.glance/``, such as ``stats``. New images are public if ``is_public`` says so
    (None: as the use cases have it). ``public_url`` is that of the REST API, for the attribute ``uri``.

    Whatever changes something raises Locked where a lock is on it whose token the context does not submit.
    """

    def __init__(
        self,
        *,
        images: TreeImages,
        folders: TreeFolders,
        staging: StagingArea,
        context: RequestContext,
        documents: Mapping[str, Callable[[], bytes]],
        locks: TreeLocks | None = None,
        dead_properties: TreeDeadProperties | None = None,
        is_public: bool | None = None,
        public_url: str = "",
        begun: Begun | None = None,
    ) -> None:
        self._images: Final = images
        self._folders: Final = folders
        self._staging: Final = staging
        self._context: Final = context
        self._documents: Final = documents
        self._locks: Final = locks
        self._dead_properties: Final = dead_properties
        self._is_public: Final = is_public
        self._public_url: Final = public_url
        self._begun: Final = begun or Begun()
        rooms = make_rooms(
            images=images,
            folders=folders,
            staging=staging,
            context=context,
            documents=documents,
            locks=locks,
            dead_properties=dead_properties,
            is_public=is_public,
            public_url=public_url,
            begun=self._begun,
        )
        self._looking: Final = rooms.looking
        self._locking: Final = rooms.locking
        self._writing: Final = rooms.writing
        self._special: Final = rooms.special
        self._moving: Final = rooms.moving
        self._copying: Final = rooms.copying

    def presenting(self, lock_tokens: Collection[str]) -> ImageTree:
        """Give the same tree, staged files included, for a request that submits tokens of locks (RFC 4918, section 7).

        What these lock, the request may change. It costs next to nothing, and is let go of without `close`.
        """
        return ImageTree(
            images=self._images,
            folders=self._folders,
            staging=self._staging,
            context=replace(self._context, lock_tokens=frozenset(lock_tokens)),
            documents=self._documents,
            locks=self._locks,
            dead_properties=self._dead_properties,
            is_public=self._is_public,
            public_url=self._public_url,
            begun=self._begun,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def recover(self) -> None:
        """Show in ``.glance/pending`` what dead mounts of this caller left; once, when a mount begins."""
        self._writing.recover()

    # ---- looking

    def rehearse(self) -> None:
        """Prepare what the first listing would else have to wait for. Raises RegistryUnavailable."""
        self._looking.rehearse()

    def lookup(self, path: str) -> Entry:
        """Give what is at a path. Raises PathNotFound, also for a path through a file."""
        return self._special.lookup(path) if is_reserved(path) else self._looking.lookup(path)

    def list(self, path: str, *, page_size: int = 1000) -> Iterator[Sequence[Entry]]:
        """Give what a folder holds, in pages; ``.glance`` is left out of the root. Raises PathNotFound, NotAFolder.

        A few registry reads per page, whatever it holds; pages may be empty. No connection is held between pages. The
        names are unique. Links and namesakes need no look at each.
        """
        if is_reserved(path):
            return self._special.list(path, page_size=page_size)
        return self._looking.list(path, page_size=page_size)

    def list_briefly(self, path: str, *, page_size: int = 1000) -> Iterator[Sequence[Listed]]:
        """Give the same as `list`, as much of it as the attributes of files take; bytes on disk are looked at too."""
        if is_reserved(path):
            return map(listed_entries, self._special.list(path, page_size=page_size))
        return self._looking.list_briefly(path, page_size=page_size)

    def list_outlined(self, path: str, *, page_size: int = 1000) -> Iterator[Outlined]:
        """Give the same as `list`, images in outline only, which takes a third of the time."""
        if is_reserved(path):
            return (Outlined(entries=entries) for entries in self._special.list(path, page_size=page_size))
        return self._looking.list_outlined(path, page_size=page_size)

    def open(self, entry: Entry) -> DataReader:
        """Open an available image's data. Raises ImageNotFound, DataMissing, StoreUnavailable."""
        if entry.image is None:
            raise ImageNotFound(f"{entry.path!r} is no image.")
        return self._images.open_image(entry.image)

    def read_link(self, entry: Entry) -> str:
        """Give a link's target, relative to the link. Raises PathNotFound."""
        return self._special.read_link(entry.path)

    def read_document(self, entry: Entry) -> bytes:
        """Give a document's text as it is now; its size may differ from `Entry.size` of an earlier look."""
        return self._special.read_document(entry.path)

    def allocated(self, entry: Entry) -> int:
        """Give the bytes that the data take on disk: less than the size for sparse images. Never changes for IMAGE.

        Raises DataMissing, StoreUnavailable, ImageNotFound.
        """
        if entry.staged is not None:
            return entry.staged.allocated()
        return self._images.allocated(entry.image) if entry.image and entry.kind is EntryKind.IMAGE else 0

    def space(self) -> Space | None:
        """Tell the room in the store that new images go to. Raises StoreUnavailable."""
        return self._images.space()

    # ---- writing

    def create(self, path: str, *, has_folder: bool = False) -> StagedUpload:
        """Begin a file at a path where there is none; it is seen there on this mount at once.

        ``has_folder`` says that its folder was there a moment ago, and need not be looked for. Raises PathTaken;
        PathNotFound and NotAFolder for its folder; Forbidden below ``.glance``, NotAuthenticated, StoreFull.
        """
        return self._writing.create(path, has_folder=has_folder)

    def stage(self, entry: Entry, *, truncate: bool = False) -> StagedUpload:
        """Open what is there for writing; what is given is seen at the path on this mount at once.

        A staged file is given itself (emptied with ``truncate``); a queued image gets a staged file of its size for
        its data; an available image with ``truncate`` gets an empty staged file that will take its place, without
        it raises ImmutableImage. Raises IsAFolder, WrongStatus (its data are on their way through another door),
        Forbidden (not the caller's; links and documents), ProtectedImage, StoreFull.
        """
        return self._writing.stage(entry, truncate=truncate)

    def will_publish(self, staged: StagedUpload) -> bool:
        """Say whether `publish` would make an image of it: no dot-file, not aborted, not discarded, not published."""
        return self._writing.will_publish(staged)

    def publish(self, staged: StagedUpload, *, as_is: bool = False) -> Image | None:
        """Make an image of a staged file (DESIGN: names, types, law 2); what it was is the image's from then on.

        A file into which no byte was written becomes, or stays, a queued image, unless ``as_is``. A dot-file is left
        staged, unless ``as_is``, and an aborted or discarded one too: then None is given. Publishing twice is fine.
        On failure it stays staged with the state FAILED, the reason is in ``.glance/errors``, and the error is raised:
        StoreFull, Forbidden, ProtectedImage, StaleImage, StoreUnavailable, RegistryUnavailable, UploadTooLarge,
        ChecksumMismatch (a queued image whose checksum was declared).
        """
        return self._writing.publish(staged, as_is=as_is)

    def abort(self, staged: StagedUpload, reason: str) -> None:
        """Move a file whose writer was killed to ``.glance/pending/``; what it was to replace stays.

        One without a byte is discarded. What is published already stays so.
        """
        self._writing.abort(staged, reason)

    def release(self, staged: StagedUpload) -> None:
        """Say that nobody has it open any more; lets go of the descriptor of what is published or discarded."""
        self._writing.release(staged)

    def pending(self) -> Sequence[StagedUpload]:
        """Give all staged files of this mount, aborted ones too: what a mount has to finish before it ends."""
        return self._begun.overlay.everything()

    # ---- changing

    def remove(self, path: str) -> Entry:
        """Remove a file: delete the image, discard the staged one. Gives what it was.

        A folder that nobody made stays when its last file goes. A staged file goes with the image that it was to
        replace, or to bring data to. Raises PathNotFound, IsAFolder, Forbidden, ProtectedImage.
        """
        return self._moving.remove(path)

    def rename(self, old: str, new: str, *, replace: bool = True) -> Entry:
        """Move a file or a folder with all below it, in one step. Gives what is at the new path.

        A staged file with a dot-name or in ``pending`` that gets a plain name is published (errors as `publish`); one
        with a plain name only moves. An image onto an image takes its place; the other is deleted in the same
        transaction. Raises PathTaken (without ``replace``), PathNotFound, IsAFolder, NotAFolder, FolderNotEmpty,
        Forbidden, ProtectedImage, InvalidRequest (a folder into itself).
        """
        return self._moving.rename(old, new, replace=replace)

    def copy(self, source: str, destination: str, *, is_deep: bool = True, replaces: bool = True) -> Copied:
        """Copy a file, or a folder with (``is_deep``) all that is in it; no bytes of images pass through here.

        A copy has the data, type, formats, properties and dead properties of its source, is the caller's, and takes
        the place of an image that is at the destination (`glancefs.tree.copying` says what is public). A folder's
        destination must not be there, or be empty; the failure of one thing in it does not keep the others from being
        copied. Raises PathTaken (without ``replaces``), PathNotFound, IsAFolder, NotAFolder, FolderNotEmpty, Forbidden,
        ProtectedImage, InvalidRequest (into itself), WrongStatus, NotAuthenticated, Locked, StoreFull.
        """
        return self._copying.copy(source, destination, is_deep=is_deep, replaces=replaces)

    def make_folder(self, path: str) -> Entry:
        """Make a folder. Raises PathTaken, PathNotFound (its parent), NotAFolder, Forbidden, NotAuthenticated."""
        check_not_reserved(path)
        self._looking.need_folder(split(path)[0])
        if not path or self._looking.find(path) is not None:
            raise PathTaken(f"There is something at {path!r} already.")
        return self._looking.folder_entry(self._folders.make(self._context, path))

    def remove_folder(self, path: str) -> None:
        """Remove an empty folder. Raises PathNotFound, NotAFolder, FolderNotEmpty, Forbidden."""
        self._moving.remove_folder(path)

    def set_times(self, entry: Entry, mtime_ns: int) -> Entry:
        """Set the time of modification, in nanoseconds since the epoch; the root's stays.

        Raises Forbidden, ImageNotFound, PathNotFound.
        """
        if entry.kind is EntryKind.FOLDER and not is_reserved(entry.path):
            if not entry.path:
                return entry
            return self._looking.folder_entry(self._folders.set_mtime(self._context, entry.path, mtime_ns))
        name = f"{attributes.PREFIX}{attributes.PROPERTY}{MTIME}"
        return self.set_xattr(entry, name, mtime_text(mtime_ns).encode())

    # ---- extended attributes: names with their prefix, "user.glance.type"; values are bytes

    def get_xattr(self, entry: Entry, name: str) -> bytes:
        """Give an attribute. Raises AttributeNotFound; AttributesUnsupported (outside ``user.glance.``, no I/O)."""
        field = attributes.field_of(name)
        text = None
        if entry.image is not None:
            text = attributes.text_of(entry.image, field, public_url=self._public_url)
        elif entry.staged is not None:
            text = attributes.said_text(entry.staged, field)
        if text is None:
            raise AttributeNotFound(f"{entry.path!r} has no attribute {name!r}.")
        return text.encode()

    def list_xattrs(self, entry: Entry) -> Sequence[str]:
        """Name the attributes that have a value; none for folders, links and documents."""
        if entry.image is not None:
            return list(attributes.names_of(entry.image))
        return [] if entry.staged is None else list(attributes.said_names(entry.staged))

    def set_xattr(self, entry: Entry, name: str, value: bytes, *, is_open: bool = False) -> Entry:
        """Set an attribute; ``user.glance.name`` renames, ``user.glance.status`` = available publishes. Gives it anew.

        ``is_open`` says that somebody has a staged file open for writing: then setting its status does nothing, since
        a copy tool copies that too, and the close publishes; no more does it for dot-files. Raises Forbidden (computed,
        or not the caller's), InvalidImage, AttributesUnsupported, and as `rename` and `publish` do.
        """
        field = attributes.field_of(name)
        text = attributes.read_text(value, field)
        is_publishing = field == "status" and text == ImageStatus.AVAILABLE
        if entry.staged is not None:
            return self._set_said(entry, entry.staged, field, text, is_publishing=is_publishing and not is_open)
        if entry.image is None:
            raise Forbidden(f"{entry.path!r} has no attributes.")
        if is_publishing and entry.kind is EntryKind.QUEUED:
            staged = self._writing.stage(entry, truncate=False)
            self._writing.publish(staged, as_is=True)
            self._writing.release(staged)
            return self.lookup(entry.path)
        return self._set_field(entry, entry.image, field, text)

    def remove_xattr(self, entry: Entry, name: str) -> Entry:
        """Remove a property, or unset a field that can be unset; a field that can't be stays, without an error.

        Raises AttributeNotFound, Forbidden (not the caller's).
        """
        field = attributes.field_of(name)
        if entry.staged is not None:
            entry.staged.know(said=attributes.unsaying(entry.staged.said, field))
            return staged_entry(entry.path, entry.staged)
        if entry.image is None:
            raise AttributeNotFound(f"{entry.path!r} has no attribute {name!r}.")
        changes = attributes.removal_of(entry.image, field)
        return entry if changes is None else self._updated(entry, entry.image, changes)

    def _set_said(self, entry: Entry, staged: StagedUpload, field: str, text: str, *, is_publishing: bool) -> Entry:
        is_aborted = is_reserved(entry.path)
        if is_publishing and (is_aborted or self._writing.will_publish(staged)):
            self._writing.publish(staged, as_is=True)
            return self.lookup(staged.path)
        staged.know(said=attributes.saying(staged.said, field, text))
        return staged_entry(entry.path, staged)

    def _set_field(self, entry: Entry, image: Image, field: str, text: str) -> Entry:
        if field == "name":
            return entry if text == image.name else self._moving.rename_image(entry, text)
        if field in attributes.COMPUTED:
            now = attributes.text_of(image, field, public_url=self._public_url)
            if text != now and not self._begun.turns.is_fresh(image.id):
                raise Forbidden(f"{field} follows from other things and can't be set.")
            return entry
        return self._updated(entry, image, attributes.change_of(field, text))

    def _updated(self, entry: Entry, image: Image, changes: ImageChanges) -> Entry:
        return self._looking.image_entry(entry.path, self._images.update(self._context, image.id, changes))

    # ---- locks and dead properties: what WebDAV adds

    def lock(
        self,
        path: str,
        *,
        is_shared: bool = False,
        is_deep: bool = False,
        owner_xml: str = "",
        seconds: int | None = None,
    ) -> Lock:
        """Lock a path, also one where nothing is yet, for the caller; ``is_deep``: with everything below it.

        ``seconds`` None: as long as can be. Raises Locked (its ``path`` is the root of the lock in the way),
        PathNotFound and NotAFolder for its folder, Forbidden (not the caller's to change), NotAuthenticated, StoreFull.
        """
        return self._locking.lock(path, is_shared=is_shared, is_deep=is_deep, owner_xml=owner_xml, seconds=seconds)

    def refresh_lock(self, path: str, token: str, *, seconds: int | None = None) -> Lock:
        """Let a lock that holds for this path last for so many seconds from now. Raises LockNotFound."""
        return self._locking.refresh(path, token, seconds=seconds)

    def unlock(self, path: str, token: str) -> None:
        """Give back a lock that holds for this path; an admin may break anybody's. Raises LockNotFound."""
        self._locking.unlock(path, token)

    def locks_on(self, path: str, entry: Entry | None = None) -> Sequence[Lock]:
        """Give the locks that hold for a path, its own and deep ones from above, with the paths of this tree."""
        return self._locking.on(path, entry)

    def locks_below(self, path: str) -> Sequence[Lock]:
        """Give the locks on paths below a folder, at any depth: for a listing, one look serves all of it."""
        return self._locking.below(path)

    def dead_properties(self, entries: Sequence[Entry]) -> Mapping[str, Mapping[str, str]]:
        """Give the dead properties of some entries, by `Entry.key` and name; who has none is left out."""
        return self._locking.dead_properties(entries)

    def dead_properties_of_images(self, image_ids: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        """Give those of images that the caller was shown, by their identifiers."""
        return self._locking.dead_properties_of_images(image_ids)

    def change_dead_properties(self, entry: Entry, *, values: Mapping[str, str], removed: Collection[str] = ()) -> None:
        """Set some and remove others, all or nothing.

        Raises Forbidden (not the caller's; staged files, links, documents), Locked, InvalidRequest (too long),
        StoreFull (too many), ImageNotFound, NotAuthenticated.
        """
        self._locking.change_dead_properties(entry, values=values, removed=removed)

    # ---- others' changes

    def revision(self) -> int:
        """Give where the change feed ends."""
        return self._folders.revision()

    @property
    def tells_of_changes(self) -> bool:
        """Whether `wait_for_change` comes back as soon as there is a change."""
        return self._folders.tells_of_changes

    def wait_for_change(self, seconds: float) -> None:
        """Wait until something may have changed, or so long."""
        self._folders.wait_for_change(seconds)

    def changes(self, since: int, *, limit: int = 1000) -> TreeChanges:
        """Give what changed after a revision through any door, this one too, whoever may see it."""
        piece = self._folders.changes(since, limit=limit)
        changes = [_change_of_image(self._context, image) for image in piece.images]
        changes += [
            TreeChange(key=f"folder:{folder.path}", paths=(folder.path,), image=None) for folder in piece.folders
        ]
        return TreeChanges(changes=tuple(changes), revision=piece.revision)

    def report(self, path: str, error: BaseException | str) -> None:
        """Add a line to ``.glance/errors`` (the latest 1000 are kept) and log it."""
        self._begun.report(path, error)

    def close(self) -> None:
        """Let go of staged files; what is not published stays for the next mount."""
        self._staging.close()


def _change_of_image(context: RequestContext, image: Image) -> TreeChange:
    path = path_of(image.name)
    is_there = image.status is not ImageStatus.DELETED and may_see(context, image)
    paths = (path, next(namesake_paths(path, image.id)))
    return TreeChange(key=image_key(image.id), paths=paths, image=image if is_there else None)

# SPDX-License-Identifier: Apache-2.0
"""Images as files: paths, folders, staged files, and what may be done with them.

Answers for every rule that doors which show files have in common. Knows no kernel, no HTTP, no SQL and no store.

Threading: every method may be called from many threads. All of them may block on the registry or the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from glancefs.context import RequestContext
from glancefs.model import Image
from glancefs.reader import ImageReader
from glancefs.staging import StagedUpload, Staging
from glancefs.stores.base import Space
from glancefs.tree.entries import Entry


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
    """

    def __init__(
        self,
        *,
        images: TreeImages,
        folders: TreeFolders,
        staging: Staging,
        context: RequestContext,
        documents: Mapping[str, Callable[[], bytes]],
        public_url: str = "",
        clock_ns: Callable[[], int],
    ) -> None:
        """``documents`` are further files in ``.glance/``, such as ``stats``, by name."""

    # ---- looking

    def lookup(self, path: str) -> Entry:
        """Give what is at a path. Raises PathNotFound, NotAFolder (a file on the way)."""

    def list(self, path: str, *, page_size: int = 1000) -> Iterator[Sequence[Entry]]:
        """Give what a folder holds, in pages; ``.glance`` is left out of the root. Raises PathNotFound, NotAFolder.

        A few registry reads per page, whatever it holds. No connection is held between pages. The names are unique.
        """

    def open(self, entry: Entry) -> ImageReader:
        """Open an available image's data. Raises ImageNotFound, DataMissing, StoreUnavailable."""

    def read_link(self, entry: Entry) -> str:
        """Give a link's target, relative to the link. Raises PathNotFound."""

    def read_document(self, entry: Entry) -> bytes:
        """Give a document's text as it is now; its size may differ from `Entry.size` of an earlier look."""

    def allocated(self, entry: Entry) -> int:
        """Give the bytes that the data take on disk: less than the size for sparse images. Never changes for IMAGE."""

    def space(self) -> Space | None:
        """Tell the room in the store that new images go to."""

    # ---- writing

    def create(self, path: str, *, exclusive: bool = False) -> StagedUpload:
        """Begin a file at a path where there is none; it is seen there on this mount at once.

        Raises PathTaken (``exclusive``, or something is there meanwhile), PathNotFound and NotAFolder for its folder,
        Forbidden below ``.glance``, NotAuthenticated, StoreFull.
        """

    def stage(self, entry: Entry, *, truncate: bool = False) -> StagedUpload:
        """Open what is there for writing.

        A staged file is given itself (emptied with ``truncate``); a queued image gets a staged file of its size for
        its data; an available image with ``truncate`` gets an empty staged file that will take its place, without
        it raises ImmutableImage. Raises IsAFolder, Forbidden (not the caller's; links and documents).
        """

    def publish(self, staged: StagedUpload, *, as_is: bool = False) -> Image | None:
        """Make an image of a staged file (DESIGN: names, types, law 2); what it was is the image's from then on.

        A file into which no byte was written becomes, or stays, a queued image, unless ``as_is``. A dot-file is left
        staged, unless ``as_is``, and an aborted or discarded one too: then None is given. Publishing twice is fine.
        On failure it stays staged with the state FAILED, the reason is in ``.glance/errors``, and the error is raised:
        StoreFull, Forbidden, ProtectedImage, StaleImage, StoreUnavailable, RegistryUnavailable, UploadTooLarge.
        """

    def will_publish(self, staged: StagedUpload) -> bool:
        """Say whether `publish` would make an image of it: no dot-file, not aborted, not discarded, not published."""

    def abort(self, staged: StagedUpload, reason: str) -> None:
        """Move a file whose writer was killed to ``.glance/pending/``; what it was to replace stays."""

    def release(self, staged: StagedUpload) -> None:
        """Say that nobody has it open any more; lets go of the descriptor of what is published or discarded."""

    def pending(self) -> Sequence[StagedUpload]:
        """Give all staged files of this mount, aborted ones too: what a mount has to finish before it ends."""

    # ---- changing

    def remove(self, path: str) -> Entry:
        """Remove a file: delete the image, discard the staged one. Gives what it was.

        Raises PathNotFound, IsAFolder, Forbidden, ProtectedImage.
        """

    def rename(self, old: str, new: str, *, replace: bool = True) -> Entry:
        """Move a file or a folder with all below it, in one step. Gives what is at the new path.

        A staged file with a dot-name or in ``pending`` that gets a plain name is published (errors as `publish`). An
        image onto an image takes its place; the other is deleted in the same transaction. Raises PathTaken (without
        ``replace``), PathNotFound, IsAFolder, NotAFolder, FolderNotEmpty, Forbidden, ProtectedImage, InvalidRequest
        (a folder into itself).
        """

    def make_folder(self, path: str) -> Entry:
        """Make a folder. Raises PathTaken, PathNotFound (its parent), NotAFolder, Forbidden, NotAuthenticated."""

    def remove_folder(self, path: str) -> None:
        """Remove an empty folder. Raises PathNotFound, NotAFolder, FolderNotEmpty, Forbidden."""

    def set_times(self, entry: Entry, mtime_ns: int) -> Entry:
        """Set the time of modification, in nanoseconds since the epoch. Raises Forbidden, ImageNotFound."""

    # ---- extended attributes: names with their prefix, "user.glance.type"; values are bytes

    def get_xattr(self, entry: Entry, name: str) -> bytes:
        """Give an attribute. Raises AttributeNotFound; AttributesUnsupported (outside ``user.glance.``, no I/O)."""

    def list_xattrs(self, entry: Entry) -> Sequence[str]:
        """Name the attributes that have a value; none for folders, links and documents."""

    def set_xattr(self, entry: Entry, name: str, value: bytes) -> Entry:
        """Set an attribute; ``user.glance.name`` renames, ``user.glance.status`` = available publishes. Gives it anew.

        Raises Forbidden (computed, or not the caller's), InvalidImage, AttributesUnsupported, and as `rename` does.
        """

    def remove_xattr(self, entry: Entry, name: str) -> Entry:
        """Remove a property, or unset a field that can be unset. Raises AttributeNotFound, Forbidden."""

    # ---- others' changes

    def revision(self) -> int:
        """Give where the change feed ends."""

    def changes(self, since: int, *, limit: int = 1000) -> TreeChanges:
        """Give what changed after a revision through any door, this one too, whoever may see it."""

    def report(self, path: str, error: BaseException | str) -> None:
        """Add a line to ``.glance/errors`` (the latest 1000 are kept) and log it."""

    def close(self) -> None:
        """Let go of staged files; what is not published stays for the next mount."""

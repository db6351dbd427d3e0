# SPDX-License-Identifier: Apache-2.0
"""The use cases: what one can do with images, the same for every door.

Answers for who may see and change what, for the order of effects (bytes first, row second, one commit point), for the
verification of declared sizes and checksums, and for the status of images: nobody else writes it but the sweep, which
takes back what the dead left. Does not know how bytes or rows are kept, nor how a caller reached it.

An upload has no row until its bytes are complete, synced and verified; then one transaction makes it visible as
available. An upload into a queued image marks the row ``saving`` first, so that a second one is refused at once.

Threading: `Images` is thread-safe, as are the registry and the stores that it is made of.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, Literal

from glancefs.context import RequestContext
from glancefs.errors import (
    Conflict,
    Duplicate,
    Forbidden,
    GlancefsError,
    ImageNotFound,
    ImmutableImage,
    NotAuthenticated,
    PathTaken,
    StaleImage,
    StoreUnavailable,
    UnsupportedStore,
    WrongStatus,
)
from glancefs.finding import Finding
from glancefs.keeping import keep, keep_copy
from glancefs.localfile import LocalFile, claim_for, give_back
from glancefs.measure import check_size_allowed, declared_size
from glancefs.model import Image, ImageChanges, ImageStatus, Location, NewImage
from glancefs.paths import path_of
from glancefs.reader import ImageReader, open_reader
from glancefs.registries.base import Registry, Superseded
from glancefs.registries.folders import View
from glancefs.registries.locks import Presented, Touched
from glancefs.rules import (
    begun,
    check_may_add,
    check_may_say,
    check_unprotected,
    in_status,
    may_change,
    view_of,
)
from glancefs.stores.base import Source, Space, Store, Stored, allocated_at, has_real_files

_log = logging.getLogger(__name__)

_MOST_ATTEMPTS: Final = 20
"""How often a change that lost a race is tried anew before the loss is reported."""


def utc_now() -> datetime:
    """Give the time in UTC in whole seconds, which is all that the wire carries."""
    return datetime.now(UTC).replace(microsecond=0)


class Images(Finding):
    """The use cases over one registry and its stores."""

    def __init__(
        self,
        *,
        registry: Registry,
        stores: Mapping[str, Store],
        default_store: str,
        default_is_public: bool = False,
        image_ids: Literal["integer", "uuid"] = "integer",
        max_upload: int | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        super().__init__(registry)
        self._stores = stores
        self._default_store = default_store
        self._default_is_public = default_is_public
        self._image_ids = image_ids
        self._max_upload = max_upload
        self._clock = clock

    # ---- asking

    def open(self, context: RequestContext, image_id: str) -> ImageReader:
        """Open an image's data for reading.

        Raises ImageNotFound as `get` does, and when the image has no data (yet); DataMissing when they are lost.
        """
        return self.open_image(self.get(context, image_id))

    def open_image(self, image: Image) -> ImageReader:
        """Open the data of an image that `get` or `find` gave to this caller. Raises as `open` does."""
        return open_reader(image, registry=self._registry, store_of=self._store_of)

    def allocated(self, image: Image) -> int:
        """Give the bytes that the data of an available image take on a local disk; its size where they are elsewhere.

        Raises DataMissing, StoreUnavailable, and ImageNotFound for an image without data.
        """
        if image.location is None:
            raise ImageNotFound(f"Image {image.id!r} has no data: its status is {image.status}.")
        store = self._store_of(image.location)
        return store.allocated(image.location) if has_real_files(store) else image.size

    def allocated_at(self, locations: Sequence[str]) -> Sequence[int | None]:
        """Give the bytes that data take on local disks, by the texts of their locations; None where nobody can tell."""
        return allocated_at(self._stores, locations)

    # ---- adding

    def create(self, context: RequestContext, new: NewImage, *, replacing: str | None = None) -> Image:
        """Add an image without data: it is ``queued``, and `upload` brings the data. ``replacing``: see `add`.

        Raises NotAuthenticated, Forbidden, UnsupportedStore, Duplicate, ProtectedImage.
        """
        store = self._check_new(context, new)
        return self._add_row(context, self._image(context, new, store=store.scheme, size=new.size or 0), replacing)

    def add(
        self,
        context: RequestContext,
        new: NewImage,
        source: Source,
        *,
        size: int | None = None,
        replacing: str | None = None,
        only_new: bool = False,
    ) -> Image:
        """Add an image with its data, of ``size`` bytes if that is known; it is ``available`` when this returns.

        Whatever can be refused without the data (also for lack of room) is refused before the first byte is asked for.
        ``replacing`` is the id of an image whose place this one takes: it is deleted in the same transaction, and not
        missed if it is gone by then. ``only_new`` asks that the caller sees no image of this name, at the moment when
        it is added, else PathTaken is raised. Raises NotAuthenticated, Forbidden, ProtectedImage, UnsupportedStore,
        Duplicate, SizeMismatch, ChecksumMismatch, UploadTooLarge, StoreFull, Locked, and whatever ``source`` raises;
        then nothing stays behind, and a `LocalFile` is in its place again.
        """
        store = self._check_new(context, new)
        self._replaceable(context, replacing)
        size = declared_size(new.size, size, most=self._max_upload)
        if replacing is None and not isinstance(source, LocalFile):
            whose = new.owner or context.user
            touched = Touched(path=path_of(new.name), guarding=whose, is_bound=True)
            self._registry.locks.check([touched], self._presented(context))
        vacant_for = view_of(context) if only_new else None
        if vacant_for is not None and not (isinstance(source, LocalFile) and source.can_be_adopted(store)):
            self._check_vacant(new.name, vacant_for)
        with claim_for(source, store) as key:
            stored = keep(store, key, source, size=size, checksum=new.checksum, most=self._max_upload)
            return self._add_stored(context, new, stored, replacing, source=source, vacant_for=vacant_for)

    def copy(self, context: RequestContext, image_id: str, new: NewImage, *, replacing: str | None = None) -> Image:
        """Add an image with the data and the dead properties of another, which the caller may see.

        Where the store can, no byte passes through here, and blocks may be shared. The checksum is carried over. Of an
        image that waits for its data a copy waits too. ``replacing``, and what is raised: see `add`; DataMissing,
        ImageNotFound, WrongStatus for a source without data that does not wait for any.
        """
        image = self.get(context, image_id)
        if image.status is ImageStatus.QUEUED:
            store = self._check_new(context, new)
            queued = self._image(context, new, store=store.scheme, size=image.size)
            return self._add_row(context, queued, replacing, copied_from=image.id)
        if image.location is None or image.status is not ImageStatus.AVAILABLE:
            raise WrongStatus(f"Image {image_id!r} has no data: its status is {image.status}.")
        store = self._check_new(context, new)
        self._replaceable(context, replacing)
        check_size_allowed(image.size, most=self._max_upload)
        with store.claim() as key:
            stored = keep_copy(store, key, image, image.location, self._store_of(image.location))
            return self._add_stored(context, new, stored, replacing, copied_from=image.id)

    def upload(
        self,
        context: RequestContext,
        image_id: str,
        source: Source,
        *,
        size: int | None = None,
        checksum: str | None = None,
        changes: ImageChanges | None = None,
        resizes: bool = False,
    ) -> Image:
        """Bring the data of a queued image, and make ``changes`` in the same step; it is ``available`` afterwards.

        A `LocalFile`, or what ``resizes``, may be of another size than was declared for the image: whoever wrote it
        made the file as large as it is. On failure it is ``queued`` again, and unchanged. Raises as `add` does;
        ImmutableImage when it has its data, WrongStatus when they are on their way or will never come.
        """
        image = self._changeable(context, image_id)
        check_may_say(context, changes)
        if image.status is ImageStatus.AVAILABLE:
            raise ImmutableImage(f"Image {image_id!r} has its data, and data never change; add a new image instead.")
        if image.status is not ImageStatus.QUEUED:
            raise WrongStatus(f"Image {image_id!r} takes no data: its status is {image.status}.")
        declared = None if resizes or isinstance(source, LocalFile) else image.size or None
        size = declared_size(declared, size, most=self._max_upload)
        store = self._store_named(image.store)
        with claim_for(source, store) as key:
            location = Location(store=store.scheme, key=key)
            self._registry.replace(
                in_status(image, ImageStatus.SAVING, location=location),
                expected_revision=image.revision,
                presented=self._presented(context),
            )
            try:
                stored = keep(store, key, source, size=size, checksum=checksum or image.checksum, most=self._max_upload)
            except BaseException:
                self._give_back(image, location)
                raise
            return self._publish(store, image_id, stored, changes, source)

    # ---- changing

    def update(
        self,
        context: RequestContext,
        image_id: str,
        changes: ImageChanges,
        *,
        expected_revision: int | None = None,
        replacing: str | None = None,
    ) -> Image:
        """Change an image's metadata; ``updated_at`` moves if anything did change. ``replacing``: see `add`.

        With ``expected_revision`` only if the image is still at it. Raises ImageNotFound, NotAuthenticated, Forbidden,
        ProtectedImage, StaleImage.
        """
        check_may_say(context, changes)
        for _ in range(_MOST_ATTEMPTS):
            image = self._changeable(context, image_id)
            if expected_revision is not None and image.revision != expected_revision:
                raise _stale(image_id)
            changed = self._changed(image, changes)
            replaced = self._replaceable(context, replacing)
            if changed is image and replaced is None:
                return image
            try:
                updated = self._registry.replace(
                    changed,
                    expected_revision=image.revision,
                    superseding=self._superseded(replaced),
                    presented=self._presented(context),
                )
            except (StaleImage, ImageNotFound):
                continue
            self._remove_data(replaced)
            return updated
        raise _stale(image_id)

    def declare_size(self, context: RequestContext, image_id: str, size: int) -> Image:
        """Say anew how large the data of a queued image will be. Raises WrongStatus, and as `update` does."""
        image = self._changeable(context, image_id)
        if image.status is not ImageStatus.QUEUED:
            raise WrongStatus(f"Image {image_id!r} is not waiting for data: its status is {image.status}.")
        check_size_allowed(size, most=self._max_upload)
        declared = replace(image, size=size, updated_at=self._now_after(image))
        return self._registry.replace(declared, expected_revision=image.revision, presented=self._presented(context))

    def space(self) -> Space | None:
        """Tell the room for new images; None where the store does not say. Raises StoreUnavailable."""
        return self._store_named(self._default_store).space()

    def delete(self, context: RequestContext, image_id: str, *, expected_revision: int | None = None) -> None:
        """Delete an image and its data; whoever reads them goes on reading.

        Raises ImageNotFound, NotAuthenticated, Forbidden, ProtectedImage, StaleImage.
        """
        for _ in range(_MOST_ATTEMPTS):
            image = self._changeable(context, image_id)
            if expected_revision is not None and image.revision != expected_revision:
                raise _stale(image_id)
            check_unprotected(image)
            try:
                self._registry.delete(
                    image_id,
                    expected_revision=image.revision,
                    deleted_at=self._now_after(image),
                    presented=self._presented(context),
                )
            except StaleImage:
                continue
            self._remove_data(image)
            return
        raise _stale(image_id)

    # ---- the rules

    def _changeable(self, context: RequestContext, image_id: str) -> Image:
        if context.user is None:
            raise NotAuthenticated("Only a known user may change images: log in.")
        image = self.get(context, image_id)
        if not may_change(context, image):
            raise Forbidden(f"Image {image_id!r} belongs to somebody else.")
        return image

    def _replaceable(self, context: RequestContext, image_id: str | None) -> Image | None:
        """Give the image that another one is to replace; None where it is gone, which is as good."""
        if image_id is None:
            return None
        try:
            image = self._changeable(context, image_id)
        except ImageNotFound:
            return None
        check_unprotected(image)
        return image

    def _presented(self, context: RequestContext) -> Presented:
        return Presented(user=context.user, tokens=context.lock_tokens, at=self._clock())

    def _superseded(self, image: Image | None) -> Superseded | None:
        if image is None:
            return None
        return Superseded(image_id=image.id, expected_revision=image.revision, deleted_at=self._now_after(image))

    def _add_row(
        self,
        context: RequestContext,
        image: Image,
        replacing: str | None,
        *,
        copied_from: str | None = None,
        vacant_for: View | None = None,
    ) -> Image:
        for _ in range(_MOST_ATTEMPTS):
            replaced = self._replaceable(context, replacing)
            try:
                added = self._registry.add(
                    image,
                    superseding=self._superseded(replaced),
                    copied_from=copied_from,
                    presented=self._presented(context),
                    vacant_for=vacant_for,
                )
            except (StaleImage, ImageNotFound):
                continue
            self._remove_data(replaced)
            return added
        raise _stale(replacing or image.id)

    def _add_stored(
        self,
        context: RequestContext,
        new: NewImage,
        stored: Stored,
        replacing: str | None,
        *,
        source: Source | None = None,
        copied_from: str | None = None,
        vacant_for: View | None = None,
    ) -> Image:
        image = self._image(context, new, store=stored.location.store, size=stored.size)
        image = replace(image, status=ImageStatus.AVAILABLE, checksum=stored.checksum, location=stored.location)
        try:
            added = self._add_row(context, image, replacing, copied_from=copied_from, vacant_for=vacant_for)
        except BaseException as error:
            give_back(source)
            # Any other failure may have come after the commit: a sweep knows, this place does not.
            if isinstance(error, (Conflict, Forbidden)):
                self._store_of(stored.location).delete(stored.location)
            raise
        if added.location != stored.location:
            # It had been added already, by an earlier try of whoever asks (`ServedRegistry.once`).
            self._store_of(stored.location).delete(stored.location)
        return added

    def _check_new(self, context: RequestContext, new: NewImage) -> Store:
        check_may_add(context, new)
        store = self._store_named(new.store or self._default_store)
        if new.id is not None:
            self._refuse_taken(new.id)
        return store

    def _check_vacant(self, name: str, view: View) -> None:
        if self._registry.folders.first_named(name, view) is not None:
            raise PathTaken(f"There is an image {name!r} already.")

    def _refuse_taken(self, image_id: str) -> None:
        try:
            self._registry.get(image_id)
        except ImageNotFound:
            return
        raise Duplicate(f"The id {image_id!r} is taken.")

    # ---- the steps

    def _store_named(self, name: str) -> Store:
        store = self._stores.get(name)
        if store is None:
            raise UnsupportedStore(f"There is no store {name!r} here; there are {', '.join(sorted(self._stores))}.")
        return store

    def _store_of(self, location: Location) -> Store:
        store = self._stores.get(location.store)
        if store is None:
            raise StoreUnavailable(f"The store {location.store!r}, which holds the data, is not configured here.")
        return store

    def _image(self, context: RequestContext, new: NewImage, *, store: str, size: int) -> Image:
        image_id = new.id or (str(uuid.uuid4()) if self._image_ids == "uuid" else "")
        is_public = self._default_is_public if new.is_public is None else new.is_public
        owner = new.owner or context.user
        return begun(new, id=image_id, owner=owner, is_public=is_public, store=store, size=size, now=self._clock())

    def _publish(
        self, store: Store, image_id: str, stored: Stored, changes: ImageChanges | None, source: Source
    ) -> Image:
        """Turn ``saving`` into ``available``, over whatever metadata others changed meanwhile."""
        for _ in range(_MOST_ATTEMPTS):
            image = self._registry.get(image_id)
            if image.status is not ImageStatus.SAVING or image.location != stored.location:
                give_back(source)
                store.delete(stored.location)
                if image.status is ImageStatus.DELETED:
                    raise ImageNotFound.by_id(image_id)
                message = f"Image {image_id!r} was taken back while its data came: its status is {image.status}."
                raise WrongStatus(message)
            available = image if changes is None else self._changed(image, changes)
            available = in_status(
                available,
                ImageStatus.AVAILABLE,
                location=stored.location,
                size=stored.size,
                checksum=stored.checksum,
            )
            try:
                # A lock that came meanwhile came when the image was being written already.
                return self._registry.replace(available, expected_revision=image.revision)
            except StaleImage:
                continue
        self._give_back(self._registry.get(image_id), stored.location)
        raise _stale(image_id)

    def _give_back(self, queued: Image, location: Location) -> None:
        """Make an image whose upload failed ``queued`` again; a sweep does it where this can't."""
        try:
            for _ in range(_MOST_ATTEMPTS):
                image = self._registry.get(queued.id)
                if image.status is not ImageStatus.SAVING or image.location != location:
                    return
                again = in_status(image, ImageStatus.QUEUED, location=None, size=queued.size, checksum=queued.checksum)
                try:
                    self._registry.replace(again, expected_revision=image.revision)
                except StaleImage:
                    continue
                return
        except GlancefsError as error:
            _log.warning("image %s stays saving until the next sweep: %s", queued.id, error)

    def _changed(self, image: Image, changes: ImageChanges) -> Image:
        changed = replace(image, **changes.said(), properties=changes.properties_after(image.properties))
        if changed == image:
            return image
        return replace(changed, updated_at=self._now_after(image))

    def _now_after(self, image: Image) -> datetime:
        # A clock that was set back must not make an image older than its own creation.
        return max(self._clock(), image.created_at)

    def _remove_data(self, image: Image | None) -> None:
        if image is None or image.location is None or image.status is not ImageStatus.AVAILABLE:
            return
        try:
            self._store_of(image.location).delete(image.location)
        except GlancefsError as error:
            _log.warning("the data of deleted image %s stay until the next sweep: %s", image.id, error)


def _stale(image_id: str) -> StaleImage:
    message = f"Image {image_id!r} was changed by somebody else meanwhile."
    return StaleImage(message)

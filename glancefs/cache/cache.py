# SPDX-License-Identifier: Apache-2.0
"""A local folder that keeps what was read of images, within a limit, for this run and the next ones.

Answers for which images are here, for room, and for verifying the whole of an image before it counts as here. Images go
by their checksum and never change, so nothing here is ever stale; an image without one is not kept. Does not fetch.

Whatever fails here costs speed and never a read: what can't be kept is not kept, and one line in the log says so.

Threading: every method may be called from many threads; verifying has a thread of its own. Processes may share a
folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Final

from glancefs.cache.folder import MARK, Folder, name_of, touch
from glancefs.cache.image import CachedImage, ticking
from glancefs.cache.index import Index
from glancefs.cores import roam
from glancefs.errors import ConfigError

_log = logging.getLogger(__name__)

SMALLEST: Final = 16 << 20
"""In bytes: less room than this is no use."""
_SHARE: Final = 16
"""A part of the limit: how much is written between two looks at what others have written, and how much room is made."""
_PAUSE: Final = 60.0
"""Seconds for which nothing is written after it failed."""
_MOST_MISMATCHES: Final = 2
"""How often an image may turn out to be another one than its checksum says, before it is not kept any more."""


class BlockCache:
    """The cache in ``path``, of at most ``limit`` bytes. Raises ConfigError for a folder that can't be one."""

    def __init__(self, *, path: Path, limit: int) -> None:
        if limit < SMALLEST:
            message = f"A cache of {limit} bytes is too small; it takes {SMALLEST >> 20} MiB at the least."
            raise ConfigError(message)
        self._folder: Final = Folder(path)
        self._limit: Final = limit
        self._guard: Final = Lock()
        self._open: Final[dict[str, CachedImage]] = {}
        self._mismatches: Final[dict[str, int]] = {}
        self._ticks: Final = ticking()
        self._room: Final = Lock()
        self._used = limit
        """What is taken of the disk, as far as is known; at first nothing is."""
        self._unseen = 0
        """How much was written since the last look."""
        self._pause_until = 0.0
        self._is_trouble_told = False
        self._is_closing = False
        self._verifying: Final[set[str]] = set()
        self._verifier: Final = ThreadPoolExecutor(1, thread_name_prefix="cache-verify", initializer=roam)

    def close(self) -> None:
        """Stop; who still has an image open must not use it any more. May be called twice."""
        with self._guard:
            if self._is_closing:
                return
            self._is_closing = True
        self._verifier.shutdown(wait=True, cancel_futures=True)
        with self._guard:
            for image in self._open.values():
                image.let_go()
            self._open.clear()
        self._folder.close()

    def open(self, checksum: str | None, size: int) -> CachedImage | None:
        """Open what is here of an image, which may be nothing; None for one that can't be kept."""
        name = name_of(checksum)
        if name is None or not size or self._mismatches.get(name, 0) >= _MOST_MISMATCHES:
            return None
        with self._guard:
            image = self._open.get(name)
            try:
                if image is not None and not image.is_dead:
                    image.recount()
                    image.uses += 1
                    return image
                image = self._take(name, size)
            except OSError as error:
                self.trouble(error)
                return None
            self._open[name] = image
        if image.is_complete:
            self.completed(image)
        return image

    def release(self, image: CachedImage) -> None:
        """Hear that somebody is done with an image; called by the image."""
        with self._guard:
            image.uses -= 1
            if image.uses or self._is_closing:
                return
            if self._open.get(image.name) is image:
                del self._open[image.name]
            image.let_go()

    # ---- files

    def _take(self, name: str, size: int) -> CachedImage:
        with self._folder.lock():
            found = self._whole(name, size) or self._part(name, size) or self._nothing(name, size)
            descriptor, index = found
            try:
                # Under the lock nobody removes it, so this does not wait.
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                touch(descriptor)
                return CachedImage(
                    name=name, size=size, descriptor=descriptor, index=index, keeper=self, ticks=self._ticks
                )
            except OSError:
                os.close(descriptor)
                if index is not None:
                    index.close()
                raise

    def _whole(self, name: str, size: int) -> tuple[int, None] | None:
        if self._folder.index(name).exists():
            return None
        try:
            descriptor = os.open(self._folder.data(name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        status = os.fstat(descriptor)
        if (status.st_size, status.st_mtime_ns) == (size, MARK):
            return descriptor, None
        os.close(descriptor)
        self._discard(name)
        return None

    def _part(self, name: str, size: int) -> tuple[int, Index] | None:
        try:
            descriptor = os.open(self._folder.data(name), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        index = Index.open(self._folder.index(name), size=size)
        if index is not None and os.fstat(descriptor).st_size == size:
            return descriptor, index
        os.close(descriptor)
        if index is not None:
            index.close()
        self._discard(name)
        return None

    def _nothing(self, name: str, size: int) -> tuple[int, Index]:
        # The index first: data without one count as whole.
        index = Index.create(self._folder.index(name), size=size)
        try:
            descriptor = os.open(self._folder.data(name), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError:
            index.close()
            raise
        try:
            os.ftruncate(descriptor, size)
        except OSError:
            index.close()
            os.close(descriptor)
            raise
        return descriptor, index

    def _discard(self, name: str) -> None:
        _log.warning("The image %s in the cache is not as it was left; it is thrown away.", name[:12])
        self._folder.remove(name)

    # ---- room

    def make_room(self, size: int) -> bool:
        """Say whether so many bytes may be written, after making room for them; called by images."""
        if time.monotonic() < self._pause_until:
            return False
        with self._room:
            self._used += size
            self._unseen += size
            if self._used > self._limit or self._unseen > self._limit // _SHARE:
                try:
                    self._used = self._free(size) + size
                except OSError as error:
                    self.trouble(error)
                    return False
                self._unseen = 0
            return self._used <= self._limit

    def trouble(self, error: OSError) -> None:
        """Hear that nothing could be written; called by images, too."""
        self._pause_until = time.monotonic() + _PAUSE
        level = logging.DEBUG if self._is_trouble_told else logging.WARNING
        self._is_trouble_told = True
        _log.log(level, "The cache in %s takes nothing at present: %s.", self._folder.path, error.strerror or error)

    def _free(self, wanted: int) -> int:
        """See what is used, and remove what was used longest ago if that and ``wanted`` are too much."""
        with self._folder.lock():
            images = self._folder.images()
            used = sum(image.allocated for image in images)
            if used + wanted <= self._limit:
                return used
            # Some more than is needed now, so that this is not done for every block.
            target = self._limit - wanted - self._limit // _SHARE
            for image in images:
                if used <= target:
                    break
                if image.name not in self._open and self._folder.remove_unused(image.name):
                    used -= image.allocated
        # Outside of the lock, since images in use are changed under their own.
        if used > target:
            used -= self._give_back(used - target)
        return used

    def _give_back(self, wanted: int) -> int:
        """Give back what was used longest ago of the images that are in use; say how much that was."""
        images = list(self._open.values())
        oldest = sorted(
            (used_at, number, segment)
            for number, image in enumerate(images)
            if image.name not in self._verifying
            for used_at, segment in image.segments()
        )
        given = 0
        for _, number, segment in oldest:
            if given >= wanted:
                break
            given += images[number].give_back(segment)
        return given

    # ---- verifying

    def completed(self, image: CachedImage) -> None:
        """Hear that every block of an image is here; called by images, too."""
        with self._guard:
            if self._is_closing or image.name in self._verifying:
                return
            self._verifying.add(image.name)
            image.uses += 1
        self._verifier.submit(self._verify, image)

    def _verify(self, image: CachedImage) -> None:
        try:
            found = hashlib.sha256(usedforsecurity=False)
            for part in image.parts():
                if self._is_closing:
                    return
                found.update(part)
            if found.hexdigest() == image.name:
                self._keep(image)
            else:
                self._reject(image)
        except OSError as error:
            self.trouble(error)
        finally:
            self._verifying.discard(image.name)
            image.close()

    def _keep(self, image: CachedImage) -> None:
        # On the disk before it counts as whole: a crash of the machine must not leave holes in what is not looked at.
        image.sync()
        with self._folder.lock(), image.settling() as is_complete:
            if is_complete:
                image.become_whole()
                self._folder.index(image.name).unlink(missing_ok=True)
                _log.info("the image %s is whole in the cache", image.name[:12])
                return
        # Another process gave a part of it back meanwhile, or was faster.
        image.recount()

    def _reject(self, image: CachedImage) -> None:
        with self._folder.lock(), image.settling() as is_complete:
            if is_complete:
                image.die()
                self._folder.remove(image.name)
        if not is_complete:
            # Another process gave a part of it back meanwhile: the data are not all there, which is no mismatch.
            image.recount()
            return
        count = self._mismatches[image.name] = self._mismatches.get(image.name, 0) + 1
        then = "it is not kept any more" if count >= _MOST_MISMATCHES else "they are fetched again"
        _log.warning("The data of the image %s in the cache are not those of its checksum; %s.", image.name[:12], then)

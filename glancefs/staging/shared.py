# SPDX-License-Identifier: Apache-2.0
"""Staged files that all processes of a door share: for doors whose requests come to any process, one after another.

::

    FOLDER/USER/files/KEY          the bytes of a staged file
    FOLDER/USER/files/KEY.json     what is known of it
    FOLDER/USER/names/DIR/NAME     a symbolic link to KEY: what is seen at a path; DIR and NAME are digests
    FOLDER/USER/names/DIR/folder   the path of the folder that DIR stands for

Answers for which user has which files where, and for sweeping what nobody came back for. Nothing is remembered between
two requests, so what one process does the others see at once. Does not know images.

Threading: a `SharedArea` is used by all threads of a process; `SharedFiles` belong to one request.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Final

from glancefs.cores import roam
from glancefs.errors import NotAuthenticated, PathTaken
from glancefs.paths import split
from glancefs.staging.area import KEEP_FOR
from glancefs.staging.sidecar import SUFFIX, Sidecar, read_sidecar, write_sidecar
from glancefs.staging.upload import StagedUpload, Surroundings
from glancefs.stores.disk import Disk, border, make_folder

_log = logging.getLogger(__name__)

_STORE: Final = "staging"
_FOLDER: Final = "folder"
_HASHERS: Final = 2
_SWEEP_EVERY: Final = 3600.0
"""In seconds."""


class SharedArea:
    """The staged files of all users below ``folder``, which should be on the store's own file system.

    Files that nobody touched for ``keep_for`` are removed when one is begun, at most once an hour.
    """

    def __init__(self, *, folder: Path, max_upload: int | None = None, keep_for: timedelta = KEEP_FOR) -> None:
        self._folder: Final = folder
        self._keep_for: Final = keep_for
        self._executor: Final = ThreadPoolExecutor(max_workers=_HASHERS, thread_name_prefix="hash", initializer=roam)
        self._surroundings: Final = Surroundings(executor=self._executor, disk=Disk(), max_upload=max_upload)
        self._paths: Final[dict[str, str]] = {}
        self._folders: Final[dict[str, Path]] = {}
        self._swept_at = float("-inf")

    def of(self, user: str | None) -> SharedFiles:
        """Give the files of a user, for one request; None: of nobody, who has none."""
        return SharedFiles(area=self, folder=None if user is None else self._folder_of(user))

    def _folder_of(self, user: str) -> Path:
        folder = self._folders.get(user)
        if folder is None:
            folder = self._folders[user] = self._folder / _digest(user)
        return folder

    def surroundings(self) -> Surroundings:
        """Give what the files share; a new one is about to begin."""
        now = time.monotonic()
        if now - self._swept_at > _SWEEP_EVERY:
            self._swept_at = now
            sweep_shared(self._folder, keep_for=self._keep_for)
        return self._surroundings

    def path_of(self, names: os.DirEntry[str]) -> str | None:
        """Give the path of the folder that a folder of names stands for."""
        path = self._paths.get(names.name)
        if path is None:
            with suppress(OSError):
                path = self._paths[names.name] = Path(names.path, _FOLDER).read_text("utf-8")
        return path

    def close(self) -> None:
        """Let go of threads; the files stay."""
        self._executor.shutdown()


class SharedFiles:
    """The staged files of one user, as one request sees them."""

    def __init__(self, *, area: SharedArea, folder: Path | None) -> None:
        self._area: Final = area
        self._folder: Final = folder
        self._open: Final[dict[str, StagedUpload]] = {}
        self._is_empty: bool | None = None

    # ---- files

    def create(self, path: str, *, replaces: str | None = None, queued: str | None = None) -> StagedUpload:
        """Begin an empty file that is seen nowhere yet. Raises StoreFull, StoreUnavailable, NotAuthenticated."""
        if self._folder is None:
            raise NotAuthenticated("Only a known user may add files: log in.")
        self._is_empty = False
        surroundings = self._area.surroundings()
        key = secrets.token_hex(16)
        file = self._folder / "files" / key
        sidecar = Sidecar(path=path, replaces=replaces, queued=queued)
        with border(_STORE, "beginning a file"):
            make_folder(file.parent, sync=False)
            write_sidecar(file.with_name(key + SUFFIX), sidecar)
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        upload = StagedUpload(key=key, file=file, descriptor=descriptor, sidecar=sidecar, surroundings=surroundings)
        self._open[key] = upload
        return upload

    def recover(self) -> Sequence[StagedUpload]:
        """Take nothing over: nothing is anybody's but the user's."""
        return ()

    def forget(self, upload: StagedUpload) -> None:
        """Close a file."""
        upload.close()
        self._open.pop(upload.key, None)

    def close(self) -> None:
        """Close all files, at the end of the request; they stay."""
        for upload in self._open.values():
            upload.close()
        self._open.clear()

    # ---- where they are seen

    def find(self, path: str) -> StagedUpload | None:
        """Give the file that is seen at a path, open. Raises StoreUnavailable."""
        if self._folder is None or self._has_none():
            return None
        link = self._link(path)
        with border(_STORE, "looking for a file"):
            try:
                key = os.readlink(link)  # noqa: PTH115 - asked for with each request, and four times as fast
            except (FileNotFoundError, NotADirectoryError):
                return None
            upload = self._open.get(key) or self._opened(Path(link), key, path)
        if upload is not None:
            self._open[key] = upload
        return upload

    def show(self, path: str, upload: StagedUpload, *, replace: bool = False) -> None:
        """Show a file at a path, with ``replace`` instead of another one, in one step.

        Raises PathTaken where another one is shown, StoreFull, StoreUnavailable.
        """
        link = Path(self._link(path))
        with border(_STORE, "naming a file"):
            self._begin_names(link.parent, split(path)[0])
            if replace:
                draft = link.with_name(f"{link.name}.{upload.key}")
                draft.symlink_to(upload.key)
                draft.replace(link)
                return
            try:
                link.symlink_to(upload.key)
            except FileExistsError:
                if self.find(path) is not upload:
                    raise PathTaken(f"There is something at {path!r} already.") from None

    def hide(self, path: str, upload: StagedUpload) -> None:
        """Show a file at a path no longer. Raises StoreUnavailable."""
        link = Path(self._link(path))
        with border(_STORE, "removing the name of a file"), suppress(FileNotFoundError, NotADirectoryError):
            if link.readlink().name == upload.key:
                link.unlink()

    def in_folder(self, folder: str) -> Iterator[tuple[str, StagedUpload]]:
        """Give the names and files right in a folder; the files are closed but tell what is known of them."""
        if self._folder is None:
            return
        for entry in _links(self._folder / "names" / _digest(folder)):
            key = Path(entry.path).readlink().name
            upload = self._open.get(key)
            if upload is None:
                upload = self._opened(Path(entry.path), key, None)
                if upload is None:
                    continue
                upload.close()
            yield split(upload.path)[1], upload

    def folders(self) -> Iterator[str]:
        """Give the paths of all folders in which something is seen."""
        if self._folder is None or self._has_none():
            return
        for names in _scan(f"{self._folder}/names"):
            path = self._area.path_of(names)
            if path is not None and next(_links(Path(names.path)), None) is not None:
                yield path

    # ---- the steps

    def _has_none(self) -> bool:
        """Say whether the user has no files, as most have: asked once for each request that begins none."""
        if self._is_empty is None:
            self._is_empty = not os.path.exists(f"{self._folder}/names")  # noqa: PTH110 - asked for with each request
        return self._is_empty

    def _opened(self, link: Path, key: str, path: str | None) -> StagedUpload | None:
        assert self._folder is not None  # noqa: S101 - there is a link in it
        file = self._folder / "files" / key
        try:
            sidecar = read_sidecar(file.with_name(key + SUFFIX))
            descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except (FileNotFoundError, ValueError):
            # Swept, or removed by another process in between.
            with suppress(OSError):
                if link.readlink().name == key:
                    link.unlink()
            return None
        if path is not None and sidecar.path != path:
            # A move that was broken off between its steps: where it is seen, there it is.
            sidecar = Sidecar(path=path, said=sidecar.said, state=sidecar.state)
        return StagedUpload(
            key=key, file=file, descriptor=descriptor, sidecar=sidecar, surroundings=self._area.surroundings()
        )

    def _link(self, path: str) -> str:
        if self._folder is None:
            raise NotAuthenticated("Only a known user may add files: log in.")
        return f"{self._folder}/names/{_digest(split(path)[0])}/{_digest(path)}"

    def _begin_names(self, names: Path, folder: str) -> None:
        said = names / _FOLDER
        if not said.exists():
            make_folder(names, sync=False)
            draft = names / f"{_FOLDER}.{secrets.token_hex(8)}"
            draft.write_text(folder, "utf-8")
            draft.replace(said)


def sweep_shared(folder: Path, *, keep_for: timedelta = KEEP_FOR) -> tuple[int, int]:
    """Remove what nobody touched for so long; give how many files that were, and their bytes. What can't go stays."""
    before = time.time() - keep_for.total_seconds()
    files = size = 0
    try:
        for user in _scan(folder):
            for file in _scan(Path(user.path, "files")):
                status = file.stat(follow_symlinks=False)
                if status.st_mtime < before:
                    _log.info("Removing the staged file %s, which nobody came back for", file.path)
                    Path(file.path).unlink(missing_ok=True)
                    files += not file.name.endswith(SUFFIX)
                    size += status.st_size
            for names in _scan(Path(user.path, "names")):
                _sweep_names(Path(names.path), before)
    except OSError as error:
        _log.warning("The staging folder %s is not swept: %s", folder, error)
    return files, size


def _digest(text: str) -> str:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def _scan(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except (FileNotFoundError, NotADirectoryError):
        return


def _links(names: Path) -> Iterator[os.DirEntry[str]]:
    return (entry for entry in _scan(names) if entry.is_symlink() and "." not in entry.name)


def _sweep_names(names: Path, before: float) -> None:
    """Remove names of files that are gone, and a folder of names in which there are none any more."""
    is_empty = True
    for entry in list(_scan(names)):
        if not entry.is_symlink():
            continue
        is_gone = not Path(names.parents[1], "files", Path(entry.path).readlink()).exists()
        if is_gone and entry.stat(follow_symlinks=False).st_mtime < before:
            Path(entry.path).unlink(missing_ok=True)
        else:
            is_empty = False
    if is_empty and names.stat().st_mtime < before:
        (names / _FOLDER).unlink(missing_ok=True)
        with suppress(OSError):
            names.rmdir()

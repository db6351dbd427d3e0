# SPDX-License-Identifier: Apache-2.0
"""The folder in which files are staged, shared by all mounts of a store.

::

    FOLDER/SESSION/lock       locked by the one mount whose files these are; the kernel ends that with it
    FOLDER/SESSION/KEY        the bytes of a staged file
    FOLDER/SESSION/KEY.json   what is known of it, once it is more than a file that is made and closed in one breath

Answers for which mount has which staged files, for taking over what a dead mount left, and for sweeping what nobody
came back for. Does not know images.

Locks are those of open files (fcntl(2), F_OFD_SETLK), since they can be looked at without being taken. So a sweep holds
none while files are left in a session, and no mount that begins meanwhile takes a dead mount for a living one.
What a sweep removes without a lock, the mount that takes the session over at this moment would remove as well.

Threading: every method may be called from many threads and processes.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import secrets
import struct
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from threading import Lock
from typing import Final

from glancefs.cores import roam
from glancefs.staging.sidecar import SUFFIX, Sidecar, StagedState, read_sidecar, write_sidecar
from glancefs.staging.upload import Follow, Follower, StagedUpload, Surroundings
from glancefs.stores.disk import Disk, border, make_folder

_log = logging.getLogger(__name__)

KEEP_FOR: Final = timedelta(days=7)
"""How long files are kept that no mount of their user has come back for."""

_DRAFTED_WITHIN: Final = 60.0
"""Seconds after which a mount that began a session has done so, or died."""
_SESSION = re.compile(r"[0-9a-f]{16}")
_DRAFT = re.compile(r"\.[0-9a-f]{16}")
_KEY = re.compile(r"[0-9a-f]{16}")
_LOCK: Final = "lock"
_STORE: Final = "staging"
_FREED_AT_ONCE: Final = 16 << 20
_HASHERS: Final = 2
"""How many files are hashed beside writing at once; more would only slow down those who write."""
_FLOCK: Final = struct.Struct("@hhqqi4x")
"""struct flock of fcntl(2): type, whence, start, length, process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    """A folder of staged files whose lock this mount holds."""

    folder: Path
    descriptor: int


class Staging:
    """The staged files of one mount, in ``folder``, which should be on the store's own file system.

    Files that no mount of their ``user`` has come back for are kept for ``keep_for``. Nothing is made, and no thread
    started, before the first file is.
    """

    def __init__(
        self,
        *,
        folder: Path,
        user: str | None,
        max_upload: int | None = None,
        keep_for: timedelta = KEEP_FOR,
        is_passage: bool = False,
        follow: Follow | None = None,
    ) -> None:
        """``is_passage``: files leave this disk when they are complete, so that what is written need not get there.

        ``follow`` gives who is told what happens to each new file.
        """
        self._follow: Final = follow
        self._folder: Final = folder
        self._user: Final = user
        self._keep_for: Final = keep_for
        self._executor: Final = ThreadPoolExecutor(max_workers=_HASHERS, thread_name_prefix="hash", initializer=roam)
        self._surroundings: Final = Surroundings(
            executor=self._executor, disk=Disk(), max_upload=max_upload, is_passage=is_passage
        )
        self._lock: Final = Lock()
        self._own: _Session | None = None
        self._taken_over: Final[list[_Session]] = []
        self._uploads: Final[dict[str, StagedUpload]] = {}

    def create(self, path: str, *, replaces: str | None = None, queued: str | None = None) -> StagedUpload:
        """Begin an empty file that is to be seen at a path. Raises StoreFull, StoreUnavailable."""
        with border(_STORE, "beginning a file"):
            with self._lock:
                if self._own is None:
                    self._own = _begin_session(self._folder, self._user)
                folder = self._own.folder
            key = secrets.token_hex(8)
            file = folder / key
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        sidecar = Sidecar(path=path, replaces=replaces, queued=queued)
        follower = None if self._follow is None else self._follow(file, descriptor)
        return self._upload(file, descriptor, sidecar, is_noted=False, follower=follower)

    def recover(self) -> Sequence[StagedUpload]:
        """Take over what dead mounts of the same user left, as ABORTED, and sweep what is too old.

        Raises StoreUnavailable.
        """
        with border(_STORE, "looking for what was left"):
            recovered: list[StagedUpload] = []
            for folder in _sessions(self._folder):
                session = _take_over(folder)
                if session is None:
                    continue
                _sweep_session(folder, before=time.time() - self._keep_for.total_seconds())
                if _user_of(folder) == self._user:
                    self._taken_over.append(session)
                    recovered.extend(self._recovered(folder))
                else:
                    _end_session(session)
            return recovered

    def close(self) -> None:
        """Let go of everything; files that are neither published nor discarded stay for the next mount."""
        self._executor.shutdown()
        with self._lock:
            for upload in self._uploads.values():
                upload.close()
            self._uploads.clear()
            for session in (*self._taken_over, *([self._own] if self._own else ())):
                _end_session(session)
            self._taken_over.clear()
            self._own = None

    def forget(self, upload: StagedUpload) -> None:
        """Close a file that is published or discarded."""
        with self._lock:
            self._uploads.pop(upload.key, None)
        if self._surroundings.is_passage and upload.size > _FREED_AT_ONCE:
            # Its blocks have no other name: to free a GiB of them takes a tenth of a second, and nobody waits for that.
            with suppress(RuntimeError):
                self._executor.submit(upload.close)
                return
        upload.close()

    def _upload(
        self,
        file: Path,
        descriptor: int,
        sidecar: Sidecar,
        *,
        is_noted: bool = True,
        follower: Follower | None = None,
    ) -> StagedUpload:
        upload = StagedUpload(
            key=file.name,
            file=file,
            descriptor=descriptor,
            sidecar=sidecar,
            surroundings=self._surroundings,
            is_noted=is_noted,
            follower=follower,
        )
        with self._lock:
            self._uploads[upload.key] = upload
        return upload

    def _recovered(self, folder: Path) -> Iterator[StagedUpload]:
        for file in _staged_files(folder):
            try:
                descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                # Swept since it was seen.
                continue
            except OSError as error:
                _log.warning("The staged file %s can't be opened: %s", file, error)
                continue
            try:
                sidecar = read_sidecar(file.with_name(file.name + SUFFIX))
            except FileNotFoundError:
                if not os.fstat(descriptor).st_size:
                    # Nobody had written anything into it.
                    os.close(descriptor)
                    file.unlink(missing_ok=True)
                    continue
                _log.info("The mount that had the staged file %s died before it took down what it was", file)
                sidecar = Sidecar(path=f"recovered-{file.name}")
            except (OSError, ValueError) as error:
                _log.warning("What was known of the staged file %s is lost: %s", file, error)
                sidecar = Sidecar(path=f"recovered-{file.name}")
            sidecar = replace(sidecar, state=StagedState.ABORTED, replaces=None, queued=None)
            write_sidecar(file.with_name(file.name + SUFFIX), sidecar)
            yield self._upload(file, descriptor, sidecar)


def sweep_staged(folder: Path, *, keep_for: timedelta = KEEP_FOR) -> tuple[int, int]:
    """Remove files that no mount came back for in this time. Gives how many, and the bytes freed.

    Safe beside mounts that run, begin and end, and beside other sweeps. Raises StoreUnavailable.
    """
    before = time.time() - keep_for.total_seconds()
    files = size = 0
    with border(_STORE, "sweeping"):
        for session in _sessions(folder):
            if _is_alive(session):
                continue
            swept = _sweep_session(session, before=before)
            files, size = files + len(swept), size + sum(swept)
            if next(_staged_files(session), None) is None and (taken := _take_over(session)) is not None:
                _end_session(taken)
        for draft in _sessions(folder, _DRAFT):
            _remove_draft(draft, before=time.time() - _DRAFTED_WITHIN)
    return files, size


def _sessions(folder: Path, pattern: re.Pattern[str] = _SESSION) -> Iterator[Path]:
    try:
        names = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return
    yield from (folder / name for name in names if pattern.fullmatch(name))


def _begin_session(folder: Path, user: str | None) -> _Session:
    """Make a session's folder under a name that nobody takes over, and give it its own once it is locked."""
    make_folder(folder, sync=False)
    name = secrets.token_hex(8)
    draft = folder / f".{name}"
    draft.mkdir(mode=0o700)
    descriptor = os.open(draft / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor)
        os.write(descriptor, json.dumps({"user": user}).encode())
        draft.rename(folder / name)
    except BaseException:
        os.close(descriptor)
        raise
    return _Session(folder=folder / name, descriptor=descriptor)


def _take_over(folder: Path) -> _Session | None:
    """Take a session whose mount is dead; None where it lives, or is gone."""
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        with suppress(OSError):
            folder.rmdir()
        return None
    if _lock(descriptor) and os.fstat(descriptor).st_nlink:
        return _Session(folder=folder, descriptor=descriptor)
    os.close(descriptor)
    return None


def _lock(descriptor: int) -> bool:
    """Lock an open file if nobody has; closing it unlocks it."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def _is_alive(session: Path) -> bool:
    """Say whether there is a mount whose session this is, without a lock that would stand for one."""
    try:
        descriptor = os.open(session / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(descriptor)
    kind: int = _FLOCK.unpack(found)[0]
    return kind != fcntl.F_UNLCK


def _end_session(session: _Session) -> None:
    """Let go of a session, and remove it if nothing is in it."""
    try:
        if next(_staged_files(session.folder), None) is None:
            for file in session.folder.iterdir():
                file.unlink(missing_ok=True)
            session.folder.rmdir()
    except OSError as error:
        _log.warning("The staging folder %s stays: %s", session.folder, error)
    finally:
        os.close(session.descriptor)


def _staged_files(folder: Path) -> Iterator[Path]:
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        return
    for path in paths:
        if _KEY.fullmatch(path.name):
            yield path


def _user_of(folder: Path) -> str | None:
    try:
        user = json.loads((folder / _LOCK).read_bytes())["user"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return user if isinstance(user, str) else None


def _sweep_session(folder: Path, *, before: float) -> list[int]:
    """Remove a dead mount's files that nobody touched since a time, in seconds since the epoch; give their sizes."""
    swept = []
    for file in _staged_files(folder):
        with suppress(FileNotFoundError):
            status = file.stat()
            if status.st_mtime < before:
                _log.info("Removing the staged file %s, which nobody came back for", file)
                file.unlink()
                file.with_name(file.name + SUFFIX).unlink(missing_ok=True)
                swept.append(status.st_blocks * 512)
    return swept


def _remove_draft(folder: Path, *, before: float) -> None:
    """Remove what a mount left that died while it began its session."""
    with suppress(FileNotFoundError):
        if folder.stat().st_mtime < before and not _is_alive(folder):
            (folder / _LOCK).unlink(missing_ok=True)
            folder.rmdir()

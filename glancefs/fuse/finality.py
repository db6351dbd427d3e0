# SPDX-License-Identifier: Apache-2.0
"""Was that the last close? What /proc tells of the process that opened a file.

The kernel sends a flush whenever a descriptor is closed, and does not say whose: ``touch`` closes twice, ``cat > f``
three times, ``(a; b) > f`` between its writers. A file is complete when neither the process that opened it nor one of
its children has it open; unless that process was killed: then a closed file is no complete one.

Answers for reading this from proc(5). Decides nothing about files.

Threading: every function reads /proc, which never waits for a file system, and may be called from any thread.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

_EXITING: Final = 0x4
"""PF_EXITING of the kernel's task flags (proc_pid_stat(5), field 9)."""
_SIGNALED: Final = 0x400
"""PF_SIGNALED: killed by a signal."""
_FLAGS_FIELD: Final = 6
"""The place of the flags behind the command's name, which may hold blanks and parentheses."""
_IGNORED_FIELD: Final = 30
_CAUGHT_FIELD: Final = 31
_MOST_CHILDREN: Final = 64
_SMALL: Final = 512
_PAGE: Final = 4096
"""In bytes: proc(5) gives a text of this size in one piece."""
_NUMBERS_LAST: Final = 2.0
"""Seconds within which the system does not come round to a process number again."""

# PIDFD_GET_INFO of linux/pidfd.h, since Linux 6.15 with the exit status, also of a process that was waited for.
_INFORMATION_SIZE: Final = 64
_GET_INFORMATION: Final = 0xC000FF0B | _INFORMATION_SIZE << 16
_INFORMATION_EXIT: Final = 1 << 3
_INFORMATION: Final = struct.Struct("=Q")
_STATUS: Final = struct.Struct("=i")
_STATUS_AT: Final = 60


class Closing(Enum):
    """What a close means."""

    NOT_LAST = "not last"
    """The opener, or a child of it, still has the file open."""
    LAST = "last"
    LAST_OF_EXIT = "last of exit"
    """The opener is on its way out, of its own will."""
    KILLED = "killed"
    """The opener was killed by a signal."""
    LAST_OF_INTERRUPTED = "last of interrupted"
    """The opener looks as if it was interrupted, and was only clearing up before it ends by that signal."""
    UNKNOWN = "unknown"
    """There is no telling: the opener is out of our sight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opener:
    """The process that opened a file; 0 for one of another pid namespace, of which nothing can be known."""

    pid: int
    name: str = ""
    """By which file name it did; empty: unknown."""
    latest: bytes = b""
    """The number of the process that the system had begun last, when the file was opened; empty: unknown."""
    until: float = 0.0
    """Up to which time of the monotonic clock the same number means that no process was begun since."""

    @property
    def is_childless(self) -> bool:
        """Whether it can't have begun a child since it opened the file, so that nobody has inherited it."""
        return bool(self.latest) and time.monotonic() < self.until and _latest() == self.latest


def opener_of(task: int, name: str = "") -> Opener:
    """Find the process that a task of a request belongs to; FUSE gives the id of the thread."""
    known = _content(f"/proc/{task}/status").partition(b"\nTgid:")[2]
    pid = int(known.split(None, 1)[0]) if known else task
    return Opener(pid=pid, name=name, latest=_latest(), until=time.monotonic() + _NUMBERS_LAST)


def closing(opener: Opener, ino: int, name: str = "") -> Closing:
    """Tell what a close of the file with this inode number means, asked while the close waits for its answer.

    ``name`` is what the file is called by now; empty: unknown.
    """
    task = _task(opener.pid) if opener.pid else None
    if task is None:
        # It is gone, with a child or a receiver of the descriptor as the last to close.
        return Closing.UNKNOWN
    if task.flags & _SIGNALED:
        return Closing.KILLED
    try:
        # Looking for children asks each thread of a process; nearly always there can't be any.
        children = () if opener.is_childless else _children(opener.pid)
        names = (opener.name, name) if opener.name and name else ()
        if _has_open(opener.pid, ino, names) or any(_has_open(child, ino, names) for child in children):
            return Closing.NOT_LAST
    except PermissionError:
        return Closing.UNKNOWN
    if task.flags & _EXITING:
        return Closing.LAST_OF_EXIT
    return Closing.LAST_OF_INTERRUPTED if task.looks_interrupted else Closing.LAST


def watch(opener: Opener) -> int | None:
    """Give a descriptor that becomes readable when a process ends; None for one that is gone or out of sight."""
    try:
        return os.pidfd_open(opener.pid) if opener.pid else None
    except OSError:
        return None


def was_killed(pidfd: int, opener: Opener) -> bool | None:
    """Say whether a process that has ended was killed by a signal; None where that is forgotten already."""
    task = _task(opener.pid)
    if task is not None and task.flags & _EXITING:
        return bool(task.flags & _SIGNALED)
    information = bytearray(_INFORMATION_SIZE)
    _INFORMATION.pack_into(information, 0, _INFORMATION_EXIT)
    try:
        fcntl.ioctl(pidfd, _GET_INFORMATION, information, True)  # noqa: FBT003 - fill the buffer
    except OSError:
        return None
    if not _INFORMATION.unpack_from(information, 0)[0] & _INFORMATION_EXIT:
        return None
    (status,) = _STATUS.unpack_from(information, _STATUS_AT)
    return os.WIFSIGNALED(status)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """What proc_pid_stat(5) tells of a process."""

    flags: int
    ignored: int
    caught: int

    @property
    def looks_interrupted(self) -> bool:
        """Whether it has handlers for signals, but none for SIGINT any more.

        dd sets one for SIGUSR1 and one for SIGINT that is used up by the first; then it closes what it has written, as
        if that were all, and ends itself by the signal.
        """
        interrupt, own = 1 << (signal.SIGINT - 1), 1 << (signal.SIGUSR1 - 1)
        return bool(self.caught & own) and not (self.caught | self.ignored) & interrupt


def _task(pid: int) -> _Task | None:
    text = _content(f"/proc/{pid}/stat", _PAGE)
    if not text:
        return None
    fields = text.rpartition(b")")[2].split()
    return _Task(
        flags=int(fields[_FLAGS_FIELD]), ignored=int(fields[_IGNORED_FIELD]), caught=int(fields[_CAUGHT_FIELD])
    )


def _has_open(pid: int, ino: int, names: Collection[str]) -> bool:
    """Say whether a process has a file of this number open: ours are hashes of 62 bits, which no other system has.

    Only those under one of these names are looked at, which the kernel knows from the open and from renames; all, if
    there are none.
    """
    folder = f"/proc/{pid}/fdinfo"
    wanted = b"ino:\t%d\n" % ino
    try:
        numbers = os.listdir(folder)  # noqa: PTH208 - names are enough, and a busy process has thousands
    except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
        return False
    if names:
        numbers = [number for number in numbers if _can_be(f"/proc/{pid}/fd/{number}", names)]
    return any(wanted in _content(f"{folder}/{number}") for number in numbers)


def _can_be(descriptor: str, names: Collection[str]) -> bool:
    """Say whether an open file can have one of these names. One look, where its number takes three."""
    try:
        path = os.readlink(descriptor)  # noqa: PTH115 - a busy process has thousands
    except FileNotFoundError:
        return False
    except OSError:
        # Such as a path that is too long.
        return True
    return path.rpartition("/")[2].removesuffix(" (deleted)") in names


def _latest() -> bytes:
    """Give the number of the process or thread that was begun last (pid_namespaces(7)); empty where nobody says."""
    return _content("/proc/sys/kernel/ns_last_pid")


def _content(path: str, size: int = _SMALL) -> bytes:
    # os.open instead of open(): a busy process has thousands of descriptors.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, size)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _children(pid: int, *, most: int = _MOST_CHILDREN) -> Iterator[int]:
    """Give a process's children and theirs: a redirected output is inherited. Few, or this would cost too much."""
    waiting = [pid]
    while waiting and most > 0:
        parent = waiting.pop()
        try:
            tasks = os.listdir(f"/proc/{parent}/task")  # noqa: PTH208 - names are enough
        except OSError:
            continue
        for task in tasks:
            for child in _content(f"/proc/{parent}/task/{task}/children").split():
                most -= 1
                waiting.append(int(child))
                yield int(child)

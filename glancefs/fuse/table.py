# SPDX-License-Identifier: Apache-2.0
"""The table of mounts: what is mounted where, taking a mount away, and clearing away one whose daemon has died.

Answers for mountinfo (proc(5)) and umount(2). A mount whose daemon was killed answers everything with "Transport
endpoint is not connected"; a new mount would lie over the corpse, so it is detached first.

Threading: functions without state. Those that ask a daemon do so in a thread of its own, and give up after a while.
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Final, TypeVar

from glancefs.errors import ConfigError

SUBTYPE: Final = "glancefs"
FILE_SYSTEM: Final = f"fuse.{SUBTYPE}"

_FORCE: Final = 1
"""MNT_FORCE of umount2(2): requests under way are given up."""
_DETACH: Final = 2
"""MNT_DETACH of umount2(2)."""
_NO_FOLLOW: Final = 8
"""UMOUNT_NOFOLLOW."""
_PATIENCE: Final = 20.0
_DEAD: Final = frozenset({errno.ENOTCONN, errno.ECONNABORTED})

ANSWER_PATIENCE: Final = 5.0
"""Seconds after which a mount is taken for one that does not answer."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounted:
    """A line of the table."""

    point: Path
    device: str
    """``MAJOR:MINOR``, under which the kernel keeps what it reads ahead."""
    file_system: str
    source: str


def mounts() -> Iterator[Mounted]:
    """Give the mounts that this process sees, the latest of each place last."""
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        words = line.split()
        # proc(5): optional fields of any number end with a hyphen.
        rest = words[words.index("-") + 1 :]
        yield Mounted(
            point=Path(_unescaped(words[4])), device=words[2], file_system=rest[0], source=_unescaped(rest[1])
        )


def mounted_at(point: Path) -> Mounted | None:
    """Give what lies on top at a place; does not look at the mount itself, so it never blocks."""
    found = None
    for mounted in mounts():
        if mounted.point == point:
            found = mounted
    return found


def place_of(path: Path) -> Path:
    """Give where a path leads, without a look at a mount that lies there: its daemon might not answer."""
    path = path.absolute()
    place = Path(os.path.realpath(path.parent)) / path.name
    return place if path.name != ".." and mounted_at(place) is not None else Path(os.path.realpath(path))


def check_free(point: Path, *, patience: float = ANSWER_PATIENCE) -> None:
    """Make sure that a place can be mounted on, clearing away what a killed daemon left there.

    Raises ConfigError, also for a mount that does not answer within ``patience`` seconds.
    """
    while (mounted := mounted_at(point)) is not None and mounted.file_system == FILE_SYSTEM:
        try:
            # Unlike the attributes of the root, which the kernel may remember for long, this is always asked for.
            ask(partial(os.statvfs, point), patience=patience)
        except TimeoutError:
            message = (
                f"{point} is a mount of {mounted.source} that does not answer; "
                f"`glancefs umount --lazy {point}` takes it away."
            )
            raise ConfigError(message) from None
        except OSError as error:
            if error.errno in _DEAD:
                unmount(point, lazy=True)
                continue
        message = f"{point} is a mount of {mounted.source} already; `glancefs umount {point}` ends it."
        raise ConfigError(message)
    if not point.is_dir():
        message = f"{point} is no folder that could be mounted on."
        raise ConfigError(message)


def ask(question: Callable[[], T], *, patience: float = ANSWER_PATIENCE) -> T:
    """Ask a mount something in a thread of its own, since its daemon might never answer.

    Raises TimeoutError then, and what the question raises.
    """
    answers: Queue[T | OSError] = Queue()

    def work() -> None:
        try:
            answers.put(question())
        except OSError as error:
            answers.put(error)

    Thread(target=work, name="question", daemon=True).start()
    try:
        answer = answers.get(timeout=patience)
    except Empty:
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
    if isinstance(answer, OSError):
        raise answer
    return answer


def unmount(point: Path, *, lazy: bool = False, is_silent: bool = False) -> None:
    """Take a mount away. Raises OSError: EBUSY while somebody has files open on it (not if ``lazy``).

    Of a mount that does not answer (``is_silent``), whatever waits for an answer gets an error; only root can do that.
    """
    if os.geteuid() == 0:
        library = ctypes.CDLL(None, use_errno=True)
        flags = _NO_FOLLOW | (_DETACH if lazy else 0) | (_FORCE if is_silent else 0)
        if library.umount2(os.fsencode(point), flags):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(point))
        return
    command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", str(point)]
    try:
        ended = subprocess.run(command, capture_output=True, check=False, timeout=_PATIENCE)  # noqa: S603 - fixed words
    except FileNotFoundError:
        message = "fusermount3 is not installed, and only root can do without."
        raise ConfigError(message) from None
    except subprocess.TimeoutExpired:
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), str(point)) from None
    if ended.returncode:
        said = ended.stderr.decode(errors="replace")
        number = errno.EBUSY if "busy" in said else errno.EINVAL
        raise OSError(number, said.strip() or os.strerror(number), str(point))


def _unescaped(text: str) -> str:
    """Read what proc(5) escapes: blanks, tabs, line ends and backslashes as three octal digits."""
    if "\\" not in text:
        return text
    return text.encode("utf-8", "surrogateescape").decode("unicode_escape").encode("latin-1").decode("utf-8", "replace")

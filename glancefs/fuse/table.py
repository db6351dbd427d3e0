# SPDX-License-Identifier: Apache-2.0
"""The table of mounts: what is mounted where, taking a mount away, and clearing away one whose daemon has died.

Answers for mountinfo (proc(5)) and umount(2). A mount whose daemon was killed answers everything with "Transport
endpoint is not connected"; a new mount would lie over the corpse, so it is detached first.

Threading: functions without state. Those that look at a mount may block on its daemon, and say so.
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from glancefs.errors import ConfigError

SUBTYPE: Final = "glancefs"
FILE_SYSTEM: Final = f"fuse.{SUBTYPE}"

_DETACH: Final = 2
"""MNT_DETACH of umount2(2)."""
_NO_FOLLOW: Final = 8
"""UMOUNT_NOFOLLOW."""
_PATIENCE: Final = 20.0


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


def check_free(point: Path) -> None:
    """Make sure that a place can be mounted on, clearing away what a killed daemon left there.

    Blocks as long as a daemon that is alive does not answer. Raises ConfigError.
    """
    while (mounted := mounted_at(point)) is not None and mounted.file_system == FILE_SYSTEM:
        if not _is_dead(point):
            message = f"{point} is a mount of {mounted.source} already; `glancefs umount {point}` ends it."
            raise ConfigError(message)
        unmount(point, lazy=True)
    if not point.is_dir():
        message = f"{point} is no folder that could be mounted on."
        raise ConfigError(message)


def _is_dead(point: Path) -> bool:
    try:
        # Unlike the attributes of the root, which the kernel may remember for long, this is always asked of the daemon.
        os.statvfs(point)
    except OSError as error:
        return error.errno in {errno.ENOTCONN, errno.ECONNABORTED}
    return False


def unmount(point: Path, *, lazy: bool = False) -> None:
    """Take a mount away. Raises OSError: EBUSY while somebody has files open on it (not if ``lazy``)."""
    if os.geteuid() == 0:
        library = ctypes.CDLL(None, use_errno=True)
        flags = _NO_FOLLOW | (_DETACH if lazy else 0)
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

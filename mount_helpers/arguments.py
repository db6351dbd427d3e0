# SPDX-License-Identifier: Apache-2.0
"""What mount(8) and umount(8) say to the helpers of a file system type, and with which status they are answered.

Answers for the words alone: ``mount.TYPE SOURCE FOLDER [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE.SUBTYPE]`` and
``umount.TYPE FOLDER [-nlfrv] [-N NAMESPACE] [-t TYPE.SUBTYPE]`` (mount(8) and umount(8), "EXTERNAL HELPERS"). mount(8)
puts options behind the operands, people before them. Does nothing itself.

Threading: pure functions and frozen values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from getopt import GetoptError, gnu_getopt
from typing import Final

DONE: Final = 0
MISUSED: Final = 1
"""Incorrect invocation or permissions."""
UNABLE: Final = 2
"""The system lacks something."""
INTERRUPTED: Final = 8
"""The user gave up."""
FAILED: Final = 32
"""The mount, or the taking away, failed."""

# What the command ends with when a signal ended it (128 and its number), and what this machine may not know of it.
_SIGNALLED: Final = range(129, 160)

MOUNT_USAGE: Final = "usage: mount.glancefs SOURCE FOLDER [-fnrsvw] [-N NAMESPACE] [-o OPTION[=VALUE],…]"
UMOUNT_USAGE: Final = "usage: umount.glancefs FOLDER [-flnrv] [-N NAMESPACE]"


class UsageError(Exception):
    """The words can't be understood; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """A helper's command line, read."""

    operands: tuple[str, ...]
    flags: frozenset[str]
    """Single letters, without their hyphen."""
    options: tuple[str, ...] = ()
    """What ``-o`` said, and ``-r`` and ``-w`` as ``ro`` and ``rw``, in their order."""
    namespace: str | None = None
    """Where to mount: the path of a namespace, or a process whose namespace it is."""


def read_mount_words(arguments: Sequence[str]) -> Words:
    """Read what mount(8) says. Raises UsageError."""
    return _read(arguments, "fnrsvwhVo:N:t:", operands=("SOURCE", "FOLDER"))


def read_umount_words(arguments: Sequence[str]) -> Words:
    """Read what umount(8) says. Raises UsageError."""
    return _read(arguments, "flnrvhVN:t:", operands=("FOLDER",))


def _read(arguments: Sequence[str], letters: str, *, operands: tuple[str, ...]) -> Words:
    try:
        said, rest = gnu_getopt(list(arguments), letters)
    except GetoptError as error:
        message = f"{error.msg}."
        raise UsageError(message) from None
    flags, options, namespace = set(), [], None
    for name, value in said:
        if name == "-o":
            options.append(value)
        elif name == "-N":
            namespace = value
        elif name != "-t":
            # The type that -t repeats is the one by whose name mount(8) found this helper.
            flags.add(name[1:])
            options += {"-r": ["ro"], "-w": ["rw"]}.get(name, [])
    if not flags & {"h", "V"} and len(rest) != len(operands):
        message = f"{' and '.join(operands)} are needed" if len(operands) > 1 else f"one {operands[0]} is needed"
        message += f", not {len(rest)} words."
        raise UsageError(message)
    return Words(operands=tuple(rest), flags=frozenset(flags), options=tuple(options), namespace=namespace)


def status_for_mount(status: int) -> int:
    """Give mount(8)'s exit status for one of the command's; options were looked at before, so no failure is misuse."""
    if status == 0:
        return DONE
    return INTERRUPTED if status in _SIGNALLED else FAILED

# SPDX-License-Identifier: Apache-2.0
"""``umount.glancefs``: takes a mount away and waits until what was written to it is safe.

Answers for handing what umount(8) says on to ``glancefs umount``, and for ending as umount(8) documents. For FUSE's
file systems umount(8) calls no helper by itself, so nothing depends on this one: a plain umount(2) is complete as well.

Threading: used by the main thread.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence

from glancefs import __version__
from mount_helpers import namespace
from mount_helpers.arguments import (
    DONE,
    MISUSED,
    UMOUNT_USAGE,
    UNABLE,
    UsageError,
    read_umount_words,
    status_for_mount,
)

_NAME = "umount.glancefs"
_SYSTEM_PATH = "/bin:/usr/bin:/sbin:/usr/sbin"


def main(arguments: Sequence[str] | None = None) -> int:
    """Unmount as told by these arguments, by default the process's own; gives umount(8)'s exit status."""
    try:
        words = read_umount_words(sys.argv[1:] if arguments is None else arguments)
    except UsageError as error:
        sys.stderr.write(f"{_NAME}: {error}\n")
        return MISUSED
    if words.flags & {"h", "V"}:
        sys.stdout.write(f"{UMOUNT_USAGE if 'h' in words.flags else f'{_NAME} {__version__}'}\n")
        return DONE
    if words.namespace is not None:
        try:
            namespace.enter(words.namespace)
        except OSError as error:
            sys.stderr.write(f"{_NAME}: {error.filename}: {error.strerror}.\n")
            return UNABLE
    (folder,) = words.operands
    if flags := words.flags & {"f", "l"}:
        # Who does not want to wait gets what umount(8) does by itself; -i keeps it from calling us.
        umount = shutil.which("umount", path=_SYSTEM_PATH) or "umount"
        os.execv(umount, [umount, "-i", *(f"-{flag}" for flag in sorted(flags)), "--", folder])  # noqa: S606 - no shell
    from glancefs.cli import main as glancefs  # noqa: PLC0415 - usage is told at once

    return status_for_mount(glancefs(["umount", "--", folder]))


if __name__ == "__main__":
    sys.exit(main())

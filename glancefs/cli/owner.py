# SPDX-License-Identifier: Apache-2.0
"""Root at work in a data folder of somebody else's: what it makes there belongs to the folder's owner.

Answers for that one thing, so that a server that runs as its own user can use what root's mounts and commands have
added. Root keeps all its other rights, among them to mount.

Threading: `act_as_owner` is for the thread that calls it, and for those that it starts afterwards; so it is called
before there are others.
"""

from __future__ import annotations

import ctypes
import logging
import os
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)

_GET_SECURE_BITS: Final = 27
_SET_SECURE_BITS: Final = 28
_NO_SETUID_FIXUP: Final = 1 << 2
"""SECBIT_NO_SETUID_FIXUP of capabilities(7): capabilities stay when the user changes."""


def act_as_owner(folder: Path) -> None:
    """Have files that root makes from now on belong to the owner and the group of a folder; for others, do nothing.

    Files that are made are the file system user's (setfsuid(2)), of which each thread has its own.
    """
    if os.geteuid():
        return
    try:
        status = folder.stat()
    except OSError:
        # It will be made, and is root's then; what else is wrong with it is told by those who use it.
        return
    if status.st_uid == 0:
        return
    library = ctypes.CDLL(None, use_errno=True)
    bits = library.prctl(_GET_SECURE_BITS, 0, 0, 0, 0)
    if bits < 0 or library.prctl(_SET_SECURE_BITS, bits | _NO_SETUID_FIXUP, 0, 0, 0) < 0:
        # In a container without CAP_SETPCAP root would lose the right to mount.
        _log.info("Files that are made in %s will be root's: %s", folder, os.strerror(ctypes.get_errno()))
        return
    library.setfsgid(status.st_gid)
    library.setfsuid(status.st_uid)

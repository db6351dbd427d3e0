# SPDX-License-Identifier: Apache-2.0
"""Entering the mount namespace that mount(8) was told to mount in (``-N``).

Answers for setns(2). What is done there, the helpers know.

Threading: the namespace is the process's own while it has one thread; call it before there are more.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

_MOUNTS: Final = 0x00020000
"""CLONE_NEWNS of setns(2)."""


def enter(namespace: str) -> None:
    """Enter a mount namespace: a path, or the number of a process that is in it. Raises OSError."""
    path = Path(f"/proc/{namespace}/ns/mnt") if namespace.isdecimal() else Path(namespace)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, _MOUNTS):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)

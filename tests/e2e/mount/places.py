# SPDX-License-Identifier: Apache-2.0
"""System calls that are to be refused, and one that Python lacks.

Threading: functions without state.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

NANOSECONDS: Final = 10**9

_RENAME_NOREPLACE: Final = 1
_AT_FDCWD: Final = -100


def must_fail(number: int, work: Callable[[], object]) -> None:
    """Make sure that something is refused with this errno."""
    with pytest.raises(OSError, match=re.escape(os.strerror(number))) as error:
        work()
    assert error.value.errno == number


def rename_without_replacing(old: Path, new: Path) -> None:
    """Call renameat2(2), which Python does not have. Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), _RENAME_NOREPLACE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

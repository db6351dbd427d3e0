# SPDX-License-Identifier: Apache-2.0
"""Names of images as paths of files, and back: every text has exactly one path, and every path exactly one text.

Answers for the form of paths. Does not know which images there are.

Threading: pure functions.
"""

from __future__ import annotations


def path_of(name: str) -> str:
    """Give the path of an image's name. The identity for all names that are paths already."""


def name_of(path: str) -> str:
    """Give the name whose path this is. Raises InvalidPath, PathTooLong for what is no path."""


def component_from_bytes(data: bytes) -> str:
    """Read a file name that the kernel gave. Raises InvalidPath (no UTF-8, control characters), PathTooLong."""


def join(folder: str, name: str) -> str:
    """Give the path of a name in a folder."""


def is_dot(path: str) -> bool:
    """Say whether a path's last component begins with a dot."""

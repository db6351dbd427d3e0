# SPDX-License-Identifier: Apache-2.0
"""How a file of the file store is claimed: a new one, one that lies beside the store, and one without a name.

Answers for there being no moment at which a sweep could take a claimed file for an abandoned one: a claim is a flock(2)
of the file itself, and a file that others made is locked before it gets its name among the uploads.

Threading: a claim belongs to the thread that took it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from glancefs.stores.disk import opened
from glancefs.stores.places import Places

WRITE: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
"""How files of the store are opened that are locked or changed."""


@dataclass(slots=True, kw_only=True)
class Claim:
    """A key of ours: the open, locked file that is or will be its data."""

    key: str
    descriptor: int
    is_file: bool = False
    """Whether it was taken together with a complete file."""
    is_used: bool = False
    is_complete: bool = False


def new_claim(places: Places) -> Claim:
    """Claim a new file, which is empty. Raises OSError, and as `Places.check_root` and `Places.check_owner` do."""
    places.check_root()
    places.check_owner()
    while True:
        key = secrets.token_hex(16)
        path = places.incoming(key)
        try:
            descriptor = os.open(path, WRITE | os.O_CREAT | os.O_EXCL, 0o600)
        except FileNotFoundError:
            places.make_incoming()
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Between the two calls a sweep may have taken the file for an abandoned one: then it has no name.
            if os.fstat(descriptor).st_nlink:
                return Claim(key=key, descriptor=descriptor)
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def claim_of_file(places: Places, file: Path) -> Claim:
    """Lock a file, and then give it its name as a claimed one: so no sweep finds it unlocked. Raises as `new_claim`."""
    places.check_root()
    places.check_owner()
    key = secrets.token_hex(16)
    descriptor = os.open(file, WRITE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(file, places.incoming(key))  # noqa: PTH104 - pathlib takes as long as the system
    except BaseException:
        os.close(descriptor)
        raise
    return Claim(key=key, descriptor=descriptor, is_file=True)


def claim_of_unnamed(places: Places, descriptor: int) -> Claim:
    """Lock an open file that has no name, and then give it its first, as a claimed one. Raises as `new_claim`."""
    places.check_root()
    places.check_owner()
    places.make_incoming()
    key = secrets.token_hex(16)
    source = f"/proc/self/fd/{descriptor}"
    # A claim ends when its own descriptor is closed, whatever becomes of the caller's.
    own = os.open(source, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with opened(places.incoming_folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) as folder:
            # With a folder's descriptor this is linkat(2), which alone follows such a link (open(2), O_TMPFILE).
            os.link(source, key, dst_dir_fd=folder, follow_symlinks=True)
    except BaseException:
        os.close(own)
        raise
    return Claim(key=key, descriptor=own, is_file=True)

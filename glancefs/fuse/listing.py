# SPDX-License-Identifier: Apache-2.0
"""Telling the kernel what a folder holds, in as few steps as there can be: a listing takes them for every image.

Answers for handing out entries with their attributes, and for the inodes that this makes known. Does not know which
entries there are.

Threading: belongs to the loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyfuse3
from pyfuse3 import ReaddirToken

from glancefs.fuse.attributes import Appearance
from glancefs.fuse.inodes import Inode, Inodes
from glancefs.tree import Entry, Listed


def tell_some(
    token: ReaddirToken,
    entries: Sequence[Listed],
    next_place: int,
    *,
    inodes: Inodes,
    appearance: Appearance,
    see: Callable[[Entry, int], Inode],
) -> int:
    """Hand out entries of a folder, images or none, as long as there is room; give how many.

    ``next_place`` is the place behind the first of them; ``see`` gives the inode of an entry that is no image, and of
    the bytes that it takes.
    """
    if entries and entries[0].entry is not None:
        return _tell_others(token, entries, next_place, inodes=inodes, appearance=appearance, see=see)
    shown, told = appearance.listing(), 0
    fill_in, number_of, tell = appearance.fill_in, inodes.number_of, pyfuse3.readdir_reply
    for place, listed in enumerate(entries, next_place):
        fill_in(shown, number_of(listed), listed)
        if not tell(token, listed.name.encode(), shown, place):
            break
        told += 1
    inodes.see_listed(entries[:told])
    return told


def _tell_others(
    token: ReaddirToken,
    entries: Sequence[Listed],
    next_place: int,
    *,
    inodes: Inodes,
    appearance: Appearance,
    see: Callable[[Entry, int], Inode],
) -> int:
    for told, listed in enumerate(entries):
        assert listed.entry is not None  # noqa: S101 - it is no image
        seen = see(listed.entry, listed.allocated)
        if not pyfuse3.readdir_reply(token, listed.name.encode(), appearance.attributes(seen), next_place + told):
            inodes.free_if_unused(seen)
            return told
        inodes.count(seen)
    return len(entries)

# SPDX-License-Identifier: Apache-2.0
"""Telling the kernel what a folder holds, in as few steps as there can be: a listing takes them for every image.

Answers for handing out entries with their attributes, and for the inodes that this makes known. Does not know which
entries there are.

Threading: belongs to the loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyfuse3
from pyfuse3 import EntryAttributes, ReaddirToken

from glancefs.fuse.attributes import fill_in
from glancefs.fuse.inodes import Inodes
from glancefs.paths import join
from glancefs.tree import Entry, Listed


def tell_some(
    token: ReaddirToken,
    folder: str,
    entries: Sequence[Listed],
    next_place: int,
    *,
    inodes: Inodes,
    shown: EntryAttributes,
    tell: Callable[[ReaddirToken, Entry, int, int], bool],
) -> int:
    """Hand out entries of a folder as long as there is room; give how many.

    ``next_place`` is the place behind the first of them, ``shown`` what images have in common, which is written into;
    ``tell`` hands out an entry that is no image, with the bytes that it takes and the place behind it.
    """
    prefix = join(folder, "")
    for told, listed in enumerate(entries):
        if listed.entry is not None:
            if not tell(token, listed.entry, listed.allocated, next_place + told):
                return told
            continue
        inode = inodes.known(listed)
        fill_in(shown, listed.ino if inode is None else inode.ino, listed)
        if not pyfuse3.readdir_reply(token, listed.name.encode(), shown, next_place + told):
            return told
        inodes.see_listed(inode, prefix + listed.name, listed)
    return len(entries)

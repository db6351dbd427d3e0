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
from glancefs.paths import join
from glancefs.tree import Entry, Listed


def tell_some(
    token: ReaddirToken,
    folder: str,
    entries: Sequence[Listed],
    next_place: int,
    *,
    inodes: Inodes,
    appearance: Appearance,
    see: Callable[[Entry, int], Inode],
) -> int:
    """Hand out entries of a folder as long as there is room; give how many.

    ``next_place`` is the place behind the first of them; ``see`` gives the inode of an entry that is no image, and of
    the bytes that it takes.
    """
    prefix, shown = join(folder, ""), appearance.listing()
    for told, listed in enumerate(entries):
        if listed.entry is not None:
            seen = see(listed.entry, listed.allocated)
            if not pyfuse3.readdir_reply(token, listed.name.encode(), appearance.attributes(seen), next_place + told):
                inodes.free_if_unused(seen)
                return told
            inodes.count(seen)
            continue
        inode = inodes.known(listed)
        number = inodes.number_of(listed.key, listed.ino) if inode is None else inode.ino
        appearance.fill_in(shown, number, listed)
        if not pyfuse3.readdir_reply(token, listed.name.encode(), shown, next_place + told):
            return told
        inodes.see_listed(inode, prefix + listed.name, listed)
    return len(entries)

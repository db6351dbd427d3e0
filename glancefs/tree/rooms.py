# SPDX-License-Identifier: Apache-2.0
"""The rooms of a tree, and how they lead into each other.

Answers for putting together what `glancefs.tree.tree` hands its work to. Has no rule of its own.

Threading: rooms are made once for a tree, or for one request to it; each says what it allows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from glancefs.context import RequestContext
from glancefs.tree.begun import Begun
from glancefs.tree.copying import Copying
from glancefs.tree.locking import Locking
from glancefs.tree.looking import Looking
from glancefs.tree.moving import Moving
from glancefs.tree.ports import StagingArea, TreeDeadProperties, TreeFolders, TreeImages, TreeLocks
from glancefs.tree.special import Special
from glancefs.tree.writing import Writing


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """What does the work of one tree."""

    looking: Looking
    locking: Locking
    writing: Writing
    special: Special
    moving: Moving
    copying: Copying


def make_rooms(
    *,
    images: TreeImages,
    folders: TreeFolders,
    staging: StagingArea,
    context: RequestContext,
    documents: Mapping[str, Callable[[], bytes]],
    locks: TreeLocks | None,
    dead_properties: TreeDeadProperties | None,
    is_public: bool | None,
    public_url: str,
    begun: Begun,
) -> Rooms:
    """Make the rooms of a tree; see `glancefs.tree.tree.ImageTree`."""
    overlay = begun.overlay
    looking = Looking(images=images, folders=folders, overlay=overlay, context=context, since=begun.since)
    locking = Locking(locks=locks, dead_properties=dead_properties, folders=folders, looking=looking, context=context)
    # What these three all rest on; a wrong name here would fail in every test of the tree.
    below: dict[str, Any] = {
        "images": images,
        "folders": folders,
        "looking": looking,
        "locking": locking,
        "context": context,
    }
    writing = Writing(**below, staging=staging, begun=begun, is_public=is_public)
    return Rooms(
        looking=looking,
        locking=locking,
        writing=writing,
        special=Special(
            images=images,
            folders=folders,
            overlay=overlay,
            context=context,
            documents={"errors": begun.error_text, **documents},
            path_of_image=looking.path_of_image,
            public_url=public_url,
            since=begun.since,
        ),
        moving=Moving(**below, writing=writing, overlay=overlay),
        copying=Copying(**below, writing=writing, is_public=is_public),
    )

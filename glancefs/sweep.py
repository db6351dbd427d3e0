# SPDX-License-Identifier: Apache-2.0
"""Clearing up after processes that died: abandoned uploads, data that no image names, images that wait for nobody.

Answers for taking back what the dead left, beside any number of living processes. Deletes no image and touches no data
that a row names.

Why no race can lose anything, whoever uploads meanwhile:

- An upload goes: claim a key; (into a queued image) commit the row as ``saving`` with that key; store the bytes; commit
  the row as ``available``; end the claim. The claim surrounds every commit of the key, it ends with its process, and
  keys are never claimed twice.
- A row that was read as ``saving``, and whose key is found unclaimed *after* that, therefore belongs to an upload that
  is over. Either it ended well between the two looks: then the row's revision has moved on, and the compare-and-swap
  to ``queued`` fails as it should. Or it died: then nobody will ever move this row but a sweep.
- Data are removed under the store's own lock on them, which a claim excludes, and only after the registry has been
  asked under that lock. Whoever stored them has by then committed a row, which the question finds, or never will.

Threading: may run in many threads and processes at once; each thing is taken back by one of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from glancefs.errors import ImageNotFound, StaleImage, StoreUnavailable
from glancefs.model import ImageStatus, Location
from glancefs.registries.base import ImageQuery, Registry, SortDirection, every_image
from glancefs.stores.base import Store, Swept

_log = logging.getLogger(__name__)

_SAVING = ImageQuery(sees_all=True, is_public=None, status=ImageStatus.SAVING, sort_direction=SortDirection.ASCENDING)


def sweep(*, registry: Registry, stores: Mapping[str, Store]) -> Swept:
    """Take back what dead processes left, and say how much that was.

    A store that fails does not keep the others from being swept; its StoreUnavailable is raised when they are done.
    Raises RegistryUnavailable at once: without the registry nothing can be called unwanted.
    """
    requeued = _requeue(registry, stores)
    swept = []
    failure: StoreUnavailable | None = None
    for store in stores.values():
        try:
            swept.append(store.sweep(_known_to(registry)))
        except StoreUnavailable as error:
            failure = failure or error
    total = _sum(swept, requeued=requeued)
    if total != Swept():
        _log.info(
            "Swept %d abandoned uploads and %d orphans (%d bytes); %d images wait for their data again",
            *(total.uploads, total.orphans, total.size, total.requeued),
        )
    if failure is not None:
        raise failure
    return total


def _requeue(registry: Registry, stores: Mapping[str, Store]) -> int:
    """Let images whose uploader died wait for their data again. Gives how many."""
    requeued = 0
    for image in every_image(registry, _SAVING):
        store = stores.get(image.location.store) if image.location is not None else None
        # Another process may have the store that is missing here, and the upload.
        if store is None or image.location is None:
            continue
        try:
            if store.is_claimed(image.location):
                continue
            queued = replace(image, status=ImageStatus.QUEUED, location=None)
            registry.replace(queued, expected_revision=image.revision)
        except (StaleImage, ImageNotFound, StoreUnavailable):
            continue
        requeued += 1
    return requeued


def _known_to(registry: Registry) -> Callable[[Collection[Location]], Collection[Location]]:
    # A registry in which nothing ever happened is not the one that these data belong to: a mistyped address must not
    # cost every image.
    return registry.named_locations if registry.revision() else _everything


def _everything(locations: Collection[Location]) -> Collection[Location]:
    return locations


def _sum(swept: Iterable[Swept], *, requeued: int) -> Swept:
    total = Swept(requeued=requeued)
    for part in swept:
        total = replace(
            total,
            uploads=total.uploads + part.uploads,
            orphans=total.orphans + part.orphans,
            size=total.size + part.size,
        )
    return total

# SPDX-License-Identifier: Apache-2.0
"""The use cases that look images up: one by its id, or those that a query matches.

Answers for who sees which. Changes nothing; `glancefs.images` does.

Threading: thread-safe, as the registry is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from glancefs.context import RequestContext
from glancefs.errors import ImageNotFound, InvalidQuery
from glancefs.model import Image, ImageStatus
from glancefs.registries.base import ImageQuery, Registry
from glancefs.rules import may_see


class Finding:
    """The use cases over one registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def get(self, context: RequestContext, image_id: str) -> Image:
        """Give an image. Raises ImageNotFound when there is none, it is deleted, or not the caller's to see."""
        image = self._registry.get(image_id)
        if image.status is ImageStatus.DELETED or not may_see(context, image):
            raise ImageNotFound.by_id(image_id)
        return image

    def find(self, context: RequestContext, query: ImageQuery) -> Sequence[Image]:
        """Give one page of what the caller may see.

        Raises InvalidQuery for a marker that names no image which the caller may see or once saw.
        """
        if query.marker is not None:
            self._check_marker(context, query.marker)
        return self._page(context, query)

    def find_all(self, context: RequestContext, query: ImageQuery, *, page_size: int = 500) -> Iterator[Image]:
        """Give everything that the query matches from its marker on, page by page, whatever its limit.

        No connection is held between two pages, so a slow consumer delays nobody. Raises InvalidQuery as `find` does,
        before it gives anything.
        """
        query = replace(query, limit=page_size)
        page = self.find(context, query)
        while True:
            yield from page
            if len(page) < page_size:
                return
            # Not `find`: that the last image became invisible meanwhile is no reason to break off.
            page = self._page(context, replace(query, marker=page[-1].id))

    def _page(self, context: RequestContext, query: ImageQuery) -> Sequence[Image]:
        return self._registry.find(replace(query, viewer=context.user, sees_all=context.is_admin))

    def _check_marker(self, context: RequestContext, marker: str) -> None:
        try:
            if may_see(context, self._registry.get(marker)):
                return
        except ImageNotFound:
            pass
        raise InvalidQuery(f"The marker {marker!r} is not the id of an image.")

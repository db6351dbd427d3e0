# SPDX-License-Identifier: Apache-2.0
"""The use cases of dead properties (RFC 4918, section 4.1): what WebDAV clients keep beside images and folders.

Answers for who may see and change them: those of an image like the image, those of a folder each user their own.

Threading: thread-safe, as the registry is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime

from glancefs.context import RequestContext
from glancefs.errors import Forbidden, ImageNotFound, NotAuthenticated
from glancefs.model import ImageStatus
from glancefs.registries.base import Registry
from glancefs.registries.dead_properties import OfFolder, OfImage, Subject
from glancefs.registries.locks import Presented
from glancefs.rules import may_change, may_see


class DeadProperties:
    """The use cases over one registry."""

    def __init__(self, *, registry: Registry, clock: Callable[[], datetime]) -> None:
        self._registry = registry
        self._clock = clock

    def get_many(self, subjects: Collection[Subject]) -> Mapping[Subject, Mapping[str, str]]:
        """Give the dead properties of images that the caller was shown, and of folders; see the registry's."""
        return self._registry.dead_properties.get_many(subjects)

    def change(
        self,
        context: RequestContext,
        subject: Subject,
        *,
        values: Mapping[str, str],
        removed: Collection[str] = (),
    ) -> None:
        """Set some and remove others, all or nothing.

        Raises NotAuthenticated, ImageNotFound, Forbidden (not the caller's), Locked, InvalidRequest, StoreFull.
        """
        if context.user is None:
            raise NotAuthenticated("Only a known user may set properties: log in.")
        if isinstance(subject, OfImage):
            self._check_changeable(context, subject.image_id)
        presented = Presented(user=context.user, tokens=context.lock_tokens, at=self._clock())
        self._registry.dead_properties.change(subject, values=values, removed=removed, presented=presented)

    def copy(self, context: RequestContext, source: OfFolder, target: OfFolder) -> None:
        """Give a folder the same ones as another; those of images are copied with them. Raises as `change` does."""
        values = self._registry.dead_properties.get(source)
        if values:
            self.change(context, target, values=values)

    def _check_changeable(self, context: RequestContext, image_id: str) -> None:
        image = self._registry.get(image_id)
        if image.status is ImageStatus.DELETED or not may_see(context, image):
            raise ImageNotFound.by_id(image_id)
        if not may_change(context, image):
            raise Forbidden(f"Image {image_id!r} belongs to somebody else.")

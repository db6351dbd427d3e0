# SPDX-License-Identifier: Apache-2.0
"""Who may add, see and change an image, how it begins, and into which status it may go: sentences without effect.

Answers for the rules that all use cases share. Looks nothing up.

Threading: pure functions.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from glancefs.context import RequestContext
from glancefs.errors import Forbidden, NotAuthenticated, ProtectedImage, WrongStatus
from glancefs.model import TRANSITIONS, Image, ImageChanges, ImageStatus, NewImage
from glancefs.registries.folders import View


def may_see(context: RequestContext, image: Image) -> bool:
    """Whether the image exists for this caller: it is public and complete, or theirs, or they are an admin."""
    if image.is_public and image.status in {ImageStatus.AVAILABLE, ImageStatus.DELETED}:
        return True
    return may_change(context, image)


def view_of(context: RequestContext) -> View:
    """Give the caller as a registry knows who looks."""
    return View(viewer=context.user, sees_all=context.is_admin)


def may_change(context: RequestContext, image: Image) -> bool:
    """Whether this caller may change the image: it is theirs, or they are an admin."""
    return context.is_admin or (context.user is not None and context.user == image.owner)


def check_may_add(context: RequestContext, new: NewImage) -> None:
    """Raise NotAuthenticated, Forbidden where the caller may not add such an image."""
    if context.user is None:
        message = "Only a known user may add images: log in."
        raise NotAuthenticated(message)
    if new.owner not in {None, context.user} and not context.is_admin:
        message = "Only an admin may add images for somebody else."
        raise Forbidden(message)


def check_may_say(context: RequestContext, changes: ImageChanges | None) -> None:
    """Raise Forbidden for a change that this caller may make of no image."""
    if changes is not None and "owner" in changes.said() and not context.is_admin:
        message = "Only an admin may give an image to somebody else."
        raise Forbidden(message)


def check_may_move(context: RequestContext) -> None:
    """Raise NotAuthenticated, Forbidden for whoever may not say in which store data are: anybody but an admin."""
    if context.user is None:
        message = "Only a known user may move data: log in."
        raise NotAuthenticated(message)
    if not context.is_admin:
        message = "Only an admin may move data to another store."
        raise Forbidden(message)


def check_unprotected(image: Image) -> None:
    """Raise ProtectedImage for an image that refuses to be deleted and replaced."""
    if image.protected:
        message = f"Image {image.id!r} is protected; set protected to false first."
        raise ProtectedImage(message)


def in_status(image: Image, status: ImageStatus, **fields: object) -> Image:
    """Give the image in another status, with these fields. Raises WrongStatus where it can't come to that."""
    if status not in TRANSITIONS[image.status]:
        message = f"Image {image.id!r} can't become {status}: its status is {image.status}."
        raise WrongStatus(message)
    return replace(image, status=status, **fields)  # type: ignore[arg-type]  # the fields are those of Image


def begun(new: NewImage, *, id: str, owner: str | None, is_public: bool, store: str, size: int, now: datetime) -> Image:
    """Give what a new image is to begin with: without data, and waiting for them."""
    return Image(
        id=id,
        name=new.name,
        type=new.type,
        status=ImageStatus.QUEUED,
        size=size,
        store=store,
        owner=owner,
        is_public=is_public,
        created_at=now,
        updated_at=now,
        checksum=new.checksum,
        properties=new.properties,
        disk_format=new.disk_format,
        container_format=new.container_format,
        virtual_size=new.virtual_size,
        min_disk=new.min_disk,
        min_ram=new.min_ram,
        protected=new.protected,
    )

# SPDX-License-Identifier: Apache-2.0
"""Who may see and change an image, and into which status it may go, as sentences without effect.

Answers for the rules that all use cases share. Looks nothing up.

Threading: pure functions.
"""

from __future__ import annotations

from dataclasses import replace

from glancefs.context import RequestContext
from glancefs.errors import ProtectedImage, WrongStatus
from glancefs.model import TRANSITIONS, Image, ImageStatus


def may_see(context: RequestContext, image: Image) -> bool:
    """Whether the image exists for this caller: it is public and complete, or theirs, or they are an admin."""
    if image.is_public and image.status in {ImageStatus.AVAILABLE, ImageStatus.DELETED}:
        return True
    return may_change(context, image)


def may_change(context: RequestContext, image: Image) -> bool:
    """Whether this caller may change the image: it is theirs, or they are an admin."""
    return context.is_admin or (context.user is not None and context.user == image.owner)


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

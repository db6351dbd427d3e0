# SPDX-License-Identifier: Apache-2.0
"""POST, PUT and DELETE: what changes images.

Answers for what a request with data and metadata means (seed checklist, statements 14 to 25). Everything that can be
refused by the headers is refused before the first byte of the body is asked for. Who may change what, `Images` decides.

Threading: `Writes` is immutable.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from http import HTTPStatus
from typing import Final

from gateway.conditions import failed_condition
from gateway.rest.bodies import NoData, Upload, upload_of
from gateway.rest.dialect import Dialect
from gateway.rest.downloads import precondition_failed
from gateway.rest.fields import (
    Said,
    check_computed,
    declared_checksum,
    declared_size,
    image_changes,
    new_image,
    said_in,
)
from gateway.rest.lists import JSON_TYPE
from gateway.rest.representations import detail, etag_of, uri_of
from gateway.wsgi import SUBJECT_KEY, Request, Response, whole
from glancefs.errors import InvalidRequest, NotAuthenticated, SizeMismatch
from glancefs.images import Images
from glancefs.model import Image, ImageChanges, ImageStatus

_CONDITIONS: Final = ("if-match", "if-none-match", "if-unmodified-since")


class Writes:
    """Answers requests that change images; ``uploads`` is entered for as long as data come in."""

    def __init__(self, *, images: Images, uploads: Callable[[], AbstractContextManager[object]]) -> None:
        self._images = images
        self._uploads = uploads

    def add(self, request: Request, dialect: Dialect) -> Response:
        """Add an image, with its data if the request brings them. Raises what `Images.add` does."""
        _refuse_anonymous(request)
        said = said_in(request, dialect)
        _refuse_foreign_data(request, said)
        new = new_image(said, dialect)
        upload = upload_of(request, dialect)
        if upload is None and new.size is not None and (new.size == 0 or not dialect.sends_empty_bodies):
            # A declared size is a promise of data, and no body is a body of no bytes.
            upload = Upload(source=NoData(), size=0)
        if upload is None:
            image = self._images.create(request.context, new)
        else:
            request.environ[SUBJECT_KEY] = new.name
            with self._uploads():
                image = self._images.add(request.context, new, upload.source, size=upload.size)
        return _told(request, dialect, image, status=HTTPStatus.CREATED)

    def change(self, request: Request, dialect: Dialect, image_id: str) -> Response:
        """Change an image's metadata, and bring its data where it waits for them. Raises what `Images.update` does."""
        _refuse_anonymous(request)
        image = self._images.get(request.context, image_id)
        if _condition_fails(request, image):
            return precondition_failed(request, dialect)
        said = said_in(request, dialect)
        _refuse_foreign_data(request, said)
        upload = upload_of(request, dialect)
        if upload is not None and upload.size == 0 and image.status is not ImageStatus.QUEUED:
            upload = None
        check_computed(said, image, dialect, takes_data=upload is not None)
        changes = image_changes(said, image)
        if upload is not None:
            image = self._take(request, image, upload, said, changes)
        else:
            revision = image.revision if _is_conditional(request) else None
            image = self._images.update(request.context, image_id, changes, expected_revision=revision)
        return _told(request, dialect, image, status=HTTPStatus.OK)

    def delete(self, request: Request, dialect: Dialect, image_id: str) -> Response:
        """Delete an image. Raises what `Images.delete` does."""
        _refuse_anonymous(request)
        revision = None
        if _is_conditional(request):
            image = self._images.get(request.context, image_id)
            if _condition_fails(request, image):
                return precondition_failed(request, dialect)
            revision = image.revision
        self._images.delete(request.context, image_id, expected_revision=revision)
        return Response(status=200, headers=[("Content-Length", "0")])

    def _take(self, request: Request, image: Image, upload: Upload, said: Said, changes: ImageChanges) -> Image:
        size = declared_size(said)
        if size is not None and upload.size is not None and size != upload.size:
            message = f"The data can't be both {size} and {upload.size} bytes long."
            raise SizeMismatch(message)
        request.environ[SUBJECT_KEY] = image.name
        with self._uploads():
            return self._images.upload(
                request.context,
                image.id,
                upload.source,
                size=upload.size if size is None else size,
                checksum=declared_checksum(said),
                changes=changes,
            )


def _told(request: Request, dialect: Dialect, image: Image, *, status: HTTPStatus) -> Response:
    text = json.dumps({"image": detail(image, request.base_url, dialect)})
    location = [("Location", uri_of(image, request.base_url, dialect))] if status is HTTPStatus.CREATED else []
    return whole(status, JSON_TYPE, f"{text}\n".encode(), location)


def _refuse_anonymous(request: Request) -> None:
    # `Images` refuses too; this comes before anything that the headers say is looked at.
    if request.context.user is None:
        message = "Only a known user may add or change images: log in."
        raise NotAuthenticated(message)


def _refuse_foreign_data(request: Request, said: Said) -> None:
    if said.has("location") or request.header("x-glance-api-copy-from"):
        message = "This server does not fetch data from elsewhere: send them in the body."
        raise InvalidRequest(message)


def _is_conditional(request: Request) -> bool:
    return any(request.header(name) is not None for name in _CONDITIONS)


def _condition_fails(request: Request, image: Image) -> bool:
    return failed_condition(request, etag=etag_of(image), modified=image.updated_at, is_read=False) is not None

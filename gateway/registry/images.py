# SPDX-License-Identifier: Apache-2.0
"""The registry's images at the paths of the seed: ``/images``, ``/images/detail``, ``/images/ID``, JSON both ways.

Answers for what a program that knows the first Glance registry expects: the envelope ``{"image": {…}}``, fields that
are not said having a default when an image is added, and staying as they are when it is changed. Compare-and-swap is
``If-Match``, or the ``revision`` that the image brings with it. Lists hold what is public unless the query asks for
all.

Threading: used by one request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import islice
from typing import Any, Final, get_type_hints

from gateway.wsgi import Response, whole
from glancefs.errors import ImageNotFound, InvalidQuery, InvalidRequest, StaleImage
from glancefs.headers import read_boolean
from glancefs.model import Image, ImageStatus
from glancefs.registries.base import ImageQuery, Registry, every_image
from glancefs.registries.values import fields_reader, reader_of, to_json

_JSON: Final = "application/json"
_PAGE: Final = 500
_LONGEST_NUMBER: Final = 10
_MOST_ATTEMPTS: Final = 16
_REVISION = re.compile(r'"(\d{1,19})"')
_SUMMARY: Final = ("id", "name", "type", "size")

_said_of_image: Final = fields_reader(
    {name: reader_of(kind) for name, kind in get_type_hints(Image).items()}, required=(), name="An image"
)

Represent = Callable[[Image], Mapping[str, Any]]


class ImagesOfRegistry:
    """Answers requests about images; ``base_url`` is what their URIs begin with."""

    def __init__(self, *, registry: Registry, base_url: str) -> None:
        self._registry = registry
        self._base_url = base_url

    # ---- reading

    def summaries(self, parameters: Sequence[tuple[str, str]]) -> Response:
        """Give the list with what identifies each image."""
        return self._list(parameters, lambda image: {name: to_json(getattr(image, name)) for name in _SUMMARY})

    def details(self, parameters: Sequence[tuple[str, str]]) -> Response:
        """Give the list with everything about each image."""
        return self._list(parameters, to_json)

    def get(self, image_id: str) -> Response:
        """Give an image. Raises ImageNotFound, for a deleted one too."""
        image = self._registry.get(image_id)
        if image.status is ImageStatus.DELETED:
            raise ImageNotFound.by_id(image_id)
        return self._image(200, image)

    def _list(self, parameters: Sequence[tuple[str, str]], represent: Represent) -> Response:
        query, limit = _list_query(parameters)
        rows = islice(every_image(self._registry, query, page_size=_PAGE), limit)
        first = list(islice(rows, _PAGE))
        return Response(status=200, headers=[("Content-Type", _JSON)], body=_streamed(first, rows, represent))

    # ---- changing

    def add(self, body: object) -> Response:
        """Add an image. Raises InvalidRequest, Duplicate."""
        said = _envelope(body)
        location = said.get("location")
        now = datetime.now(UTC).replace(microsecond=0)
        created_at = said.get("created_at", now)
        fields = {
            "id": "",
            "status": ImageStatus.QUEUED if location is None else ImageStatus.AVAILABLE,
            "size": 0,
            "store": "file" if location is None else location.store,
            "owner": None,
            "is_public": False,
            "created_at": created_at,
            "updated_at": created_at,
        }
        for name in ("name", "type"):
            if name not in said:
                message = f"An image that is added has a {name}."
                raise InvalidRequest(message)
        return self._image(201, self._registry.add(Image(**fields | said)))

    def change(self, image_id: str, body: object, if_match: str | None) -> Response:
        """Set the fields that are said; the others stay. Raises ImageNotFound, StaleImage, InvalidRequest."""
        said = _envelope(body)
        if said.get("id", image_id) != image_id:
            message = "An image keeps its id."
            raise InvalidRequest(message)
        expected = _expected(if_match, said.pop("revision", None))
        said.setdefault("updated_at", datetime.now(UTC).replace(microsecond=0))
        for _ in range(_MOST_ATTEMPTS):
            # A deleted one, too: the registry refuses it, unless it knows that this very change was made.
            image = self._registry.get(image_id)
            revision = image.revision if expected is None else expected
            try:
                changed = self._registry.replace(replace(image, **said), expected_revision=revision)
            except StaleImage:
                if expected is not None:
                    raise
                continue
            return self._image(200, changed)
        raise _stale(image_id)

    def delete(self, image_id: str, if_match: str | None) -> Response:
        """Delete an image. Raises ImageNotFound, StaleImage."""
        expected = _expected(if_match, None)
        for _ in range(_MOST_ATTEMPTS):
            revision = self._registry.get(image_id).revision if expected is None else expected
            try:
                gone = self._registry.delete(image_id, expected_revision=revision, deleted_at=datetime.now(UTC))
            except StaleImage:
                if expected is not None:
                    raise
                continue
            return self._image(200, gone)
        raise _stale(image_id)

    def _image(self, status: int, image: Image) -> Response:
        headers = [("ETag", f'"{image.revision}"')]
        if status == HTTPStatus.CREATED:
            headers.append(("Location", f"{self._base_url}/images/{image.id}"))
        return whole(status, _JSON, f"{json.dumps({'image': to_json(image)})}\n".encode(), headers)


def _envelope(body: object) -> dict[str, Any]:
    if not isinstance(body, dict) or body.keys() != {"image"}:
        message = 'The body is {"image": {…}}.'
        raise InvalidRequest(message)
    said: dict[str, Any] = _said_of_image(body["image"])
    if said.get("status") is ImageStatus.DELETED:
        message = "An image is deleted by DELETE."
        raise InvalidRequest(message)
    return said


def _expected(if_match: str | None, revision: int | None) -> int | None:
    if if_match is None or if_match.strip() == "*":
        return revision
    found = _REVISION.fullmatch(if_match.strip())
    if found is None:
        message = 'If-Match takes one revision, as ETag gave it: "17".'
        raise InvalidRequest(message)
    return int(found[1])


def _list_query(parameters: Sequence[tuple[str, str]]) -> tuple[ImageQuery, int | None]:
    said = dict(parameters)
    if unknown := said.keys() - {"limit", "marker", "is_public"}:
        message = f"{min(unknown)[:80]!r} is no parameter here; there are limit, marker and is_public."
        raise InvalidQuery(message)
    visibility = said.get("is_public", "true")
    limit = said.get("limit")
    if limit is not None and not (limit.isascii() and limit.isdigit() and len(limit) < _LONGEST_NUMBER):
        message = f"{limit[:80]!r} can't be the limit of a list."
        raise InvalidQuery(message)
    is_public = None if visibility.lower() == "none" else read_boolean(visibility, field="is_public")
    query = ImageQuery(sees_all=True, is_public=is_public, marker=said.get("marker"))
    return query, None if limit is None else int(limit)


def _streamed(first: Sequence[Image], rows: Iterator[Image], represent: Represent) -> Iterator[bytes]:
    def encoded(images: Sequence[Image]) -> str:
        return json.dumps([represent(image) for image in images])[1:-1]

    yield f'{{"images": [{encoded(first)}'.encode()
    while page := list(islice(rows, _PAGE)):
        yield f", {encoded(page)}".encode()
    yield b"]}\n"


def _stale(image_id: str) -> StaleImage:
    return StaleImage(f"The image {image_id!r} was changed by somebody else.")

# SPDX-License-Identifier: Apache-2.0
"""What clients of Glance's versioned API ask beside images: which versions there are, and whom images are shared with.

Answers for ``/versions``, ``/v1`` and the members of images. Images are not shared with single users here, so nobody
is a member of any.

Threading: pure functions.
"""

from __future__ import annotations

import json
from typing import Any, Final

from gateway.rest.lists import JSON_TYPE
from gateway.wsgi import Request, Response, whole

_VERSIONS: Final = (("v1.1", "SUPPORTED"), ("v1.0", "SUPPORTED"))


def versions(request: Request) -> Response:
    """List the versions of the API, as Glance does."""
    links = [{"rel": "self", "href": f"{request.base_url}/v1/"}]
    return _json({"versions": [{"id": name, "status": status, "links": links} for name, status in _VERSIONS]})


def no_members() -> Response:
    """List the members of an image: there are none."""
    return _json({"members": []})


def no_shared_images() -> Response:
    """List the images that are shared with somebody: there are none."""
    return _json({"shared_images": []})


def _json(document: dict[str, Any]) -> Response:
    return whole(200, JSON_TYPE, f"{json.dumps(document)}\n".encode())

# SPDX-License-Identifier: Apache-2.0
"""The root of the server, for clients that look there first.

Windows asks the root what it can do, and walks down from there to the folder that it was told of; GNOME looks for the
uppermost folder that speaks WebDAV. To them the root is a folder that holds the share, and that nobody changes.
Answers for that folder alone; what people and programs find at the root is `gateway.root`.

Threading: pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from gateway.dav.properties import FOLDER_TYPE
from gateway.dav.propfind import Asked, asked, wants_members
from gateway.dav.xml import DECLARATION, TYPE, empty_element, parsed_body
from gateway.wsgi import Request, Response, whole

_FOLDER: Final[Mapping[str, str]] = {
    "{DAV:}resourcetype": "<D:resourcetype><D:collection/></D:resourcetype>",
    "{DAV:}getcontenttype": f"<D:getcontenttype>{FOLDER_TYPE}</D:getcontenttype>",
    "{DAV:}supportedlock": "<D:supportedlock/>",
}


def propfind(request: Request, *, prefix: str) -> Response:
    """Tell of the root and, at depth 1, of the share in it, which begins with ``prefix``. Raises DAVError."""
    with_members = wants_members(request.header("depth"))
    wanted = asked(parsed_body(request))
    hrefs = ["/", f"{prefix}/"] if with_members else ["/"]
    responses = "".join(_response(href, wanted) for href in hrefs)
    said = f'{DECLARATION}<D:multistatus xmlns:D="DAV:">\n{responses}</D:multistatus>\n'
    return whole(HTTPStatus.MULTI_STATUS, TYPE, said.encode())


def _response(href: str, wanted: Asked) -> str:
    properties = {"{DAV:}displayname": f"<D:displayname>{href.strip('/')}</D:displayname>", **_FOLDER}
    if wanted.only_names:
        found, missing = [empty_element(name) for name in properties], []
    else:
        names = [*(properties if wanted.everything else ()), *wanted.names]
        found = [properties[name] for name in dict.fromkeys(names) if name in properties]
        missing = [empty_element(name) for name in wanted.names if name not in properties]
    stats = _stat(found, "200 OK") if found or not missing else ""
    stats += _stat(missing, "404 Not Found") if missing else ""
    return f"<D:response><D:href>{href}</D:href>{stats}</D:response>\n"


def _stat(elements: list[str], status: str) -> str:
    inside = "".join(elements)
    return f"<D:propstat><D:prop>{inside}</D:prop><D:status>HTTP/1.1 {status}</D:status></D:propstat>"

# SPDX-License-Identifier: Apache-2.0
"""A folder of the WebDAV door, and how to ask for it without any client of ours.

Answers for requests below one folder, for reading multi-status answers and lock tokens, and for what REST says of the
same images. Does not judge anything.

Threading: as `RunningServer`; a `DavFolder` may be asked from any thread.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree as ET

from tests.support.servers import Body, Reply, RunningServer

DAV: Final = "{DAV:}"
IMAGE: Final = "{urn:glancefs:image}"
PROPERTY: Final = "{urn:glancefs:property}"

LOCKINFO: Final = (
    '<?xml version="1.0" encoding="utf-8"?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
    "<D:locktype><D:write/></D:locktype><D:owner><D:href>a test</D:href></D:owner></D:lockinfo>"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DavFolder:
    """A folder of the door, and who asks."""

    server: RunningServer
    path: str
    """Its path on the server, quoted, without a slash at its end: ``/dav/folder``."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """What each request says besides: credentials."""

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"{self.server.url}{self.path}"

    @property
    def name(self) -> str:
        """What the names of its images begin with, without the slash."""
        return unquote(self.path.removeprefix("/dav").removeprefix("/"))

    def at(self, name: str) -> str:
        """Give the path of what is below, quoted; of the folder itself for an empty name."""
        return f"{self.path}/{quote(name)}"

    def ask(self, method: str, name: str = "", headers: Mapping[str, str] | None = None, body: Body = None) -> Reply:
        """Ask once, for something below or for the folder itself."""
        return self.server.ask(method, self.at(name), {**self.headers, **(headers or {})}, body)

    def put(self, name: str, data: bytes, headers: Mapping[str, str] | None = None) -> Reply:
        """Put a file."""
        return self.ask("PUT", name, headers, data)

    def get(self, name: str) -> bytes:
        """Fetch a file that must be there."""
        reply = self.ask("GET", name)
        assert reply.status == 200, reply
        return reply.body

    def lock(self, name: str, *, seconds: int = 600) -> str:
        """Lock what is there or will be, and give the token."""
        reply = self.ask("LOCK", name, {"Timeout": f"Second-{seconds}", "Depth": "0"}, LOCKINFO.encode())
        assert reply.status in {200, 201}, reply
        return reply.headers["lock-token"].strip("<>")

    def unlock(self, name: str, token: str) -> Reply:
        """Give a lock back."""
        return self.ask("UNLOCK", name, {"Lock-Token": f"<{token}>"})

    def properties(self, name: str = "", *, asked: str = "<D:allprop/>") -> dict[str, str]:
        """Give the properties of one thing, by ``{namespace}name``; what has elements inside is given as XML."""
        [found] = self.multistatus(name, depth="0", asked=asked).values()
        return found

    def multistatus(
        self, name: str = "", *, depth: str = "1", asked: str = "<D:allprop/>"
    ) -> dict[str, dict[str, str]]:
        """Give the properties that were found, by the path of what has them."""
        body = f'<?xml version="1.0"?><D:propfind xmlns:D="DAV:">{asked}</D:propfind>'
        reply = self.ask("PROPFIND", name, {"Depth": depth}, body.encode())
        assert reply.status == 207, reply
        return found_in(reply.body)

    def names(self, name: str = "") -> list[str]:
        """Give what is in the folder, sorted; folders have a slash at their end."""
        folder = self.at(name).rstrip("/")
        paths = self.multistatus(name, asked="<D:prop><D:resourcetype/></D:prop>")
        return sorted(
            unquote(path.removeprefix(folder).removeprefix("/")) for path in paths if path.rstrip("/") != folder
        )

    def images(self) -> dict[str, dict[str, Any]]:
        """Give the images that are below as REST tells of them, by their names below this folder."""
        reply = self.server.ask("GET", "/images/detail?is_public=none&limit=1000", self.headers)
        prefix = f"{self.name}/" if self.name else ""
        return {
            image["name"].removeprefix(prefix): image
            for image in reply.json["images"]
            if image["name"].startswith(prefix)
        }


def found_in(multistatus: bytes) -> dict[str, dict[str, str]]:
    """Read an answer of PROPFIND: the properties with the status 200, by path."""
    answer: dict[str, dict[str, str]] = {}
    for response in ET.fromstring(multistatus).iter(f"{DAV}response"):  # noqa: S314 - the server under test sent it
        path = urlsplit(response.findtext(f"{DAV}href", "")).path
        found = answer.setdefault(path, {})
        for propstat in response.iter(f"{DAV}propstat"):
            if re.search(r"\b200\b", propstat.findtext(f"{DAV}status", "")):
                found.update({element.tag: _text(element) for prop in propstat.iter(f"{DAV}prop") for element in prop})
    return answer


def _text(element: ET.Element) -> str:
    inside = "".join(ET.tostring(child, encoding="unicode") for child in element)
    return inside or element.text or ""


def basic(user: str, password: str) -> dict[str, str]:
    """Say who asks, in HTTP Basic (RFC 7617)."""
    return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}

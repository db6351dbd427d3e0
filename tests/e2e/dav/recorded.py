# SPDX-License-Identifier: Apache-2.0
"""What the clients of Windows and macOS send, byte for byte as they frame it, for a server that they never meet here.

Answers for the order of their requests, for their headers, and for their bodies: Windows Explorer (the redirector that
is behind "Map network drive"), and the file system behind Finder's "Connect to Server". Does not judge the answers.

Threading: a client belongs to one thread.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from tests.support.dav_folder import DavFolder
from tests.support.rawhttp import Answer, RawClient

WINDOWS_TIME: Final = "Tue, 03 Mar 2020 10:11:12 GMT"

_WINDOWS_LOCK: Final = (
    '<?xml version="1.0" encoding="utf-8" ?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
    "<D:locktype><D:write/></D:locktype><D:owner><D:href>DESKTOP\\ann</D:href></D:owner></D:lockinfo>"
)
_WINDOWS_TIMES: Final = (
    '<?xml version="1.0" encoding="utf-8" ?><D:propertyupdate xmlns:D="DAV:" xmlns:Z="urn:schemas-microsoft-com:">'
    "<D:set><D:prop>"
    f"<Z:Win32CreationTime>{WINDOWS_TIME}</Z:Win32CreationTime>"
    f"<Z:Win32LastAccessTime>{WINDOWS_TIME}</Z:Win32LastAccessTime>"
    f"<Z:Win32LastModifiedTime>{WINDOWS_TIME}</Z:Win32LastModifiedTime>"
    "<Z:Win32FileAttributes>00000020</Z:Win32FileAttributes>"
    "</D:prop></D:set></D:propertyupdate>"
)
_APPLE_LOCK: Final = (
    '<?xml version="1.0" encoding="utf-8"?>\n<D:lockinfo xmlns:D="DAV:">\n<D:lockscope><D:exclusive/></D:lockscope>\n'
    "<D:locktype><D:write/></D:locktype>\n<D:owner>\n<D:href>http://www.apple.com/webdav_fs/</D:href>\n</D:owner>\n"
    "</D:lockinfo>\n"
)
_APPLE_LIST: Final = (
    '<?xml version="1.0" encoding="utf-8"?>\n<D:propfind xmlns:D="DAV:">\n<D:prop>\n<D:getlastmodified/>\n'
    "<D:getcontentlength/>\n<D:creationdate/>\n<D:resourcetype/>\n</D:prop>\n</D:propfind>\n"
)
_APPLE_QUOTA: Final = (
    '<?xml version="1.0" encoding="utf-8"?>\n<D:propfind xmlns:D="DAV:">\n<D:prop>\n<D:quota-available-bytes/>\n'
    "<D:quota-used-bytes/>\n<D:quota/>\n<D:quotaused/>\n</D:prop>\n</D:propfind>\n"
)
_CHUNK: Final = 65536


@dataclass(slots=True)
class Recorded:
    """One connection of a client that says the same headers with each request."""

    folder: DavFolder
    raw: RawClient
    always: str

    def ask(self, method: str, path: str, headers: str = "", body: bytes | None = None) -> Answer:
        """Send one request; ``headers`` are whole lines. A body gets its length."""
        length = "" if body is None else f"Content-Length: {len(body)}\r\n"
        head = f"{method} {path} HTTP/1.1\r\n{self.always}{headers}{length}Host: {self.folder.server.host}\r\n\r\n"
        return self.raw.ask(head.encode() + (body or b""), method=method)

    def ask_chunked(self, method: str, path: str, headers: str, body: bytes) -> Answer:
        """Send one request whose body comes in chunks."""
        head = f"{method} {path} HTTP/1.1\r\n{self.always}{headers}Host: {self.folder.server.host}\r\n\r\n"
        pieces = [body[start : start + _CHUNK] for start in range(0, len(body), _CHUNK)]
        chunks = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)
        return self.raw.ask(head.encode() + chunks + b"0\r\n\r\n", method=method)


def windows(folder: DavFolder, raw: RawClient) -> Recorded:
    """The redirector of Windows 10 and 11."""
    agent = "Cache-Control: no-cache\r\nConnection: Keep-Alive\r\nPragma: no-cache\r\n"
    return Recorded(folder, raw, f"{agent}User-Agent: Microsoft-WebDAV-MiniRedir/10.0.19045\r\ntranslate: f\r\n")


def finder(folder: DavFolder, raw: RawClient) -> Recorded:
    """The file system of macOS."""
    return Recorded(folder, raw, "User-Agent: WebDAVFS/3.0.0 (03008000) Darwin/22.6.0 (x86_64)\r\nAccept: */*\r\n")


def token_of(answer: Answer) -> str:
    """Read the token of a lock where clients read it."""
    found = re.fullmatch(r"<([^>]+)>", answer.headers["lock-token"])
    assert found is not None, answer
    return found.group(1)


def windows_connects(client: Recorded) -> list[Answer]:
    """Map a network drive: the root of the server first, then each folder down to the one that was named."""
    steps = client.folder.path.split("/")
    paths = ["/", *("/".join(steps[:count]) for count in range(2, len(steps) + 1))]
    return [client.ask("OPTIONS", "/"), *(client.ask("PROPFIND", path, "Depth: 0\r\n", b"") for path in paths)]


def windows_copies(client: Recorded, path: str, data: bytes) -> dict[str, Answer]:
    """Drag a file into Explorer's window: an empty one first, locked, given its times, and then filled."""
    said = {
        "look": client.ask("PROPFIND", path, "Depth: 0\r\n", b""),
        "empty": client.ask("PUT", path, "", b""),
    }
    xml = 'Content-Type: text/xml; charset="utf-8"\r\n'
    # Windows says no depth, which means infinity, for a file (RFC 4918, section 9.10.3).
    said["lock"] = client.ask("LOCK", path, f"{xml}Timeout: Second-3600\r\n", _WINDOWS_LOCK.encode())
    token = token_of(said["lock"])
    held = f"If: (<{token}>)\r\n"
    said["times"] = client.ask("PROPPATCH", path, f"{xml}{held}", _WINDOWS_TIMES.encode())
    said["head"] = client.ask("HEAD", path)
    said["data"] = client.ask("PUT", path, held, data)
    said["times again"] = client.ask("PROPPATCH", path, f"{xml}{held}", _WINDOWS_TIMES.encode())
    said["unlock"] = client.ask("UNLOCK", path, f"Lock-Token: <{token}>\r\n")
    said["look again"] = client.ask("PROPFIND", path, "Depth: 0\r\n", b"")
    return said


def finder_connects(client: Recorded) -> dict[str, Answer]:
    """Connect to a server, and look for what tells macOS how to treat the volume."""
    path, xml = f"{client.folder.path}/", "Content-Type: text/xml\r\nDepth: 0\r\n"
    said = {
        "options": client.ask("OPTIONS", path),
        "volume": client.ask("PROPFIND", path, xml, _APPLE_LIST.encode()),
        "quota": client.ask("PROPFIND", path, xml, _APPLE_QUOTA.encode()),
        "list": client.ask("PROPFIND", path, xml.replace("0", "1"), _APPLE_LIST.encode()),
    }
    for name in ("._.", ".metadata_never_index", ".Spotlight-V100", ".hidden", ".DS_Store"):
        said[name] = client.ask("PROPFIND", path + name, xml, _APPLE_LIST.encode())
    return said


def finder_copies(client: Recorded, path: str, data: bytes) -> dict[str, Answer]:
    """Drag a file into Finder's window: empty, then locked, then in chunks whose sum is told in a header of its own."""
    xml = "Content-Type: text/xml\r\nDepth: 0\r\n"
    said = {
        "look": client.ask("PROPFIND", path, xml, _APPLE_LIST.encode()),
        "empty": client.ask("PUT", path, "", b""),
        "look again": client.ask("PROPFIND", path, xml, _APPLE_LIST.encode()),
        "lock": client.ask("LOCK", path, f"{xml}Timeout: Second-600\r\n", _APPLE_LOCK.encode()),
    }
    token = token_of(said["lock"])
    framed = f"If: (<{token}>)\r\nX-Expected-Entity-Length: {len(data)}\r\nTransfer-Encoding: Chunked\r\n"
    said["data"] = client.ask_chunked("PUT", path, framed, data)
    said["after"] = client.ask("PROPFIND", path, xml, _APPLE_LIST.encode())
    said["unlock"] = client.ask("UNLOCK", path, f"Lock-Token: <{token}>\r\n")
    return said

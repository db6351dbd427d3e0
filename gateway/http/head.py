# SPDX-License-Identifier: Apache-2.0
"""Reading the head of a request: its request line and headers (RFC 9112, sections 2 to 6).

Answers for what is a well-formed request and where its body ends; whatever two readers could understand differently
is refused, since that is what request smuggling lives on. Does not receive, and knows no methods or paths.

Two header names that a WSGI environ can't tell apart (`A-B` and `A_B`) are refused when both are there. Names with an
underscore pass only if they begin with `x-`; such forms of headers that carry trust (`X-Forwarded_For`) are dropped.

Threading: a `HeadReader` is shared by all workers; its cache is a dict whose single operations are atomic.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from gateway.http.limits import Limits
from gateway.http.refusal import Refusal

Fields = tuple[tuple[bytes, bytes], ...]

_LAWFUL = bytes([9, 10, 13, *range(32, 127), *range(128, 256)])
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(rb"[!-~\x80-\xff]+")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]*)([^#]*)")
_HOST = re.compile(rb"[A-Za-z0-9.\-_~!$&'()*+,;=%:\[\]]*")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_VERSION = re.compile(rb"HTTP/([0-9])\.([0-9])")
_LONGEST_METHOD = 32
_LONGEST_LENGTH = 18
_CACHED_NAMES = 1024

_SINGLE = frozenset(
    {
        "CONTENT_LENGTH",
        "CONTENT_TYPE",
        "HTTP_AUTHORIZATION",
        "HTTP_CONTENT_RANGE",
        "HTTP_DEPTH",
        "HTTP_DESTINATION",
        "HTTP_EXPECT",
        "HTTP_HOST",
        "HTTP_IF_MODIFIED_SINCE",
        "HTTP_IF_RANGE",
        "HTTP_IF_UNMODIFIED_SINCE",
        "HTTP_OVERWRITE",
        "HTTP_RANGE",
        "HTTP_TIMEOUT",
        "HTTP_TRANSFER_ENCODING",
    }
)
"""Headers that mean one thing only; twice is refused, since two readers could choose differently."""
_TRUSTED = ("x-forwarded", "x-real", "x-auth", "x-identity", "x-user", "x-role", "x-tenant", "x-project", "x-remote")
_DROPPED = ""


@dataclass(slots=True, kw_only=True)
class Head:
    """A well-formed request without its body."""

    method: str
    target: str
    """The request target as it was sent, in latin-1."""
    path: str
    """PATH_INFO: percent-decoded, bytes as latin-1 (PEP 3333); valid UTF-8 beneath. "*" for `OPTIONS *`."""
    query: str
    protocol: str
    fields: Fields
    """The header lines as they came, names in their own spelling."""
    environ: dict[str, str]
    """The headers under their WSGI names."""
    length: int
    """The body's length in bytes; 0 when there is none, and for a chunked one."""
    chunked: bool
    expects: bool
    """The client waits for `100 Continue` before it sends the body."""
    keep_alive: bool


class HeadReader:
    """Turns the bytes of a request head into a `Head`, or refuses them."""

    def __init__(self, *, limits: Limits) -> None:
        self._max_headers = limits.max_header_bytes
        self._max_line = limits.max_request_line
        self._keys: dict[bytes, str] = {}

    def check_incomplete(self, data: bytes) -> None:
        """Refuse what can't become a request any more, however it goes on. `data` holds no empty line yet."""
        end = data.find(b"\r\n")
        line = data if end < 0 else data[:end]
        if len(line) > self._max_line + 1:
            raise Refusal(414, "The request line is too long.")
        if b"\n" in line:
            raise Refusal(400, "Lines must end in CRLF.")
        if end < 0:
            return
        self._request_line(line)
        if len(data) - end - 2 > self._max_headers + 1:
            raise self._too_large()
        if re.search(rb"(?<!\r)\n", data):
            raise Refusal(400, "Lines must end in CRLF.")

    def read(self, data: bytes) -> Head:
        """Read a head; `data` goes up to the empty line and does not hold it. Raises Refusal."""
        if data.translate(None, _LAWFUL):
            raise Refusal(400, "The request holds control characters.")
        lines = data.split(b"\r\n")
        breaks = len(lines) - 1
        if data.count(b"\n") != breaks or data.count(b"\r") != breaks:
            raise Refusal(400, "Lines must end in CRLF.")
        first = lines[0]
        if len(first) > self._max_line:
            raise Refusal(414, "The request line is too long.")
        if breaks and len(data) - len(first) > self._max_headers:
            raise self._too_large()
        method, target, minor = self._request_line(first)
        environ, fields = self._headers(lines)
        target, raw_path, query = _split_target(method, target, environ)
        if minor and "HTTP_HOST" not in environ:
            raise Refusal(400, "A request must name its Host.")
        length, chunked = _framing(environ, minor=minor)
        expect = environ.get("HTTP_EXPECT")
        if expect is not None and expect.lower() != "100-continue":
            raise Refusal(417, "The only expectation that can be met is 100-continue.")
        return Head(
            method=method,
            target=target.decode("latin-1"),
            path=_decode_path(raw_path),
            query=query.decode("latin-1"),
            protocol="HTTP/1.1" if minor else "HTTP/1.0",
            fields=fields,
            environ=environ,
            length=length,
            chunked=chunked,
            expects=bool(expect and minor and (chunked or length)),
            keep_alive=_keeps_alive(environ.get("HTTP_CONNECTION"), minor=minor),
        )

    def _too_large(self) -> Refusal:
        return Refusal(431, f"All headers of a request together may take {self._max_headers} bytes.")

    def _request_line(self, line: bytes) -> tuple[str, bytes, int]:
        try:
            method, target, protocol = line.split(b" ")
        except ValueError:
            raise Refusal(400, "The request line is malformed.") from None
        if len(method) > _LONGEST_METHOD or not _TOKEN.fullmatch(method) or not _TARGET.fullmatch(target):
            raise Refusal(400, "The request line is malformed.")
        if protocol == b"HTTP/1.1":
            return method.decode("latin-1"), target, 1
        version = _VERSION.fullmatch(protocol)
        if version is None:
            raise Refusal(400, "The request line is malformed.")
        if version[1] != b"1":
            raise Refusal(505, "Only HTTP/1.0 and HTTP/1.1 are spoken here.")
        return method.decode("latin-1"), target, min(1, int(version[2]))

    def _headers(self, lines: list[bytes]) -> tuple[dict[str, str], Fields]:
        environ: dict[str, str] = {}
        fields: list[tuple[bytes, bytes]] = []
        spelled: dict[str, bytes] = {}
        keys = self._keys
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            if not colon:
                raise Refusal(400, "A header line has no colon.")
            key = keys.get(name)
            if key is None:
                key = self._key(name)
            if not key:
                continue
            value = value.strip(b" \t")
            text = value.decode("latin-1")
            if key in environ:
                text = _combined(key, environ[key], text, name, spelled[key])
            environ[key] = text
            spelled[key] = name
            fields.append((name, value))
        return environ, tuple(fields)

    def _key(self, name: bytes) -> str:
        """Give the WSGI name of a header, or _DROPPED for one that no application may see."""
        if not _TOKEN.fullmatch(name):
            raise Refusal(400, "A header's name is malformed.")
        lowered = name.decode("latin-1").lower()
        dashed = lowered.replace("_", "-")
        key = dashed.replace("-", "_").upper()
        if ("_" in lowered and (not lowered.startswith("x-") or dashed.startswith(_TRUSTED))) or lowered == "proxy":
            key = _DROPPED
        elif key not in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
            key = f"HTTP_{key}"
        if len(self._keys) < _CACHED_NAMES:
            self._keys[name] = key
        return key


def _combined(key: str, before: str, text: str, name: bytes, name_before: bytes) -> str:
    if name.lower() != name_before.lower():
        raise Refusal(400, "Two headers differ in a dash and an underscore alone.")
    if key in _SINGLE:
        raise Refusal(400, f"The header {name.decode('latin-1')} is there twice.")
    return f"{before}; {text}" if key == "HTTP_COOKIE" else f"{before}, {text}"


def _framing(environ: dict[str, str], *, minor: int) -> tuple[int, bool]:
    """Say how the body is delimited (RFC 9112, section 6.3): its length, and whether it is chunked."""
    length = environ.get("CONTENT_LENGTH")
    coding = environ.get("HTTP_TRANSFER_ENCODING")
    if coding is not None:
        if length is not None:
            raise Refusal(400, "Content-Length and Transfer-Encoding exclude each other.")
        if not minor:
            raise Refusal(400, "HTTP/1.0 has no Transfer-Encoding.")
        if coding.lower() != "chunked":
            raise Refusal(501, "The only transfer coding understood here is chunked.")
        return 0, True
    if length is None:
        return 0, False
    if not (length.isascii() and length.isdigit()) or len(length) > _LONGEST_LENGTH:
        raise Refusal(400, "Content-Length is not a number of bytes.")
    return int(length), False


def _keeps_alive(connection: str | None, *, minor: int) -> bool:
    if connection is None:
        return bool(minor)
    options = [option.strip() for option in connection.lower().split(",")]
    return "close" not in options if minor else "keep-alive" in options


def _split_target(method: str, target: bytes, environ: dict[str, str]) -> tuple[bytes, bytes, bytes]:
    """Split a request target into itself, its path and its query (RFC 9112, section 3.2)."""
    host = environ.get("HTTP_HOST")
    if host is not None and not _HOST.fullmatch(host.encode("latin-1")):
        raise Refusal(400, "Host is malformed.")
    if b"#" in target:
        raise Refusal(400, "A request target has no fragment.")
    if target == b"*":
        if method != "OPTIONS":
            raise Refusal(400, "Only OPTIONS can ask about the server as a whole.")
        return target, target, b""
    if method == "CONNECT":
        raise Refusal(405, "This server is not a proxy.")
    local = target
    if not target.startswith(b"/"):
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None or not absolute[1] or not _HOST.fullmatch(absolute[1]):
            raise Refusal(400, "The request target is not a path.")
        # RFC 9112, section 3.2.2: what the target says comes before the Host header.
        environ["HTTP_HOST"] = absolute[1].decode("latin-1")
        local = absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]
    path, _, query = local.partition(b"?")
    return target, path, query


def _decode_path(path: bytes) -> str:
    if b"%" in path:
        if _BAD_ESCAPE.search(path):
            raise Refusal(400, "The path holds a percent sign that escapes nothing.")
        path = unquote_to_bytes(path)
        if b"\0" in path:
            raise Refusal(400, "The path holds a NUL.")
    if not path.isascii():
        try:
            path.decode("utf-8")
        except UnicodeDecodeError:
            raise Refusal(400, "The path is not UTF-8.") from None
    return path.decode("latin-1")

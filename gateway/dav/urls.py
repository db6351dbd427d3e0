# SPDX-License-Identifier: Apache-2.0
"""URLs of the share and paths of the tree, and which is which.

Answers for reading the request's own URL, a ``Destination`` and the resources of an ``If`` header, all by one rule, and
for writing hrefs. A slash can't be escaped: what the tree takes for one name would be another path to somebody else.

Threading: immutable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote_to_bytes, urlsplit

from wsgidav.dav_error import DAVError

from glancefs.errors import InvalidPath

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

SAFE: Final = "/~!$()*+,;=:@"
"""What stays as it is in a href: RFC 3986, section 3.3, less what XML would have to escape."""

_PLAIN = re.compile(r"[A-Za-z0-9/._~-]*")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ESCAPED_SLASH = re.compile(r"(?i)%2f")


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL of the share means."""

    path: str
    """A path of the tree; it may be one that no image can have, which the tree tells."""
    is_folder: bool
    """Whether it ends in a slash, as URLs of folders do."""


class Share:
    """The URLs of the share as one request has them: they begin with ``prefix`` (``/dav``), on one of ``hosts``."""

    def __init__(self, *, prefix: str, hosts: Callable[[], frozenset[str]]) -> None:
        self.prefix: Final = prefix
        self._hosts: Final = hosts

    @classmethod
    def of(cls, environ: WSGIEnvironment, *, base_url: str) -> Share:
        """Give that of a request that was let in under a prefix."""
        return cls(prefix=environ.get("SCRIPT_NAME", ""), hosts=lambda: _hosts(environ, base_url))

    def requested(self, environ: WSGIEnvironment) -> Target:
        """Read the URL of the request itself. Raises InvalidPath."""
        raw: str = environ.get("REQUEST_URI") or ""
        if _ESCAPED_SLASH.search(raw.partition("?")[0]):
            raise _escaped_slash()
        return _target(environ.get("PATH_INFO", "").encode("latin-1"))

    def named(self, url: str) -> Target | None:
        """Read a URL in a header: absolute, or a path from the root of the server; None for another place's.

        Raises InvalidPath for a path that the tree can't have, DAVError (400) for what is no such URL.
        """
        host, path = "", url
        if not url.startswith("/"):
            try:
                parts = urlsplit(url)
            except ValueError:
                raise _no_url(url) from None
            if parts.scheme.lower() not in {"http", "https"} or not parts.netloc:
                raise _no_url(url)
            host = _host(parts.netloc.rpartition("@")[2])
            path = url[url.index("//") + 2 :]
            path = path[path.index("/") :] if "/" in path else "/"
        if "?" in path or "#" in path or _BAD_ESCAPE.search(path):
            raise _no_url(url)
        if host and host not in self._hosts():
            return None
        if path != self.prefix and not path.startswith(f"{self.prefix}/"):
            return None
        if _ESCAPED_SLASH.search(path):
            raise _escaped_slash()
        return _target(unquote_to_bytes(path.removeprefix(self.prefix).encode("latin-1", "replace")))

    def destination(self, environ: WSGIEnvironment) -> Target:
        """Read the ``Destination`` (RFC 4918, section 10.3). Raises DAVError (400, 502), InvalidPath."""
        url: str | None = environ.get("HTTP_DESTINATION")
        if url is None:
            raise DAVError(HTTPStatus.BAD_REQUEST, "COPY and MOVE need a Destination.")
        target = self.named(url)
        if target is None:
            raise DAVError(HTTPStatus.BAD_GATEWAY, "The Destination is not in this share.")
        return target

    def href(self, path: str, *, is_folder: bool) -> str:
        """Give the href of a path; nothing in it needs an escape in XML or HTML."""
        text = f"{self.prefix}/{path}"
        if not _PLAIN.fullmatch(text):
            text = quote(text, safe=SAFE)
        return f"{text}/" if is_folder and path else text

    def hrefs(self, folder: str, names: Sequence[str]) -> Sequence[str]:
        """Give the hrefs of many files in a folder, as `href` does, in less time."""
        begin = self.href(folder, is_folder=True)
        begin = begin if begin.endswith("/") else f"{begin}/"
        if _PLAIN.fullmatch("".join(names)):
            return [begin + name for name in names]
        return [begin + quote(name, safe=SAFE) for name in names]


def _target(path: bytes) -> Target:
    try:
        text = path.decode()
    except UnicodeDecodeError:
        raise InvalidPath("The path is no UTF-8.", field="name") from None
    # Clients join URLs carelessly; a name with an empty part has an escape for it.
    return Target(path="/".join(filter(None, text.split("/"))), is_folder=text.endswith("/") or not text)


def _hosts(environ: WSGIEnvironment, base_url: str) -> frozenset[str]:
    said = environ.get("HTTP_HOST") or f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
    return frozenset({_host(said), _host(urlsplit(base_url).netloc)})


def _host(netloc: str) -> str:
    """Give a host with its port, as far as it is not the one that everybody takes."""
    return re.sub(r":(80|443)?$", "", netloc.lower())


def _no_url(url: str) -> DAVError:
    return DAVError(HTTPStatus.BAD_REQUEST, f"{url[:80]!r} is no URL that can be used here.")


def _escaped_slash() -> InvalidPath:
    return InvalidPath("A slash in a name can't be escaped: it always parts folders.", field="name")

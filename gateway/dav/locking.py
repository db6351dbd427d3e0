# SPDX-License-Identifier: Apache-2.0
"""LOCK and UNLOCK (RFC 4918, sections 9.10 and 9.11), and locks as XML.

Answers for what a request for a lock says, and for the empty file that a lock on nothing makes (section 7.3). Who may
hold which lock, and what that means, `glancefs.locks` and the registry know.

Threading: pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from xml.etree.ElementTree import Element

from wsgidav.dav_error import DAVError
from wsgidav.util import read_timeout_value_header

from gateway.dav.urls import Share
from gateway.dav.xml import LANG, children, escaped, serialized
from glancefs.registries.locks import Lock


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a new lock is to be."""

    is_shared: bool
    owner_xml: str


def wanted_lock(root: Element) -> Wanted:
    """Read a ``lockinfo`` (section 14.11). Raises DAVError (400, 422)."""
    if root.tag != "{DAV:}lockinfo":
        raise DAVError(HTTPStatus.BAD_REQUEST, "The body of a LOCK is to be a lockinfo.")
    scope, kind, owner = None, None, ""
    for child in children(root):
        inside = next(children(child), None)
        if child.tag == "{DAV:}lockscope" and inside is not None:
            scope = inside.tag
        elif child.tag == "{DAV:}locktype" and inside is not None:
            kind = inside.tag
        elif child.tag == "{DAV:}owner":
            owner = serialized(child, lang=root.get(LANG))
    if scope not in {"{DAV:}exclusive", "{DAV:}shared"} or kind != "{DAV:}write":
        raise DAVError(HTTPStatus.UNPROCESSABLE_ENTITY, "There are exclusive and shared write locks.")
    return Wanted(is_shared=scope == "{DAV:}shared", owner_xml=owner)


def wanted_seconds(header: str | None) -> int | None:
    """Read a ``Timeout`` (section 10.7): seconds; None where nothing is said or no end is wanted."""
    try:
        seconds = read_timeout_value_header(header or "")
    except ValueError:
        return None
    return seconds if isinstance(seconds, int) and seconds > 0 else None


def wanted_depth(header: str | None) -> bool:
    """Say whether a lock is to hold for everything below (section 9.10.3). Raises DAVError (400)."""
    depth = "infinity" if header is None else header.strip().lower()
    if depth not in {"0", "infinity"}:
        raise DAVError(HTTPStatus.BAD_REQUEST, "The Depth of a lock is 0 or infinity.")
    return depth == "infinity"


def unlock_token(header: str | None) -> str:
    """Read a ``Lock-Token`` (section 10.5). Raises DAVError (400)."""
    text = (header or "").strip()
    if not (text.startswith("<") and text.endswith(">")):
        raise DAVError(HTTPStatus.BAD_REQUEST, "UNLOCK needs a Lock-Token in angle brackets.")
    return text[1:-1]


def lock_discovery(locks: Sequence[Lock], *, share: Share) -> str:
    """Write the content of ``lockdiscovery`` (section 15.8)."""
    now = datetime.now(UTC)
    return "".join(
        f"<D:activelock><D:locktype><D:write/></D:locktype>"
        f"<D:lockscope><D:{'shared' if lock.is_shared else 'exclusive'}/></D:lockscope>"
        f"<D:depth>{'infinity' if lock.is_deep else '0'}</D:depth>{lock.owner_xml}"
        f"<D:timeout>Second-{max(0, int((lock.expires_at - now).total_seconds()))}</D:timeout>"
        f"<D:locktoken><D:href>{escaped(lock.token)}</D:href></D:locktoken>"
        f"<D:lockroot><D:href>{share.href(lock.path, is_folder=False)}</D:href></D:lockroot></D:activelock>"
        for lock in locks
    )

# SPDX-License-Identifier: Apache-2.0
"""PROPFIND (RFC 4918, section 9.1): what is there, and what is known of it.

Answers for reading what is wanted, and for an answer that goes out while the folder is read: a page of the registry's
at a time becomes text at once, so ten thousand entries take no more memory than a thousand. Depth infinity is refused,
as the RFC allows.

Threading: an answer belongs to one request; it goes on asking the tree while it is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from xml.etree.ElementTree import Element

from wsgidav.dav_error import DAVError, PRECONDITION_CODE_PropfindFiniteDepth

from gateway.dav.outlines import OutlineWriter
from gateway.dav.properties import NAMESPACES, NO_DEAD, Properties, propstats
from gateway.dav.urls import Share
from gateway.dav.xml import DECLARATION, children, empty_element, split_name
from glancefs.registries.folders import Outline
from glancefs.registries.locks import Lock
from glancefs.tree import Entry, EntryKind, ImageTree, Outlined

PAGE: Final = 500
"""How many entries become text at a time."""
MOST_NAMES: Final = 1000
"""How many properties one request may name."""

_ALL = frozenset({"{DAV:}allprop", "{DAV:}propname", "{DAV:}prop"})
_IMAGES: Final = frozenset({"urn:glancefs:image", "urn:glancefs:property"})
_OURS: Final = _IMAGES | {"DAV:"}
_LOCK_NAME: Final = "{DAV:}lockdiscovery"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which properties are wanted."""

    everything: bool = False
    only_names: bool = False
    names: tuple[str, ...] = ()
    """In Clark's notation; with ``everything``, those that are wanted besides."""

    @property
    def wants_dead(self) -> bool:
        """Whether what clients keep has to be looked up."""
        return self.everything or self.only_names or any(split_name(name)[0] not in _OURS for name in self.names)

    @property
    def wants_outlines(self) -> bool:
        """Whether a listing tells enough of images: what clients ask for when they show a folder."""
        return not (self.everything or self.only_names or any(split_name(name)[0] in _IMAGES for name in self.names))

    @property
    def wants_locks(self) -> bool:
        """Whether locks have to be looked up."""
        return self.everything or _LOCK_NAME in self.names


def asked(root: Element | None) -> Asked:
    """Read the body of a PROPFIND; none asks for everything. Raises DAVError (400)."""
    if root is None:
        return Asked(everything=True)
    if root.tag != "{DAV:}propfind":
        raise DAVError(HTTPStatus.BAD_REQUEST, "The body of a PROPFIND is to be a propfind.")
    kinds = {child.tag: child for child in children(root) if child.tag in _ALL}
    if len(kinds) != 1:
        raise DAVError(HTTPStatus.BAD_REQUEST, "A propfind holds one of allprop, propname and prop.")
    include = root.find("{DAV:}include")
    named = kinds.get("{DAV:}prop", include)
    names = tuple(dict.fromkeys(child.tag for child in children(named))) if named is not None else ()
    if len(names) > MOST_NAMES:
        raise DAVError(HTTPStatus.BAD_REQUEST, f"One request may name {MOST_NAMES} properties.")
    return Asked(everything="{DAV:}allprop" in kinds, only_names="{DAV:}propname" in kinds, names=names)


def wants_members(header: str | None) -> bool:
    """Read the ``Depth``. Raises DAVError: 403 for infinity, which is also what none means; 400 for anything else."""
    depth = "infinity" if header is None else header.strip().lower()
    if depth == "infinity":
        raise DAVError(HTTPStatus.FORBIDDEN, err_condition=PRECONDITION_CODE_PropfindFiniteDepth)
    if depth not in {"0", "1"}:
        raise DAVError(HTTPStatus.BAD_REQUEST, "The Depth of a PROPFIND is 0 or 1.")
    return depth == "1"


class Answer:
    """Writes what PROPFIND answers, for one request."""

    def __init__(
        self,
        *,
        asked: Asked,
        share: Share,
        properties: Properties,
        tree: ImageTree,
    ) -> None:
        self._asked: Final = asked
        self._share: Final = share
        self._properties: Final = properties
        self._writers: Final = [(name, properties.writer(name)) for name in asked.names]
        self._tree: Final = tree

    def pieces(self, entry: Entry, pages: Iterator[Outlined] | None) -> Iterator[bytes]:
        """Give the document, page by page; ``pages`` are the members, None for none of them."""
        covering: Sequence[Lock] = ()
        below: Mapping[str, Sequence[Lock]] = {}
        if self._asked.wants_locks:
            covering = self._tree.locks_on(entry.path, entry)
            if pages is not None:
                below = _by_path(self._tree.locks_below(entry.path))
        deep = [lock for lock in covering if lock.is_deep]
        head = f"{DECLARATION}<D:multistatus {NAMESPACES}>\n"
        yield (head + self._response(entry, covering, self._dead_of([entry]).get(entry.key, NO_DEAD))).encode()
        if pages is not None:
            yield from self._members(entry, pages, deep, below)
        yield b"</D:multistatus>\n"

    def _members(
        self, folder: Entry, pages: Iterator[Outlined], deep: Sequence[Lock], below: Mapping[str, Sequence[Lock]]
    ) -> Iterator[bytes]:
        outlines = OutlineWriter(folder=folder.path, names=self._asked.names, share=self._share)
        for page, images in pages:
            dead = self._dead_of(page)
            if below or deep or dead:
                text = [self._response(e, [*deep, *below.get(e.path, ())], dead.get(e.key, NO_DEAD)) for e in page]
            else:
                text = [self._response(e, (), NO_DEAD) for e in page]
            if images:
                kept = self._dead_of_images(images)
                text.append(outlines.page(images, deep=deep, below=below, dead=kept))
            if text:
                yield "".join(text).encode()

    def _response(self, entry: Entry, locks: Sequence[Lock], dead: Mapping[str, str]) -> str:
        href = self._share.href(entry.path, is_folder=entry.kind is EntryKind.FOLDER)
        if self._asked.everything:
            found = self._properties.all(entry, locks, dead)
            more, missing = self._named(entry, locks, dead)
            found += more
        elif self._asked.only_names:
            found, missing = self._properties.names(entry, dead), ""
        else:
            found, missing = self._named(entry, locks, dead)
        return f"<D:response><D:href>{href}</D:href>{propstats(found, missing)}</D:response>\n"

    def _named(self, entry: Entry, locks: Sequence[Lock], dead: Mapping[str, str]) -> tuple[str, str]:
        found: list[str] = []
        missing: list[str] = []
        for name, write in self._writers:
            text = write(entry, locks, dead)
            if text is None:
                missing.append(empty_element(name))
            else:
                found.append(text)
        return "".join(found), "".join(missing)

    def _dead_of(self, entries: Sequence[Entry]) -> Mapping[str, Mapping[str, str]]:
        return self._tree.dead_properties(entries) if self._asked.wants_dead else {}

    def _dead_of_images(self, images: Sequence[tuple[str, Outline]]) -> Mapping[str, Mapping[str, str]]:
        if not self._asked.wants_dead:
            return {}
        return self._tree.dead_properties_of_images([image.id for _, image in images])


def _by_path(locks: Sequence[Lock]) -> Mapping[str, Sequence[Lock]]:
    found: dict[str, list[Lock]] = {}
    for lock in locks:
        found.setdefault(lock.path, []).append(lock)
    return found


def plain_folders(hrefs: Sequence[str]) -> bytes:
    """Write what is answered where there are folders and nothing else is known of them."""
    stats = propstats("<D:resourcetype><D:collection/></D:resourcetype>", "")
    responses = "".join(f"<D:response><D:href>{href}</D:href>{stats}</D:response>\n" for href in hrefs)
    return f'{DECLARATION}<D:multistatus xmlns:D="DAV:">\n{responses}</D:multistatus>\n'.encode()

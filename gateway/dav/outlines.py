# SPDX-License-Identifier: Apache-2.0
"""Images in long listings, as XML: what clients ask for when they show a folder, a page of images at a time.

Answers for the texts of ``DAV:`` properties and of dead ones, the same as `gateway.dav.properties` writes of a whole
image. Each property is written for all images of a page before the next one is: folders are long, and a call for each
property of each image would take most of the time.

Threading: an `OutlineWriter` belongs to one request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from gateway.bodies import DATA_TYPE
from gateway.dav.locking import lock_discovery
from gateway.dav.properties import LOCKS, NO_DEAD, compact_etag, http_date, iso_date, propstats, queued_etag
from gateway.dav.urls import Share
from gateway.dav.xml import empty_element, escaped, split_name
from glancefs.model import ImageStatus
from glancefs.paths import join
from glancefs.registries.folders import Outline
from glancefs.registries.locks import Lock
from glancefs.tree.entries import outlined_mtime

Images = Sequence[tuple[str, Outline]]
"""The images of a page, each after its name in the folder."""

_BILLION: Final = 1_000_000_000
_AVAILABLE: Final = str(ImageStatus.AVAILABLE)
_LOCK_NAME: Final = "{DAV:}lockdiscovery"


class OutlineWriter:
    """Writes the images in a folder for one request, which asks for the properties of these ``names`` alone."""

    def __init__(self, *, folder: str, names: Sequence[str], share: Share) -> None:
        self._folder: Final = folder
        self._share: Final = share
        live = [split_name(name) for name in names]
        self._columns: Final = [_COLUMNS[local] for space, local in live if space == "DAV:" and local in _COLUMNS]
        self._wants_locks: Final = _LOCK_NAME in names
        self._dead: Final = [name for name, (space, _) in zip(names, live, strict=True) if space != "DAV:"]
        self._missing: Final = "".join(
            empty_element(name)
            for name, (space, local) in zip(names, live, strict=True)
            if space == "DAV:" and local not in _COLUMNS and name != _LOCK_NAME
        )

    def page(
        self,
        images: Images,
        *,
        deep: Sequence[Lock] = (),
        below: Mapping[str, Sequence[Lock]] | None = None,
        dead: Mapping[str, Mapping[str, str]] | None = None,
    ) -> str:
        """Write some images: with locks that are on the whole folder, those of paths, and dead properties by id."""
        hrefs = self._share.hrefs(self._folder, [name for name, _ in images])
        columns = [column(images) for column in self._columns]
        if self._wants_locks:
            columns.append(self._discoveries(images, deep, below or {}))
        found = list(map("".join, zip(*columns, strict=True))) if columns else [""] * len(images)
        if dead:
            stats = [
                self._with_dead(text, dead.get(image.id, NO_DEAD))
                for text, (_, image) in zip(found, images, strict=True)
            ]
        else:
            missing = self._missing + "".join(map(empty_element, self._dead))
            # The same text around what differs.
            before, _, after = propstats("\0", missing).partition("\0") if columns else (propstats("", missing), "", "")
            stats = [f"{before}{text}{after}" for text in found]
        return "".join(
            f"<D:response><D:href>{href}</D:href>{text}</D:response>\n" for href, text in zip(hrefs, stats, strict=True)
        )

    def _with_dead(self, found: str, dead: Mapping[str, str]) -> str:
        there = "".join(dead[name] for name in self._dead if name in dead)
        missing = "".join(empty_element(name) for name in self._dead if name not in dead)
        return propstats(found + there, self._missing + missing)

    def _discoveries(self, images: Images, deep: Sequence[Lock], below: Mapping[str, Sequence[Lock]]) -> Sequence[str]:
        if not deep and not below:
            return ["<D:lockdiscovery></D:lockdiscovery>"] * len(images)
        locks = ([*deep, *below.get(join(self._folder, name), ())] for name, _ in images)
        texts = (lock_discovery(those, share=self._share) if those else "" for those in locks)
        return [f"<D:lockdiscovery>{text}</D:lockdiscovery>" for text in texts]


def _etag(image: Outline) -> str:
    if image.status == _AVAILABLE and image.checksum is not None:
        return compact_etag(image.checksum)
    return queued_etag(image.id)


_COLUMNS: Final[Mapping[str, Callable[[Images], Sequence[str]]]] = {
    "resourcetype": lambda images: ["<D:resourcetype></D:resourcetype>"] * len(images),
    "getcontentlength": lambda images: [
        f"<D:getcontentlength>{image.size}</D:getcontentlength>" for _, image in images
    ],
    "getlastmodified": lambda images: [
        f"<D:getlastmodified>{http_date(outlined_mtime(image) // _BILLION)}</D:getlastmodified>" for _, image in images
    ],
    "creationdate": lambda images: [
        f"<D:creationdate>{iso_date(image.created_at)}</D:creationdate>" for _, image in images
    ],
    "displayname": lambda images: [f"<D:displayname>{escaped(name)}</D:displayname>" for name, _ in images],
    "getcontenttype": lambda images: [f"<D:getcontenttype>{DATA_TYPE}</D:getcontenttype>"] * len(images),
    "getetag": lambda images: [f"<D:getetag>{_etag(image)}</D:getetag>" for _, image in images],
    "supportedlock": lambda images: [f"<D:supportedlock>{LOCKS}</D:supportedlock>"] * len(images),
}
"""What writes a property of each image. What a file does not have, a quota for one, is not among them."""

# SPDX-License-Identifier: Apache-2.0
"""A listing says of each file what the file says of itself, whatever is asked for and of whatever kind it is.

Threading: none.
"""

from __future__ import annotations

import re
from urllib.parse import unquote
from xml.etree.ElementTree import Element, tostring

import pytest

from glancefs.context import RequestContext
from glancefs.model import ImageType, NewImage
from tests.support.dav import DAV, Dav, Reply, propfind, proppatch

I = "{urn:glancefs:image}"  # noqa: E741 - as the share calls the namespace
NS = "{urn:example}"
KNOWN = (
    *("resourcetype", "getcontentlength", "getlastmodified", "creationdate", "displayname", "getcontenttype"),
    *("getetag", "supportedlock"),
)
ASKED: dict[str, tuple[str, ...]] = {
    "what clients show": (*(DAV + name for name in KNOWN[:4]), f"{DAV}getetag"),
    **{name: (DAV + name,) for name in KNOWN},
    "locks": (f"{DAV}getetag", f"{DAV}lockdiscovery"),
    "what files don't have": (f"{DAV}quota-used-bytes", f"{DAV}nonsense"),
    "some of both": (f"{DAV}nonsense", f"{DAV}getetag"),
    "what clients keep": (f"{NS}kept", f"{DAV}getcontentlength", f"{NS}never"),
    "what clients keep alone": (f"{NS}kept",),
    "fields of images": (f"{I}type", f"{DAV}getetag", f"{NS}kept"),
}


def fill(dav: Dav, folder: str) -> None:
    """Put files of every kind into a folder."""
    dav.put(f"{folder}/plain")
    dav.put(f"{folder}/%C3%BCber%20%26%20%3Call%3E%25", b"with a name that has to be escaped")
    dav.put(f"{folder}/dated", X_OC_Mtime="1700000000")
    dav.put(f"{folder}/before%201970", X_OC_Mtime="-86401.5")
    dav.put(f"{folder}/kept")
    assert dav("MKCOL", f"{folder}/folder").status == 201
    for path in (f"{folder}/kept", f"{folder}/folder/"):
        assert dav("PROPPATCH", path, {}, proppatch({f"{NS}kept": "some text"})).statuses == {f"{NS}kept": 200}
    for context, size in ((RequestContext(user="alice"), 0), (RequestContext(user="alice"), 7)):
        # Of the same name, and without data.
        dav.core.images.create(context, NewImage(name=f"{folder[1:]}/queued", type=ImageType.RAW, size=size))
    dav.lock(f"{folder}/plain", depth="0")


@pytest.mark.parametrize("names", ASKED.values(), ids=ASKED)
def test_a_listing_says_what_each_file_says(dav: Dav, folder: str, names: tuple[str, ...]) -> None:
    fill(dav, folder)
    listing = said(dav("PROPFIND", f"{folder}/", {"Depth": "1"}, propfind(*names)))
    assert len(listing) == 9
    for href, properties in listing.items():
        path = href.removeprefix("/dav")
        assert {href: properties} == said(dav("PROPFIND", path, {"Depth": "0"}, propfind(*names)))


def test_a_lock_on_the_folder_is_on_all_that_is_listed(dav: Dav, folder: str) -> None:
    fill(dav, folder)
    dav("UNLOCK", f"{folder}/plain", {"Lock-Token": f"<{token_of(dav, f'{folder}/plain')}>"})
    dav.lock(f"{folder}/")
    names = (f"{DAV}lockdiscovery", f"{DAV}getetag")
    listing = said(dav("PROPFIND", f"{folder}/", {"Depth": "1"}, propfind(*names)))
    assert len(listing) == 9
    assert all("opaquelocktoken" in text or "urn:uuid" in text for text in map(str, listing.values()))


def said(reply: Reply) -> dict[str, dict[str, tuple[str, bytes]]]:
    """Give what an answer says, by href and property: whether it is there, and how it is written."""
    assert reply.status == 207
    return {
        response.findtext(f"{DAV}href") or "": {
            prop.tag: ((stat.findtext(f"{DAV}status") or ""), text_of(prop))
            for stat in response.iterfind(f"{DAV}propstat")
            for prop in stat.iterfind(f"{DAV}prop/*")
        }
        for response in reply.xml.iterfind(f"{DAV}response")
    }


def text_of(prop: Element) -> bytes:
    """Write a property, without what changes by itself: the seconds that are left of a lock, and the room."""
    prop.tail = None
    if "quota" in prop.tag:
        prop.text = re.sub(r"\d+", "N", prop.text or "")
    return re.sub(rb"Second-\d+", b"Second-N", tostring(prop))


def token_of(dav: Dav, path: str) -> str:
    """Give the token of the lock on a path."""
    found = dav("PROPFIND", path, {"Depth": "0"}, propfind(f"{DAV}lockdiscovery")).entries[unquote(f"/dav{path}")]
    return found[f"{DAV}lockdiscovery"].findtext(f".//{DAV}locktoken/{DAV}href") or ""

# SPDX-License-Identifier: Apache-2.0
"""Other names for images that can't have the path of their own: ``NAME~ID``, or ``NAME~~DIGEST`` for the longest ids.

Answers for the form of these names, and for reading it. Which image gets which, `glancefs.tree.looking` says.

An image is at ``NAME~ID``, with as much of its name as fits into 255 bytes. An image that is really called like this
has that path, and this one is behind it: ``NAME~ID~ID``. Identifiers are up to 255 characters long; where one leaves no
room for the tilde, or all these places are taken, a digest of the identifier stands for it. Neither tilde nor percent
sign are part of an identifier, so what is read is what was written.

Threading: pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256
from itertools import chain
from typing import Final

from glancefs.paths import MAX_COMPONENT, cut, join, split

_DIGITS: Final = 32
_DIGESTS: Final = 8
"""Of how many digests one is tried after the other: names are chosen by people, and so is what is in the way."""
_DIGEST_FORM = re.compile(rf"(.+)~~([0-9a-f]{{{_DIGITS}}})", re.DOTALL)
_ROOM: Final = MAX_COMPONENT - _DIGITS - len("~~")
_LONGEST_CHARACTER: Final = 4
"""In bytes of UTF-8: a cut may leave so many less than there is room for."""

_SUFFIX: Final = ".json"
_OTHER_SUFFIX: Final = "~json"


def namesake_paths(path: str, image_id: str) -> Iterator[str]:
    """Give the paths for an image that does not get the path of its name, from the first choice to the last resort."""
    folder, name = split(path)
    yield from (join(folder, other) for other in chain(_with_id(name, image_id), _with_digest(name, image_id)))


def has_their_form(path: str) -> bool:
    """Say whether a path may be another name of an image that is at a path of its own as well."""
    return "~" in split(path)[1]


def said_id(component: str) -> str | None:
    """Give the identifier that a name ends with, if it may be one of an image's other names."""
    _, tilde, image_id = component.rpartition("~")
    return image_id or None if tilde else None


def said_digest(component: str) -> tuple[str, str] | None:
    """Give the name and the digest of a name that may have the second form."""
    match = _DIGEST_FORM.fullmatch(component)
    return (match[1], match[2]) if match else None


def has_digest(image_id: str, digest: str) -> bool:
    """Say whether a digest may stand for an identifier."""
    return any(_digest(image_id, number) == digest for number in range(_DIGESTS))


def may_be_cut(name: str) -> bool:
    """Say whether a name in the second form may be but the beginning of the image's."""
    return len(name.encode()) > _ROOM - _LONGEST_CHARACTER


def document_name(image_id: str) -> str:
    """Give the name of an image's document: its identifier and ``.json``, which is left out where there is no room."""
    if len(image_id) + len(_SUFFIX) <= MAX_COMPONENT:
        return image_id + _SUFFIX
    # Else it would be the document of a shorter identifier.
    return f"{image_id.removesuffix(_SUFFIX)}{_OTHER_SUFFIX}" if image_id.endswith(_SUFFIX) else image_id


def id_of_document(name: str) -> str | None:
    """Give the identifier whose document has this name; None for what is none."""
    for suffix, kept in ((_SUFFIX, ""), (_OTHER_SUFFIX, _SUFFIX), ("", "")):
        if name.endswith(suffix):
            image_id = f"{name.removesuffix(suffix)}{kept}"
            return image_id if document_name(image_id) == name else None
    return None


def _with_id(name: str, image_id: str) -> Iterator[str]:
    room = MAX_COMPONENT - len(image_id) - len("~")
    before = ""
    while room >= 0 and name != before:
        before, name = name, f"{cut(name, room)}~{image_id}"
        if name != before:
            yield name


def _with_digest(name: str, image_id: str) -> Iterator[str]:
    yield from (f"{cut(name, _ROOM)}~~{_digest(image_id, number)}" for number in range(_DIGESTS))


def _digest(image_id: str, number: int) -> str:
    return sha256(f"{number}:{image_id}".encode()).hexdigest()[:_DIGITS]

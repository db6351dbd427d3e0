# SPDX-License-Identifier: Apache-2.0
"""Names of images as paths of files, and back: every text has exactly one path, and every path exactly one text.

Answers for the form of paths. Does not know which images there are.

A name is a path as it stands, nearly always: the slashes in it make folders. What no path can hold is escaped:

- control characters, as ``%`` and two upper-case hex digits (``%0A``, ``%00``, ``%7F``);
- an empty component (of an empty name, at a leading, trailing or double slash), as ``%_``; ``.`` and ``..``, as ``%2E``
  and ``%2E%2E``; and a first component ``.glance``, which is the mount's own, as ``%2Eglance``;
- a component of more than 255 bytes of UTF-8 (NAME_MAX, limits.h) becomes folders inside each other, each but the last
  as full as it can be, and each but the first begins with ``%+``.

Where a name reads like one of these escapes itself, its ``%`` is written ``%25``, and nowhere else: ``100%`` and
``foo%20bar.iso`` stay as they are. Read the other way, only what would be written this way is an escape. So both
directions are the identity of each other, for every name and for every path of files.

Threading: pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from glancefs.errors import InvalidPath, PathTooLong
from glancefs.model import MAX_NAME

RESERVED: Final = ".glance"
"""The folder in the root that is the mount's own."""

MAX_COMPONENT: Final = 255
"""In bytes of UTF-8."""

# Names in which nothing can need an escape, as nearly all are.
_ORDINARY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ -]*(?:/[A-Za-z0-9_][A-Za-z0-9._ -]*)*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# What reads like an escape, however often its "%" was escaped already.
_READS_AS_CONTROL = re.compile(r"%(?=(?:25)*(?:[01][0-9A-F]|7F))")
_READS_AS_WHOLE = re.compile(r"%(?=(?:25)*(?:_|2E|2E%2E)\Z)")
_READS_AS_RESERVED = re.compile(r"%(?=(?:25)*2Eglance\Z)")
_READS_AS_NEXT = re.compile(r"%(?:25)*\+(.)", re.DOTALL)

_ESCAPED_CONTROL = re.compile(r"%(?:25(?=(?:25)*(?:[01][0-9A-F]|7F))|([01][0-9A-F]|7F))")
_NEXT: Final = "%+"
_WHOLE: Final = {"": "%_", ".": "%2E", "..": "%2E%2E"}
_RESERVED_ESCAPED: Final = "%2Eglance"


def path_of(name: str) -> str:
    """Give the path of an image's name: the name itself wherever a path can be that.

    Raises InvalidPath for text with lone surrogates, which is no Unicode text.
    """
    if len(name) <= MAX_COMPONENT and _ORDINARY.fullmatch(name):
        return name
    if _SURROGATE.search(name):
        raise InvalidPath("The name is not text: it holds bytes that are no UTF-8.", field="name")
    pieces: list[str] = []
    for number, text in enumerate(name.split("/")):
        escaped = _escaped(text, is_first=number == 0)
        if pieces and _reads_as_next(pieces[-1], escaped):
            escaped = f"%25{escaped[1:]}"
        pieces.extend(_pieces(escaped))
    return "/".join(pieces)


def name_of(path: str) -> str:
    """Give the name whose path this is.

    Raises InvalidPath for the root, for what lies in the mount's own folder, and for what is no path of files
    (components that are empty, ``.``, ``..``, not UTF-8, or hold control characters); PathTooLong.
    """
    if len(path) <= MAX_COMPONENT and _ORDINARY.fullmatch(path):
        return path
    components = path.split("/")
    for component in components:
        check_component(component)
    if is_reserved(path):
        raise InvalidPath(f"{path!r} is the mount's own.", field="name")
    name = "/".join(_texts(components))
    if len(name) > MAX_NAME:
        raise PathTooLong(f"The path is {len(name)} characters long; {MAX_NAME} is the most.", field="name")
    return name


def component_from_bytes(data: bytes) -> str:
    """Read a file name that the kernel gave. Raises InvalidPath, PathTooLong as `check_component` does."""
    try:
        component = data.decode()
    except UnicodeDecodeError:
        raise InvalidPath(f"{data[:80]!r} can't be a file name here: it is no UTF-8.", field="name") from None
    check_component(component)
    return component


def check_component(component: str) -> None:
    """Raise InvalidPath for what can't be a file name here; PathTooLong over 255 bytes of UTF-8."""
    if component in {"", ".", ".."} or _CONTROL.search(component) or _SURROGATE.search(component):
        message = f"{component[:80]!r} can't be a file name here: empty, a dot, or with characters that no name has."
        raise InvalidPath(message, field="name")
    if len(component) > MAX_COMPONENT or _width(component) > MAX_COMPONENT:
        message = f"A file name is {_width(component)} bytes long; {MAX_COMPONENT} is the most."
        raise PathTooLong(message, field="name")


def join(folder: str, component: str) -> str:
    """Give the path of a file in a folder; ``""`` is the root."""
    return f"{folder}/{component}" if folder else component


def split(path: str) -> tuple[str, str]:
    """Give the folder of a path, ``""`` for the root, and its last component."""
    folder, _, component = path.rpartition("/")
    return folder, component


def is_dot(path: str) -> bool:
    """Say whether a path's last component begins with a dot: such files are not yet images."""
    return split(path)[1].startswith(".")


def is_reserved(path: str) -> bool:
    """Say whether this is the mount's own folder, or lies in it."""
    return path == RESERVED or path.startswith(f"{RESERVED}/")


def cut(component: str, width: int) -> str:
    """Give as much of the beginning as fits into so many bytes of UTF-8."""
    return component.encode()[: max(width, 0)].decode(errors="ignore")


def _escaped(text: str, *, is_first: bool) -> str:
    if text in _WHOLE:
        return _WHOLE[text]
    if is_first and text == RESERVED:
        return _RESERVED_ESCAPED
    if "%" in text:
        text = _READS_AS_CONTROL.sub("%25", text)
        text = _READS_AS_WHOLE.sub("%25", text, count=1) if _READS_AS_WHOLE.match(text) else text
        if is_first and _READS_AS_RESERVED.match(text):
            text = f"%25{text[1:]}"
    return _CONTROL.sub(lambda match: f"%{ord(match[0]):02X}", text)


def _unescaped(text: str, *, is_first: bool) -> str:
    for raw, escaped in _WHOLE.items():
        if text == escaped:
            return raw
    if is_first and text == _RESERVED_ESCAPED:
        return RESERVED
    if _READS_AS_WHOLE.match(text) or (is_first and _READS_AS_RESERVED.match(text)):
        return f"%{text[3:]}"
    return _ESCAPED_CONTROL.sub(lambda match: chr(int(match[1], 16)) if match[1] else "%", text)


def _texts(components: list[str]) -> Iterator[str]:
    """Give the texts between the slashes of the name."""
    number = 0
    while number < len(components):
        before = components[number - 1] if number else ""
        text = components[number]
        number += 1
        while number < len(components) and _is_next(components[number - 1], components[number]):
            text += components[number].removeprefix(_NEXT)
            number += 1
        if before and text.startswith("%25") and _reads_as_next(before, text):
            text = f"%{text[3:]}"
        yield _unescaped(text, is_first=not before)


def _pieces(escaped: str) -> Iterator[str]:
    """Cut a component into file names, each as long as it can be."""
    if len(escaped) <= MAX_COMPONENT and _width(escaped) <= MAX_COMPONENT:
        yield escaped
        return
    piece = cut(escaped, MAX_COMPONENT)
    yield piece
    rest = escaped[len(piece) :]
    while rest:
        piece = cut(rest, MAX_COMPONENT - len(_NEXT))
        yield _NEXT + piece
        rest = rest[len(piece) :]


def _is_next(before: str, component: str) -> bool:
    """Say whether a component goes on with the text of the one before, which was too long."""
    if not component.startswith(_NEXT) or component == _NEXT:
        return False
    return _width(before) + _width(component[len(_NEXT)]) > MAX_COMPONENT


def _reads_as_next(before: str, text: str) -> bool:
    """Say whether a text would be taken for the rest of the component before, its escapes apart."""
    match = _READS_AS_NEXT.match(text)
    return match is not None and _width(before) + _width(match[1]) > MAX_COMPONENT


def _width(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))

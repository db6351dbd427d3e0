# SPDX-License-Identifier: Apache-2.0
"""XML bodies on their way in, and small XML on its way out.

Answers for never holding more of a body than makes sense, for refusing what is malformed, and for text that XML can
hold. wsgidav chooses and guards the parser: no entities, no document types (its ``xml_tools``).

Threading: pure functions, but for reading a request's body.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from defusedxml import DefusedXmlException
from wsgidav import xml_tools
from wsgidav.dav_error import DAVError

from gateway.wsgi import Request

MOST: Final = 1 << 20
"""The most bytes of XML that a request may have."""
DEEPEST: Final = 64
"""How many elements may be inside each other."""
TYPE: Final = "application/xml; charset=utf-8"
DECLARATION: Final = '<?xml version="1.0" encoding="utf-8"?>\n'
LANG: Final = "{http://www.w3.org/XML/1998/namespace}lang"

# XML 1.0, section 2.2: what no document can hold, in whatever way it is written.
_NO_CHARACTER = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_PLAIN = re.compile(r"[\t\n -%'-;=?-\x7e]*")
_CLARK = re.compile(r"\{([^}]*)\}(.+)")


def parsed_body(request: Request) -> Element | None:
    """Give the root of the request's XML; None for no body. Raises DAVError: 413 for too much, 400 for no XML."""
    size = request.content_length or 0
    if size > MOST:
        raise _too_large()
    data: bytes = request.source.read(MOST + 1) if size or request.is_chunked else b""
    if len(data) > MOST:
        raise _too_large()
    if not data.strip():
        return None
    try:
        root: Element = xml_tools.etree.fromstring(data)
    # Whichever parser it is: each has a ParseError of its own, and all of them are SyntaxErrors.
    except (SyntaxError, DefusedXmlException, ValueError, LookupError):
        raise DAVError(HTTPStatus.BAD_REQUEST, "The body is no XML that can be understood.") from None
    _check_depth(root)
    return root


def text_of(element: Element) -> str:
    """Give all text in an element."""
    return "".join(element.itertext())


def serialized(element: Element, *, lang: str | None = None) -> str:
    """Write an element with everything in it; ``lang`` is the language that it is in."""
    if lang is not None and LANG not in element.attrib:
        element.set(LANG, lang)
    tail, element.tail = element.tail, None
    text: bytes = xml_tools.xml_to_bytes(element)
    element.tail = tail
    return text.decode().partition("?>")[2].strip()


def escaped(text: str) -> str:
    """Give text as XML can hold it; what no XML can hold is replaced by U+FFFD."""
    if _PLAIN.fullmatch(text):
        return text
    return escape(_NO_CHARACTER.sub("\ufffd", text), {"\r": "&#13;", '"': "&quot;"})


def split_name(name: str) -> tuple[str, str]:
    """Give the namespace, which may be empty, and the local name of a name in Clark's notation."""
    match = _CLARK.fullmatch(name)
    return (match[1], match[2]) if match else ("", name)


def empty_element(name: str) -> str:
    """Write an element without content, which says its namespace itself unless that is ``DAV:``."""
    namespace, local = split_name(name)
    if namespace == "DAV:":
        return f"<D:{local}/>"
    return f'<{local} xmlns="{escaped(namespace)}"/>'


def children(element: Element) -> Iterator[Element]:
    """Give the elements right in an element, comments and the like left out."""
    return (child for child in element if isinstance(child.tag, str))  # type: ignore[redundant-expr]  # that of a comment is a function


def condition(name: str, hrefs: tuple[str, ...] = ()) -> bytes:
    """Give the body that names a precondition (RFC 4918, section 16)."""
    inside = "".join(f"<D:href>{escaped(href)}</D:href>" for href in hrefs)
    _, local = split_name(name)
    return f'{DECLARATION}<D:error xmlns:D="DAV:"><D:{local}>{inside}</D:{local}></D:error>\n'.encode()


def _check_depth(root: Element) -> None:
    level: list[Any] = [root]
    for _ in range(DEEPEST):
        level = [child for element in level for child in element]
        if not level:
            return
    raise DAVError(HTTPStatus.BAD_REQUEST, "The body holds too many elements inside each other.")


def _too_large() -> DAVError:
    return DAVError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The XML of a request may take {MOST} bytes.")

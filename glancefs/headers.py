# SPDX-License-Identifier: Apache-2.0
"""An image's metadata as HTTP headers, the same way for those who send them and those who read them.

Answers for the codec of values (seed checklist, statements 9, 13, 19 and 20) and for the order and form of the
``x-image-meta-`` headers. Knows no request, no response and no library for either.

A value that is printable ASCII travels as it is, with a literal ``%`` as ``%25``; every other character, and spaces at
either end, which a header would lose, travel percent-encoded as UTF-8.

Threading: pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from glancefs.errors import InvalidImage

PREFIX: Final = "x-image-meta-"
PROPERTY_PREFIX: Final = "x-image-meta-property-"

TIME_FORMAT: Final = "%Y-%m-%d %H:%M:%S"
"""Times are UTC and say no zone (seed)."""

NUMBERS: Final = frozenset({"size", "virtual_size", "min_disk", "min_ram"})
BOOLEANS: Final = frozenset({"is_public", "protected"})

_TRUE: Final = frozenset({"on", "1", "true", "yes", "t", "y"})
_FALSE: Final = frozenset({"off", "0", "false", "no", "f", "n", "", "none"})

_PLAIN = re.compile(r"(?! )[ -$&-~]*(?<! )")
_TO_ENCODE = re.compile(r"\A +| +\Z|[^ -$&-~]+")
_ENCODED_RUN = re.compile(r"(?:%[0-9A-Fa-f]{2})+")


def encode_header_value(text: str) -> str:
    """Give the value as printable ASCII that every header can hold.

    Raises InvalidImage for text with lone surrogates, which is no Unicode text.
    """
    if _PLAIN.fullmatch(text):
        return text
    try:
        return _TO_ENCODE.sub(lambda match: _percent(match[0].encode()), text)
    except UnicodeEncodeError:
        raise InvalidImage("A value holds bytes that are no text.") from None


def decode_header_value(value: str) -> str:
    """Give the text back that was encoded; ``value`` is the header's bytes as Latin-1, as WSGI and http.client give it.

    Raw UTF-8 is understood too. What is no valid encoding stays as it is, so every value means something.
    """
    if not value.isascii():
        value = _utf8(value)
    if "%" not in value:
        return value
    return _ENCODED_RUN.sub(lambda match: _decoded_run(match[0]), value)


def read_boolean(text: str, *, field: str) -> bool:
    """Read a boolean word in any case (seed: ``on``, ``1``, ``true``). Raises InvalidImage for every other."""
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    message = f"{text[:80]!r} is neither true nor false; {field} takes true or false."
    raise InvalidImage(message, field=field)


def header_text(value: object) -> str:
    """Give a field's value as the text that its header encodes; ``''`` for None."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(" ", "seconds")[:19]
    return str(value)


def meta_to_headers(meta: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give the headers of a mapping of fields, ``properties`` being a mapping of its own, in the mapping's order.

    A field that is None is left out. Raises InvalidImage for a name that no header can have.
    """
    for name, value in meta.items():
        if name == "properties":
            for key, text in (value or {}).items():
                yield PROPERTY_PREFIX + _header_name(key), encode_header_value(header_text(text))
        elif value is not None:
            yield PREFIX + _header_name(name), encode_header_value(header_text(value))


def meta_from_headers(headers: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Give the mapping that an answer's headers stand for, with Python's types; ``properties`` is always there."""
    properties: dict[str, str] = {}
    meta: dict[str, Any] = {}
    for name, value in headers:
        lowered = name.lower()
        if lowered.startswith(PROPERTY_PREFIX):
            properties[lowered.removeprefix(PROPERTY_PREFIX)] = decode_header_value(value)
        elif lowered.startswith(PREFIX):
            field = lowered.removeprefix(PREFIX)
            meta[field] = typed(field, decode_header_value(value))
    return meta | {"properties": properties}


def typed(field: str, value: object) -> object:
    """Give a field's value in Python's type for it, None for a number that is not set.

    Text that is none of that type stays text.
    """
    if field in NUMBERS and value == "":
        return None
    if isinstance(value, str) and field in NUMBERS and value.isascii() and value.isdigit():
        return int(value)
    if isinstance(value, str) and field in BOOLEANS and (word := value.strip().lower()) in _TRUE | _FALSE:
        return word in _TRUE
    return value


def _header_name(key: str) -> str:
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", key):
        message = f"{key[:80]!r} can't be the name of a field or property: letters, digits, '_' and '-' can."
        raise InvalidImage(message, field=key[:80])
    return key


def _percent(data: bytes) -> str:
    return "".join(f"%{byte:02X}" for byte in data)


def _utf8(value: str) -> str:
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def _decoded_run(run: str) -> str:
    data = bytes.fromhex(run.replace("%", ""))
    text, start = "", 0
    while start < len(data):
        try:
            return text + data[start:].decode()
        except UnicodeDecodeError as error:
            bad, after = start + error.start, start + error.end
            text += data[start:bad].decode() + run[3 * bad : 3 * after]
            start = after
    return text

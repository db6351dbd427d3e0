# SPDX-License-Identifier: Apache-2.0
"""Texts for people: nothing hidden, sizes that can be read.

Answers for making visible what would steer a terminal or break a line: images are named by anybody.

Threading: pure functions.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Final

_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_UNITS: Final = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
KIB: Final = 1024
_FEW: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table."""

    title: str
    is_size: bool = False
    is_name: bool = False
    """May be cut where the terminal is too narrow."""


def visible(text: str) -> str:
    """Give text in which control and format characters, and lone surrogates, are written out as escapes."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(character) for character in text)


def human_size(size: int) -> str:
    """Give bytes in the unit in which two or three digits say it: ``8.1 MiB``."""
    if size < KIB:
        return f"{size} B"
    value = float(size)
    for unit in _UNITS:
        value /= KIB
        # What would be rounded to 1024 of a unit is 1 of the next.
        if value < KIB - 0.5 or unit == _UNITS[-1]:
            break
    return f"{value:.1f} {unit}" if value < _FEW else f"{value:.0f} {unit}"


def _escape(character: str) -> str:
    if unicodedata.category(character) not in _UNSEEN:
        return character
    return character.encode("unicode_escape").decode()

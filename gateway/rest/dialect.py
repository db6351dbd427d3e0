# SPDX-License-Identifier: Apache-2.0
"""In what the two forms of the images API differ: that of the seed, and Glance's first versioned one under ``/v1/``.

Answers for the differences as data (seed checklist, statement 32), so that no handler asks for a form by its name.

Threading: frozen values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from glancefs.model import ImageStatus

_SAME_WORDS: Final[Mapping[str, ImageStatus]] = MappingProxyType({status.value: status for status in ImageStatus})


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One form of the images API."""

    prefix: str
    """What paths and URIs have before ``/images``."""
    numbers_are_text: bool
    """Whether JSON has numbers as strings of digits."""
    available: str
    """The word for an image that can be used."""
    time_separator: str
    shows_checksum: bool
    lists_all: bool
    """Whether lists hold all that the caller may see where the query does not say; else only what is public."""
    infers_type: bool
    """Whether a type that is not said follows from the formats."""
    sends_empty_bodies: bool
    """Whether clients declare an empty body also where they mean none."""
    prefers_text: bool
    """Whether errors are plain text to those who take anything."""
    encodes_keys: bool
    """Whether the names of headers, too, come percent-encoded."""

    def status_word(self, status: ImageStatus) -> str:
        """Give the word for a status."""
        return self.available if status is ImageStatus.AVAILABLE else status.value

    def status_named(self, word: str) -> ImageStatus | None:
        """Give the status of a word; None for a word that is none."""
        return ImageStatus.AVAILABLE if word == self.available else _SAME_WORDS.get(word)


SEED: Final = Dialect(
    prefix="",
    numbers_are_text=True,
    available="available",
    time_separator=" ",
    shows_checksum=True,
    lists_all=False,
    infers_type=False,
    sends_empty_bodies=False,
    prefers_text=False,
    encodes_keys=False,
)

V1: Final = Dialect(
    prefix="/v1",
    numbers_are_text=False,
    available="active",
    time_separator="T",
    # Its clients take what is called a checksum for an MD5 and refuse the data.
    shows_checksum=False,
    lists_all=True,
    infers_type=True,
    sends_empty_bodies=True,
    # Its clients fall over a JSON object whose values are no objects.
    prefers_text=True,
    encodes_keys=True,
)

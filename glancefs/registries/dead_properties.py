# SPDX-License-Identifier: Apache-2.0
"""What every registry promises about dead properties: what WebDAV clients keep beside an image or a folder.

Answers for the `DeadPropertyRegistry` protocol and the values it speaks in; `glancefs.registries.base` has the rest.
Dead properties mean nothing to glancefs (RFC 4918, section 4.1): their values are kept as they came, and told again.

They belong to an image whatever its name is, go over to the image that takes its place, are copied when it is copied
(`Registry.add`), and are gone with it. Those of a folder are each user's own, whoever made the folder; they are renamed
and removed with it.

Threading: every method may be called from many threads at once, and from many processes on the same database.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from glancefs.registries.locks import Presented

MAX_PROPERTY_NAME: Final = 1024
"""How many characters a name may have, namespace and braces included."""

MAX_PROPERTY_VALUE: Final = 65_536
"""How many characters a value may have."""

MOST_PROPERTIES: Final = 200
"""How many one image or folder may have."""


@dataclass(frozen=True, slots=True)
class OfImage:
    """The dead properties of an image."""

    image_id: str


@dataclass(frozen=True, slots=True)
class OfFolder:
    """The dead properties that one user gave to a folder."""

    owner: str
    path: str
    """A path of `glancefs.paths`; ``""`` is the root."""


Subject = OfImage | OfFolder
"""What has dead properties."""


class DeadPropertyRegistry(Protocol):
    """Keeps dead properties: names in Clark's notation (``{namespace}local``), values as text, in practice XML."""

    def get(self, subject: Subject) -> Mapping[str, str]:
        """Give all of one subject, by name, ordered by name; nothing for one that has none or is not there."""
        ...

    def get_many(self, subjects: Collection[Subject]) -> Mapping[Subject, Mapping[str, str]]:
        """Give those of many subjects at the cost of a few statements; subjects that have none are left out."""
        ...

    def change(
        self, subject: Subject, *, values: Mapping[str, str], removed: Collection[str] = (), presented: Presented
    ) -> None:
        """Set some and remove others, all or nothing (section 9.2); removing what is not there is fine.

        Raises ImageNotFound for an image that is not there, Locked (`glancefs.registries.locks`), InvalidRequest for a
        name or value that is too long, StoreFull for more than `MOST_PROPERTIES` (section 9.2.1: 507).
        """
        ...

# SPDX-License-Identifier: Apache-2.0
"""What is known of a staged file beside its bytes, and the small JSON file that keeps it.

Answers for the form of that file: what a later mount needs to show what an earlier one left. Does not open data.

Threading: values are frozen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from glancefs.model import NO_PROPERTIES, ImageType


class StagedState(StrEnum):
    """What is going on with a staged file; shown as its ``user.glance.status``."""

    STAGED = "staged"
    """At work, or waiting for its plain name."""
    ABORTED = "aborted"
    """Its writer was killed; it is in ``.glance/pending/`` and nowhere else."""
    FAILED = "failed"
    """It could not be published; the reason is in ``.glance/errors``. It stays at its path and can be tried again."""
    PUBLISHED = "published"
    """It is an image; its bytes can still be read here, and never be changed."""
    DISCARDED = "discarded"
    """It was removed; whoever has it open can go on, and nothing will come of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What was said of the image to be, by attributes set on a staged file; None: nothing."""

    id: str | None = None
    type: ImageType | None = None
    is_public: bool | None = None
    store: str | None = None
    disk_format: str | None = None
    container_format: str | None = None
    virtual_size: int | None = None
    min_disk: int | None = None
    min_ram: int | None = None
    protected: bool | None = None
    properties: Mapping[str, str] = field(default_factory=lambda: NO_PROPERTIES)
    """The property ``mtime`` is among them once somebody set the times."""
    removed_properties: frozenset[str] = frozenset()
    """Properties of the replaced image that are not to be carried over."""

# SPDX-License-Identifier: Apache-2.0
"""What is known of a staged file beside its bytes, and the small JSON file that keeps it.

Answers for the form of that file: what a later mount needs to show what an earlier one left. Does not open data.

Threading: values are frozen; a file is written by the one mount whose it is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """All that is known of a staged file."""

    path: str
    """Where its mount shows it."""
    state: StagedState = StagedState.STAGED
    said: Said = field(default_factory=Said)
    replaces: str | None = None
    """The id of the available image whose place it takes."""
    queued: str | None = None
    """The id of the queued image whose data this is to be."""


SUFFIX: Final = ".json"


def write_sidecar(file: Path, sidecar: Sidecar, *, sync: bool = False) -> None:
    """Put a sidecar in the place of the one that is there, if any, in one step. Raises OSError."""
    known = {entry.name: getattr(sidecar, entry.name) for entry in fields(sidecar)}
    text = json.dumps(known | {"said": _plain(sidecar.said)})
    draft = file.with_name(f"{file.name}.new")
    with draft.open("w") as stream:
        stream.write(text)
        if sync:
            stream.flush()
            os.fsync(stream.fileno())
    draft.replace(file)


def read_sidecar(file: Path) -> Sidecar:
    """Read a sidecar. Raises OSError, and ValueError for one that is damaged."""
    data = json.loads(file.read_bytes())
    try:
        said: dict[str, Any] = data["said"]
        if said["type"] is not None:
            said["type"] = ImageType(said["type"])
        said["properties"] = MappingProxyType(said["properties"])
        said["removed_properties"] = frozenset(said["removed_properties"])
        return Sidecar(**{**data, "state": StagedState(data["state"]), "said": Said(**said)})
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file} is no sidecar: {error}") from None


def _plain(said: Said) -> dict[str, Any]:
    """Give the fields in forms that JSON knows."""
    values = {entry.name: getattr(said, entry.name) for entry in fields(said)}
    return values | {
        "properties": dict(said.properties),
        "removed_properties": sorted(said.removed_properties),
    }

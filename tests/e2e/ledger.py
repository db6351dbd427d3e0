# SPDX-License-Identifier: Apache-2.0
"""What a server was told and what it answered, and therefore what must be true after it was killed.

Answers for the expectation of each image: the states that it may be in, given that the last request about it was
answered, or was lost with the server. Looking at the images after a restart settles what was open, so that a later
change of mind is found too. Does not speak to servers.

Threading: each entry is changed by the one thread that sends requests about it; `Ledger.open` may be called by any.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

MOST: Final = 8 << 20
"""The largest image, in bytes."""
NOTE: Final = "note"
"""The property that updates change."""


class State(StrEnum):
    """What an image can be to those who look."""

    ABSENT = "absent"
    QUEUED = "queued"
    AVAILABLE = "available"
    DELETED = "deleted"


class Payloads:
    """Data of any size, cheap to make again and unlike those of any other image."""

    def __init__(self, *, seed: int) -> None:
        self._block = random.Random(seed).randbytes(MOST)

    def of(self, name: str, size: int) -> bytes:
        """The data of an image."""
        start = hashlib.sha256(name.encode()).digest()
        shift = int.from_bytes(start[:4]) % (MOST - size + 1)
        return (start + self._block[shift : shift + size])[:size]


@dataclass(slots=True, kw_only=True)
class Entry:
    """One image as its sender knows it. Names are never used twice, so they tell images apart before ids do."""

    name: str
    size: int
    id: str | None = None
    states: frozenset[State] = frozenset({State.ABSENT})
    notes: frozenset[str | None] = frozenset({None})

    def may_become(self, state: State) -> None:
        """A request is going out that leads to this state; until it is answered, either may hold."""
        self.states |= {state}

    def became(self, state: State) -> None:
        """The request was answered: from here on nothing else is true."""
        self.states = frozenset({state})

    def may_note(self, note: str) -> None:
        """A change of the property is going out."""
        self.notes |= {note}

    def noted(self, note: str | None) -> None:
        """The change was answered."""
        self.notes = frozenset({note})

    @property
    def is_known_available(self) -> bool:
        """Whether it was answered that its data are complete, and nothing since put that in doubt."""
        return self.states == {State.AVAILABLE}

    @property
    def is_gone(self) -> bool:
        """Whether there is certainly nothing to be seen of it."""
        return self.states <= {State.ABSENT, State.DELETED}


@dataclass(slots=True)
class Ledger:
    """All images of a run."""

    payloads: Payloads
    entries: dict[str, Entry] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, name: str, *, size: int, id: str | None = None) -> Entry:
        """Begin an entry, before the first request about it goes out."""
        entry = Entry(name=name, size=size, id=id)
        with self._lock:
            self.entries[name] = entry
        return entry

    def data_of(self, entry: Entry) -> bytes:
        """What the image's data are to be."""
        return self.payloads.of(entry.name, entry.size)

    def settle(self, listed: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Hold what is listed (by name) against what may be; give what is wrong, in words, and settle what was open."""
        wrong = [f"{name} was never sent, and is listed" for name in listed if name not in self.entries]
        for entry in self.entries.values():
            wrong += self._settle(entry, listed.get(entry.name))
        return wrong

    def _settle(self, entry: Entry, image: Mapping[str, Any] | None) -> list[str]:
        if image is None:
            gone = entry.states & {State.ABSENT, State.DELETED}
            if not gone:
                return [f"{entry.name} is gone; it may be {_words(entry.states)}"]
            entry.states = gone
            return []
        found = image["status"]
        if found not in entry.states - {State.ABSENT, State.DELETED}:
            return [f"{entry.name} is {found}; it may be {_words(entry.states)}"]
        wrong = []
        entry.became(State(found))
        entry.id = str(image["id"])
        note = image["properties"].get(NOTE)
        if note not in entry.notes:
            wrong.append(f"{entry.name} has the note {note!r}; it may be {_words(entry.notes)}")
        entry.noted(note)
        if found == State.AVAILABLE and int(image["size"]) != entry.size:
            wrong.append(f"{entry.name} has {image['size']} bytes, not {entry.size}")
        return wrong

    def forget_the_gone(self) -> None:
        """Drop what was seen to be gone; should it come back, it is an image that was never sent."""
        self.entries = {name: entry for name, entry in self.entries.items() if not entry.is_gone}

    def available(self) -> list[Entry]:
        """The images that are there with their data, once all is settled."""
        return [entry for entry in self.entries.values() if entry.is_known_available]


def _words(values: frozenset[Any]) -> str:
    return " or ".join(sorted(str(value) for value in values))

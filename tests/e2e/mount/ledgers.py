# SPDX-License-Identifier: Apache-2.0
"""What the writers of a mount were promised, and what is there.

Answers for reading the ledgers of `busy_writer`, and for holding a folder against them. A change that was under way
when the mount died may have happened or not, but never by half.

Threading: a `Promises` belongs to one thread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path


def digest_of_file(path: Path) -> str:
    """Read a file to its end."""
    with path.open("rb") as file:
        digest = sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
    return f"sha256:{digest.hexdigest()}"


@dataclass(slots=True)
class Promises:
    """What may be in a folder, by all ledgers so far."""

    may_hold: dict[str, set[str | None]] = field(default_factory=dict)
    """By name: what may be there; exactly one thing where nothing was under way."""
    kept: int = 0
    """How many promises were made."""

    def read(self, ledger: Path) -> None:
        """Take in what a writer was promised."""
        for line in ledger.read_text().splitlines() if ledger.exists() else ():
            said = json.loads(line)
            for name, digest in said["names"].items():
                before = self.may_hold.setdefault(name, {None})
                self.may_hold[name] = {digest} if said["done"] else before | {digest}
            self.kept += said["done"]

    def hold_against(self, held: Mapping[str, str], *, told: str) -> None:
        """Make sure that this is there and nothing else, and take it for settled. ``told`` is printed if not."""
        wrong = {name: (held.get(name), may) for name, may in self.may_hold.items() if held.get(name) not in may}
        assert not wrong, f"{wrong}\n{told}"
        assert held.keys() <= self.may_hold.keys()
        self.may_hold = {name: {held.get(name)} for name in self.may_hold}

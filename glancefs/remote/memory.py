# SPDX-License-Identifier: Apache-2.0
"""What names meant when the server was asked last, for the time in which it is away.

Answers for finding again what was found before, so that what is in a cache can be opened without the server. Nothing
here is ever said while the server answers, and what it told as changed is forgotten.

Threading: may be used from many threads at once.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Final

from glancefs.registries.base import Changes
from glancefs.registries.folders import Found

MOST: Final = 10_000
"""How many names are remembered; the one that was asked for longest ago is forgotten first."""


class Remembered:
    """The latest answers, by name."""

    def __init__(self, *, most: int = MOST) -> None:
        self._most: Final = most
        self._lock: Final = Lock()
        self._found: Final[OrderedDict[str, Found]] = OrderedDict()

    def note(self, name: str, found: Found) -> None:
        """Take note of an answer; one that nothing is there is none."""
        with self._lock:
            self._found.pop(name, None)
            if found.image is None and found.folder is None:
                return
            self._found[name] = found
            while len(self._found) > self._most:
                self._found.popitem(last=False)

    def recall(self, name: str) -> Found | None:
        """Give what a name meant; None where that is not known."""
        with self._lock:
            return self._found.get(name)

    def forget(self, changes: Changes) -> None:
        """Forget what has changed: images wherever they were and are, and folders with all that was said of them."""
        if not changes.images and not changes.folders:
            return
        ids = {image.id for image in changes.images}
        names = {image.name for image in changes.images} | {folder.path for folder in changes.folders}
        with self._lock:
            for name in [
                name
                for name, found in self._found.items()
                if name in names or (found.image is not None and found.image.id in ids)
            ]:
                del self._found[name]

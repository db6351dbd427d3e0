# SPDX-License-Identifier: Apache-2.0
"""Every call of a registry by its name, as a remote one takes it: derived from the protocols, so that it can't differ.

Answers for which calls there are, which of them change something, and what their arguments and answers are as JSON; and
for deriving the calls of other protocols in the same way (`calls_of`). Knows nothing of HTTP.

Threading: built at the first use, and only read afterwards.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, get_type_hints

from glancefs.registries.base import Registry
from glancefs.registries.dead_properties import DeadPropertyRegistry
from glancefs.registries.folders import FolderRegistry
from glancefs.registries.locks import LockRegistry
from glancefs.registries.values import Reader, fields_reader, reader_of

ROOMS: Final[Mapping[str, type]] = {
    "": Registry,
    "folders": FolderRegistry,
    "locks": LockRegistry,
    "dead_properties": DeadPropertyRegistry,
}
"""The protocols, by the property of the registry that has them; empty for the registry itself."""

CHANGES: Final[frozenset[str]] = frozenset(
    {
        *("add", "replace", "delete"),
        *("locks/acquire", "locks/refresh", "locks/release", "locks/forget", "dead_properties/change"),
        *("folders/add_folder", "folders/set_folder_mtime", "folders/remove_folder", "folders/move_folder"),
    }
)
"""The calls that change something; all others may be repeated at will."""

LONG: Final[frozenset[str]] = frozenset({"folders/move_folder"})
"""The calls whose time grows with what there is."""

_OWN: Final = frozenset({"close", "wait_for_change"})
"""What a registry does for its own process alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call."""

    name: str
    """``METHOD``, or ``ROOM/METHOD``."""
    arguments: Reader
    """Reads the object of the arguments into a dictionary."""
    answer: Reader
    gives: object
    """The type of the answer."""
    unsaid: frozenset[str] = frozenset()
    """The arguments that the caller does not say, since the other end knows them."""
    changes: bool = False
    """Whether it changes something."""
    is_long: bool = False
    """Whether its time grows with what there is."""

    def on(self, holder: object, arguments: Mapping[str, Any]) -> Any:  # noqa: ANN401 - calls differ
        """Make it on what has the protocols, in this process."""
        room, _, method = self.name.rpartition("/")
        return getattr(getattr(holder, room) if room else holder, method)(**arguments)


@cache
def every_call() -> Mapping[str, Call]:
    """Give all calls of a registry by their names."""
    return calls_of(ROOMS, changes=CHANGES, long=LONG, own=_OWN)


def calls_of(
    rooms: Mapping[str, type],
    *,
    changes: Collection[str],
    long: Collection[str] = (),
    own: Collection[str] = (),
    unsaid: Collection[str] = (),
) -> Mapping[str, Call]:
    """Derive the calls of protocols by their names, those of ``own`` methods left out."""
    return {
        call.name: call
        for room, protocol in rooms.items()
        for call in _calls_of(room, protocol, changes=changes, long=long, own=frozenset(own), unsaid=frozenset(unsaid))
    }


def _calls_of(
    room: str,
    protocol: type,
    *,
    changes: Collection[str],
    long: Collection[str],
    own: frozenset[str],
    unsaid: frozenset[str],
) -> Iterator[Call]:
    for method, function in inspect.getmembers(protocol, inspect.isfunction):
        if method.startswith("_") or method in own:
            continue
        name = f"{room}/{method}" if room else method
        hints = get_type_hints(function)
        gives = hints.pop("return")
        yield Call(
            name=name,
            arguments=fields_reader(
                {argument: reader_of(kind) for argument, kind in hints.items() if argument not in unsaid},
                required=_required(function) - unsaid,
                name=f"The call {name!r}",
            ),
            answer=reader_of(gives, is_lenient=True),
            gives=gives,
            unsaid=unsaid & hints.keys(),
            changes=name in changes,
            is_long=name in long,
        )


def _required(function: Any) -> frozenset[str]:  # noqa: ANN401 - what inspect calls a function
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return frozenset(one.name for one in parameters if one.default is inspect.Parameter.empty)

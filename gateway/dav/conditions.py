# SPDX-License-Identifier: Apache-2.0
"""What a request says is to hold before it is carried out: the ``If`` header (RFC 4918, section 10.4).

Answers for reading it strictly, also where lists are written without spaces or name other resources, and for holding it
against entity tags and locks. The tokens in it, and nothing else, are those that the caller submits. The conditions of
HTTP itself are `gateway.conditions`.

Threading: pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from wsgidav.dav_error import DAVError

MOST_CONDITIONS: Final = 200

_PIECE = re.compile(
    r'\s*(?:<(?P<token>[^<>\s]+)>|\[(?P<etag>(?:W/)?"[^"\x00-\x1f]*")\]|(?P<word>[Nn][Oo][Tt]\b)|(?P<mark>[()]))'
)


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition: a state token or an entity tag."""

    token: str | None
    etag: str | None
    is_negated: bool

    def holds(self, *, tokens: Collection[str], etag: str | None) -> bool:
        """Say whether it holds for a resource with these locks and this entity tag."""
        found = self.token in tokens if self.token is not None else (self.etag is not None and self.etag == etag)
        return found is not self.is_negated


@dataclass(frozen=True, slots=True)
class ConditionList:
    """Conditions that must all hold for one resource."""

    url: str | None
    """Which; None: that of the request."""
    conditions: tuple[Condition, ...]


State = Callable[[str | None], tuple[Collection[str], str | None]]
"""Gives the tokens of the locks on the resource of a URL (None: the request's) and its entity tag."""


def parsed_if(header: str | None) -> Sequence[ConditionList]:
    """Read an ``If`` header; nothing for none. Raises DAVError (400) for a malformed one."""
    if header is None:
        return ()
    pieces = list(_pieces(header))
    is_tagged = bool(pieces) and pieces[0].lastgroup == "token"
    lists: list[ConditionList] = []
    url: str | None = None
    position = 0
    while position < len(pieces):
        piece = pieces[position]
        if piece.lastgroup == "token" and is_tagged:
            url = piece["token"]
            position += 1
            piece = pieces[position] if position < len(pieces) else piece
        if piece["mark"] != "(":
            raise _malformed()
        conditions, position = _conditions(pieces, position + 1)
        lists.append(ConditionList(url, conditions))
    if not lists:
        raise _malformed()
    return lists


def _conditions(pieces: Sequence[re.Match[str]], position: int) -> tuple[tuple[Condition, ...], int]:
    """Read the conditions of one list; give them, and where the list ends."""
    conditions: list[Condition] = []
    is_negated = False
    for number, piece in enumerate(pieces[position:], start=position):
        if piece["mark"] == ")" and conditions and not is_negated:
            return tuple(conditions), number + 1
        if piece["mark"] is not None or (piece["word"] is not None and is_negated):
            break
        if piece["word"] is None:
            conditions.append(Condition(piece["token"], piece["etag"], is_negated))
        is_negated = piece["word"] is not None
    raise _malformed()


def submitted_tokens(lists: Sequence[ConditionList]) -> frozenset[str]:
    """Give the state tokens that are named, wherever."""
    return frozenset(
        condition.token for listed in lists for condition in listed.conditions if condition.token is not None
    )


def check_if(lists: Sequence[ConditionList], state: State) -> None:
    """Raise DAVError (412) unless all conditions of one of the lists hold."""
    if not lists:
        return
    known: dict[str | None, tuple[Collection[str], str | None]] = {}
    for listed in lists:
        if listed.url not in known:
            known[listed.url] = state(listed.url)
        tokens, etag = known[listed.url]
        if all(condition.holds(tokens=tokens, etag=etag) for condition in listed.conditions):
            return
    raise DAVError(HTTPStatus.PRECONDITION_FAILED, "What the If header asks for does not hold.")


def _pieces(header: str) -> Iterator[re.Match[str]]:
    position, end, count = 0, len(header.rstrip()), 0
    while position < end:
        piece = _PIECE.match(header, position, end)
        count += 1
        if piece is None or count > MOST_CONDITIONS:
            raise _malformed()
        yield piece
        position = piece.end()


def _malformed() -> DAVError:
    return DAVError(HTTPStatus.BAD_REQUEST, "The If header is malformed.")

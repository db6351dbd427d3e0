# SPDX-License-Identifier: Apache-2.0
"""Requests that wait for something to happen in this process, without a thread.

Answers for the bell by which the application has such a request answered. Where it waits, the connection and the
selector know.

Threading: a bell may be rung by any thread, and more than once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.http.connection import Connection


class Bell:
    """Wakes one waiting request; ringing for one that has been answered does nothing."""

    __slots__ = ("_connection", "_turn")

    def __init__(self, connection: Connection, *, turn: int) -> None:
        self._connection = connection
        self._turn = turn

    @property
    def is_wanted(self) -> bool:
        """Whether the request still waits for this bell."""
        return self._connection.waiting_turn == self._turn

    def ring(self) -> None:
        """Have the application called anew, soon."""
        if self.is_wanted:
            self._connection.rung = True
            self._connection.engine.parking.ring(self._connection)

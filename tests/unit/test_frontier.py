# SPDX-License-Identifier: Apache-2.0
"""How far a growing file can be relied on: `glancefs.frontier`.

Threading: none.
"""

from __future__ import annotations

import pytest

from glancefs.frontier import Frontier


def wrote(frontier: Frontier, start: int, stop: int) -> None:
    frontier.begin_write(start)
    frontier.end_write(start, stop)


@pytest.mark.parametrize("frontier", [Frontier(), Frontier(is_strict=True)])
def test_what_is_written_in_a_run_can_be_taken_piece_by_piece(frontier: Frontier) -> None:
    wrote(frontier, 0, 10)
    assert frontier.take(4) == (0, 4)
    assert frontier.take(100) == (4, 10)
    assert frontier.take(100) == (10, 10)
    wrote(frontier, 10, 12)
    assert (frontier.take(100), frontier.is_valid) == ((10, 12), True)


def test_nothing_behind_a_write_that_is_under_way_is_reliable() -> None:
    frontier = Frontier()
    wrote(frontier, 0, 10)
    frontier.begin_write(5)
    frontier.begin_write(5)
    assert frontier.take(100) == (0, 5)
    frontier.end_write(5, 8)
    assert frontier.reliable == 5
    frontier.end_write(5, 20)
    assert frontier.take(100) == (5, 20)
    assert frontier.is_valid


def test_what_was_taken_is_void_once_it_is_written_anew() -> None:
    frontier = Frontier()
    wrote(frontier, 0, 10)
    frontier.take(5)
    found = []
    for offset in (5, 4):
        frontier.begin_write(offset)
        found.append(frontier.is_valid)
    assert found == [True, False]
    frontier.start_anew()
    assert (frontier.is_valid, frontier.taken) == (True, 0)


def test_what_was_taken_is_void_once_it_is_cut_off() -> None:
    frontier = Frontier()
    wrote(frontier, 0, 10)
    frontier.take(5)
    found = []
    for size in (20, 5, 4):
        frontier.cut(size)
        found.append((frontier.is_valid, frontier.reliable))
    assert found == [(True, 10), (True, 5), (False, 4)]


def test_a_strict_one_stops_where_something_is_left_out() -> None:
    strict, lenient = Frontier(is_strict=True), Frontier()
    for frontier in (strict, lenient):
        wrote(frontier, 0, 10)
        wrote(frontier, 11, 20)
    assert (strict.reliable, lenient.reliable) == (10, 20)
    wrote(strict, 10, 11)
    assert strict.reliable == 11

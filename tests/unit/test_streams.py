# SPDX-License-Identifier: Apache-2.0
"""Reading ahead: runs are told from jumps, and what is asked for ahead is never more than what was read."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glancefs.streams import GRANULE, Ahead, Streams, ceiling, floor

KIB = 1 << 10
MIB = 1 << 20
BIG = 64 << 30


def run(streams: Streams, start: int, count: int, step: int = 128 * KIB) -> list[Ahead]:
    """Read in a run; gives what was asked for ahead."""
    asked = [streams.note(start + number * step, start + (number + 1) * step) for number in range(count)]
    return [ahead for ahead in asked if ahead is not None]


def test_positions_are_rounded_to_granules() -> None:
    assert (floor(GRANULE - 1), floor(GRANULE), ceiling(1), ceiling(GRANULE)) == (0, GRANULE, GRANULE, GRANULE)


def test_the_first_read_asks_for_nothing_ahead() -> None:
    assert Streams(size=BIG, most_ahead=32 * MIB).note(0, MIB) is None


def test_a_run_is_read_ahead_of_further_and_further_up_to_the_most() -> None:
    streams = Streams(size=BIG, most_ahead=32 * MIB)
    asked = run(streams, 5 * MIB, 1000)
    windows = [ahead.window for ahead in asked]
    assert windows == sorted(windows)
    assert windows[0] <= 256 * KIB
    assert windows[-1] == 32 * MIB
    assert [ahead.start for ahead in asked[1:]] == [ahead.stop for ahead in asked[:-1]]
    assert len(asked) < 100


def test_a_run_of_small_reads_is_one_too() -> None:
    asked = run(Streams(size=BIG, most_ahead=32 * MIB), 0, 4096, step=4 * KIB)
    assert asked[-1].window >= 8 * MIB


def test_jumps_ask_for_nothing() -> None:
    streams = Streams(size=BIG, most_ahead=32 * MIB)
    places = random.Random(3).sample(range(BIG // 4096), 10_000)
    asked = [streams.note(place * 4096, (place + 1) * 4096) for place in places]
    assert [ahead for ahead in asked if ahead is not None] == []


def test_after_a_jump_a_run_begins_small_again() -> None:
    streams = Streams(size=BIG, most_ahead=32 * MIB)
    run(streams, 0, 1000)
    asked = run(streams, 30 << 30, 4)
    assert max(ahead.window for ahead in asked) <= MIB


@pytest.mark.parametrize("count", [2, 5, 12])
def test_runs_that_take_turns_are_each_recognized_and_share_what_there_is(count: int) -> None:
    streams = Streams(size=BIG, most_ahead=32 * MIB)
    asked: dict[int, list[Ahead]] = {number: [] for number in range(count)}
    for step in range(500):
        for number in range(count):
            start = (number << 30) + step * 128 * KIB
            ahead = streams.note(start, start + 128 * KIB)
            if ahead is not None:
                asked[number].append(ahead)
    for number in range(count):
        assert asked[number][-1].stop > (number << 30) + 500 * 128 * KIB
    last = [asked[number][-1].window for number in range(count)]
    assert 16 * MIB <= sum(last) <= 32 * MIB


def test_a_run_beside_random_reads_goes_on() -> None:
    streams = Streams(size=BIG, most_ahead=32 * MIB)
    chance = random.Random(4)
    last = None
    for step in range(1000):
        last = streams.note(step * 128 * KIB, (step + 1) * 128 * KIB) or last
        place = chance.randrange(1 << 30, BIG) & -4096
        streams.note(place, place + 4096)
    assert last is not None
    assert last.window == 32 * MIB


def test_requests_of_a_run_that_overtake_each_other_do_not_end_it() -> None:
    streams = Streams(size=BIG, most_ahead=32 * MIB)
    order = [number + 1 if number % 2 == 0 else number - 1 for number in range(200)]
    asked = [streams.note(number * 64 * KIB, (number + 1) * 64 * KIB) for number in order]
    assert [ahead for ahead in asked if ahead is not None][-1].window >= 4 * MIB


def test_nothing_is_asked_for_behind_the_end() -> None:
    asked = run(Streams(size=3 * MIB + 5, most_ahead=32 * MIB), 0, 24)
    assert asked[-1].stop == 3 * MIB + 5


def test_where_nothing_is_to_be_read_ahead_nothing_is() -> None:
    assert run(Streams(size=BIG, most_ahead=0), 0, 1000) == []


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(1, 40), st.integers(1, 40)), max_size=40),
    st.integers(0, 64),
)
def test_what_is_asked_for_and_not_wanted_is_never_more_than_what_was_read(
    runs: list[tuple[int, int, int]], most_granules: int
) -> None:
    size = 300 * 40 * 8 * KIB
    streams = Streams(size=size, most_ahead=most_granules * GRANULE)
    read = asked = 0
    for place, count, pages in runs:
        start, step = place * 8 * KIB * 40, pages * 4 * KIB
        for number in range(count):
            stop = min(size, start + (number + 1) * step)
            if stop <= start + number * step:
                break
            ahead = streams.note(start + number * step, stop)
            read += stop - start - number * step
            if ahead is not None:
                assert stop - GRANULE <= ahead.start < ahead.stop <= size
                assert ahead.stop - stop <= max(most_granules * GRANULE, GRANULE)
                asked += ahead.stop - ahead.start
    # What a run read, and as much again.
    assert asked <= 2 * read

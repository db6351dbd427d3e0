# SPDX-License-Identifier: Apache-2.0
"""What `glancefs up` shows: pictures that fit every terminal, rates, and spans of time.

Threading: none.
"""

from __future__ import annotations

import time

import pytest
from rich.cells import cell_len

from glancefs.cli.happenings import Happenings, Held, Rate, span
from glancefs.cli.screen import clock, frame
from glancefs.config import wants_plain_text, with_tilde
from glancefs.reporting import Sample, Transfer


def transfer(
    key: int, *, name: str = "an image", done: int = 50, size: int | None = 100, outcome: str = ""
) -> Transfer:
    return Transfer(key=key, name=name, is_upload=True, done=done, size=size, seconds=10.0 - key, outcome=outcome)


def state(transfers: int, *, past: int = 0) -> Happenings:
    """Something going on at every door."""
    made = Happenings(title="glancefs 1 at http://127.0.0.1:9292", data="/srv/" + "d" * 100)
    made.addresses += [("images", "http://127.0.0.1:9292/images/"), ("files", "/mnt/日本語" * 10)]
    made.remarks.append("Everybody is the admin `local`; this machine's users reach it. " * 3)
    made.held = Held(images=3, size=1 << 40, waiting=2, free=1 << 30)
    names = ("short", "a name that goes on and on " * 4, "日本語の名前" * 8, "escape \x1b[2J", "\udcff")
    under_way = [transfer(n, name=names[n % len(names)], size=None if n % 3 else 1000) for n in range(transfers)]
    made.take(1, Sample(under_way=under_way, read=1), time.monotonic())
    for number in range(past):
        made.add(f"something {number}", is_bad=number % 2 == 0)
    return made


@pytest.mark.parametrize("height", [1, 2, 3, 6, 10, 16, 24, 60])
@pytest.mark.parametrize("width", [2, 10, 24, 40, 79, 80, 200])
@pytest.mark.parametrize("is_ascii", [True, False])
def test_a_picture_fits_whatever_it_is_drawn_on(width: int, height: int, *, is_ascii: bool) -> None:
    for transfers, past in ((0, 0), (1, 0), (3, 2), (5, 30), (100, 200)):
        lines = frame(state(transfers, past=past), width=width, height=height, is_ascii=is_ascii)
        assert len(lines) == height
        assert max(cell_len(line.plain) for line in lines) <= max(1, width - 1)
        assert all(line.plain.isprintable() for line in lines)


def test_with_little_room_what_changes_is_shown_and_the_rest_is_counted() -> None:
    large = "\n".join(line.plain for line in frame(state(2, past=2), width=100, height=30))
    assert "dav" not in large
    assert "  data " in large
    assert "↑ short" in large
    assert "something 1" in large
    small = "\n".join(line.plain for line in frame(state(20), width=60, height=12))
    assert "  data " not in small
    assert "↑ short" in small
    assert "more" in small


def test_names_give_way_before_numbers_do() -> None:
    made = Happenings(title="", data="")
    made.take(1, Sample(under_way=[transfer(1, name="n" * 100, done=1 << 20, size=4 << 20)]), time.monotonic())
    (line,) = (line.plain for line in frame(made, width=60, height=10) if "↑" in line.plain)
    assert "…" in line
    assert "1.0 MiB of 4.0 MiB" in line


def test_a_rate_is_that_of_the_last_seconds() -> None:
    rate = Rate()
    assert rate.at(0.0) == 0
    for second in range(10):
        rate.note(float(second), second * 100)
    assert rate.at(9.0) == 100
    for second in range(10, 20):
        rate.note(float(second), 900 + (second - 9) * 10)
    assert rate.at(19.0) == 10
    assert rate.at(30.0) == 0
    rate.note(31.0, 5)
    assert rate.at(31.0) == 0


def test_transfers_end_by_what_is_said_of_them_and_by_silence() -> None:
    made = Happenings(title="", data="")
    made.take(1, Sample(under_way=[transfer(1), transfer(2)]), 100.0)
    made.take(2, Sample(under_way=[transfer(1)]), 100.0)
    assert len(made.transfers()) == 3
    happened = made.take(1, Sample(under_way=[transfer(2)], ended=[transfer(1, outcome="done")]), 101.0)
    assert [one.text for one in happened] == ["upload of an image: 50 B in 9.0 s, 5 B/s"]
    made.take(1, Sample(ended=[transfer(2, outcome="failed")]), 101.0)
    assert made.past[-1].is_bad
    assert len(made.transfers()) == 1
    made.forget(105.0)
    assert made.transfers() == []
    assert made.summary().endswith(": 1 upload (50 B).")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (61, "1 min 1 s"), (7500, "2 h 5 min"), (90000, "1 d 1 h")]
)
def test_spans_are_said_in_two_units(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_a_clock_counts_minutes_and_then_hours() -> None:
    assert [clock(seconds) for seconds in (0, 5.4, 65, 3725)] == ["0:00", "0:05", "1:05", "1:02:05"]


def test_a_home_is_written_as_people_write_it() -> None:
    home = {"HOME": "/srv/ann"}
    assert with_tilde("/srv/ann/images", home) == "~/images"
    assert with_tilde("/srv/anna/images", home) == "/srv/anna/images"
    assert with_tilde("/images", {}) == "/images"


def test_who_wants_no_colour_or_has_no_terminal_to_speak_of_gets_lines() -> None:
    assert not wants_plain_text({"TERM": "xterm"})
    assert not wants_plain_text({"TERM": "xterm", "NO_COLOR": ""})
    assert wants_plain_text({"TERM": "xterm", "NO_COLOR": "1"})
    assert wants_plain_text({"TERM": "dumb"})
    assert wants_plain_text({})

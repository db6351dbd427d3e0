# SPDX-License-Identifier: Apache-2.0
"""What is going on at the doors, on a whole terminal; loaded only where there is one.

Answers for how it looks: at any size, with names that give way before numbers do, and drawn over what was there, so
that nothing flickers. It is the terminal's other screen, so what was there before comes back at the end.

Threading: used by the main thread; nothing is drawn but by `show`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from glancefs.cli.happenings import Happenings, Moving
from glancefs.cli.text import human_size, visible

_LABEL: Final = 9
_NARROWEST_NAME: Final = 12
_WIDEST_NAME: Final = 40
_BAR: Final = 20
_GAP: Final = 2
_FEWEST_PAST: Final = 3
"""Lines that what has happened gets at the least, if there is room for transfers beside."""
_LEAST_BELOW: Final = 6
"""Lines that transfers and what has happened need below the rest."""
_LESSER: Final = "default"
"""The style of lines that are left out where there is no room; it changes nothing."""
_HOUR: Final = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """What can be said of a transfer."""

    arrow: str
    name: str
    cells: tuple[str, str, str]
    """How much, how fast, how long still; the last are the first to be left out."""
    part: float | None
    """How much of it is done, where that is known."""


class Screen:
    """A terminal that shows the state of things."""

    def __init__(self) -> None:
        self._console: Final = Console(highlight=False)
        self._live: Final = Live(
            console=self._console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._shown: tuple[object, ...] = ()

    def open(self) -> None:
        """Take the terminal."""
        self._shown = ()
        self._live.start()

    def close(self) -> None:
        """Give it back as it was; may be called twice."""
        self._live.stop()

    def show(self, state: Happenings) -> None:
        """Draw, if anything has changed."""
        width, height = self._console.size
        lines = frame(state, width=width, height=height, is_ascii=self._console.options.ascii_only)
        shown = (width, height, *(line.markup for line in lines))
        if shown != self._shown:
            self._shown = shown
            self._live.update(Group(*lines), refresh=True)


def frame(state: Happenings, *, width: int, height: int, is_ascii: bool = False) -> list[Text]:
    """Give the lines of the picture, none of them wider, nor more of them, than said."""
    now = time.monotonic()
    moving, past = state.transfers(), list(state.past)
    head = _head(state, now, width)
    if height < len(head) + _LEAST_BELOW:
        # What does not change gives way to what does.
        head = [line for line in head if line.style != _LESSER]
    room = max(0, height - 1 - len(head))
    for_past = min(len(past), max(_FEWEST_PAST if room > _LEAST_BELOW else 0, room - len(moving) - 2))
    for_moving = max(0, room - for_past - (1 if for_past else 0) - 1)
    shown = moving if len(moving) <= for_moving else moving[: max(0, for_moving - 1)]
    body = list(_moving_lines([_texts(one, now, is_ascii=is_ascii) for one in shown], width))
    if len(shown) < len(moving):
        body.append(Text(f"  {'and ' if shown else ''}{len(moving) - len(shown)} {'more' if shown else 'transfers'}"))
    if body and for_past:
        body.append(Text(""))
    body += [Text(f"  {one}", style="red" if one.is_bad else "dim") for one in past[len(past) - for_past :]]
    lines = [*head, *([Text("")] if len(body) < room else []), *body][: height - 1]
    lines += [Text("")] * (height - 1 - len(lines))
    lines.append(_foot(state))
    for line in lines:
        line.no_wrap = True
        # One column stays free: some terminals begin a new line when the last one is written.
        if line.cell_len >= width:
            line.truncate(max(1, width - 1), overflow="crop" if is_ascii else "ellipsis")
    return lines


def _head(state: Happenings, now: float, width: int) -> list[Text]:
    """Give what is always to be seen; lines of the style `_LESSER` only where there is room."""
    lines = [Text(f" {state.title}", style="bold"), Text("", style=_LESSER)]
    for name, address in state.addresses:
        line = Text.assemble("  ", (f"{name:{_LABEL}}", "dim"), (visible(address), "cyan"))
        line.style = "" if name == "files" else _LESSER
        rate = state.reading.at(now) if name == "files" else 0
        if rate:
            line.append(f"  reading {human_size(rate)}/s", style="green")
        lines.append(line)
    line = Text.assemble("  ", (f"{'data':{_LABEL}}", "dim"), visible(state.data))
    line.style = _LESSER
    lines.append(line)
    held = state.held
    if held is not None:
        said = f"{held.images} image{'' if held.images == 1 else 's'}, {human_size(held.size)}"
        if held.waiting:
            said += f"; {held.waiting} waiting for data"
        if held.free is not None:
            said += f"; {human_size(held.free)} free"
        lines.append(Text.assemble("  ", (f"{'holds':{_LABEL}}", "dim"), said))
    for remark in state.remarks:
        for text in wrap(visible(remark), max(_LABEL, width - 4)):
            line = Text.assemble("  ", (text, "yellow"))
            line.style = _LESSER
            lines.append(line)
    return lines


def _foot(state: Happenings) -> Text:
    if not state.is_ending:
        return Text(" Ctrl-C ends it", style="dim")
    count = len(state.moving)
    waiting = f"; {count} transfer{'' if count == 1 else 's'} may still end" if count else ""
    return Text(f" Ending{waiting}. Ctrl-C again ends at once", style="yellow")


def _texts(moving: Moving, now: float, *, is_ascii: bool) -> _Row:
    """Give what can be said of a transfer."""
    transfer = moving.transfer
    arrows = ("up", "dn") if is_ascii else ("↑", "↓")
    rate = moving.rate.at(now)
    part = None
    much, left = human_size(transfer.done), ""
    if transfer.size:
        part = min(1.0, transfer.done / transfer.size)
        much = f"{human_size(transfer.done)} of {human_size(transfer.size)}"
        left = clock((transfer.size - transfer.done) / rate) if rate else "-:--"
    arrow = arrows[0] if transfer.is_upload else arrows[1]
    return _Row(arrow=arrow, name=visible(transfer.name), cells=(much, f"{human_size(rate)}/s", left), part=part)


def _moving_lines(rows: Sequence[_Row], width: int) -> Iterator[Text]:
    """Give a line for each transfer, in columns; what finds no room is left out: the bar, the time, the rate."""
    if not rows:
        return
    is_ascii = rows[0].arrow.isascii()
    names = max(_NARROWEST_NAME, min(_WIDEST_NAME, max(cell_len(row.name) for row in rows)))
    room = width - 1 - len("  ") - len(rows[0].arrow) - len(" ")
    cells = [max(len(row.cells[at]) for row in rows) + _GAP for at in range(len(rows[0].cells))]
    bar = _BAR + len(" 100%")
    while cells and (excess := names + bar + sum(cells) - room) > 0:
        if names > _NARROWEST_NAME:
            names = max(_NARROWEST_NAME, names - excess)
        elif bar:
            bar = 0
        else:
            cells.pop()
    for row in rows:
        name = row.name
        if cell_len(name) > names:
            name = set_cell_size(name, names - 1).rstrip() + ("~" if is_ascii else "…")
        line = Text.assemble("  ", (row.arrow, "green" if row.arrow in {"↑", "up"} else "blue"), " ")
        line.append(name + " " * (names - cell_len(name)))
        if bar:
            line.append_text(_bar(row.part, bar, is_ascii=is_ascii))
        for text, size in zip(row.cells, cells, strict=False):
            line.append(f"{text:>{size}}")
        line.rstrip()
        yield line


def _bar(part: float | None, width: int, *, is_ascii: bool) -> Text:
    if part is None:
        return Text(" " * width)
    room = width - len("  ") - len(" 100%")
    full = round(part * room)
    done, rest = ("#", ".") if is_ascii else ("━", "─")
    return Text.assemble("  ", (done * full, "green"), (rest * (room - full), "dim"), f"{int(part * 100):4}%")


def clock(seconds: float) -> str:
    """Say how long something will take, as clocks do: ``1:05``."""
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    if whole < _HOUR:
        return f"{minutes}:{rest:02}"
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"

# SPDX-License-Identifier: Apache-2.0
"""Aligned tables on a terminal; loaded only where there is one.

Answers for widths: of wide characters too, and of a terminal that is too narrow for everything, where names give way
and nothing else. Colour is rich's to decide: it respects NO_COLOR and terminals that have none.

Threading: used by the main thread.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from glancefs.cli.text import Column

_GAP: Final = 2
_NARROWEST: Final = 8
_STYLES: Final = {"queued": "yellow", "saving": "yellow", "killed": "red", "public": "green", "admin": "green"}


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, head: bool) -> None:
    """Print a table, with its titles if ``head``."""
    console = Console(file=sys.stdout, highlight=False)
    titles = [[column.title for column in columns]] if head else []
    widths = _widths(columns, [*titles, *rows], room=console.width)
    for title in titles:
        _print(console, Text(_line(columns, title, widths), style="bold"))
    for row in rows:
        text = Text(end="")
        for index, (column, cell, width) in enumerate(zip(columns, row, widths, strict=True)):
            text.append(_fitted(column, cell, width), style=_STYLES.get(cell, ""))
            text.append(" " * (_GAP if index < len(row) - 1 else 0))
        text.rstrip()
        _print(console, text)


def _print(console: Console, text: Text) -> None:
    # Lines that are too long anyway go on in the next, as the terminal does it; nothing is lost.
    console.print(text, no_wrap=True, overflow="ignore", crop=False, soft_wrap=True)


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, room: int) -> list[int]:
    widths = [max(map(cell_len, cells)) for cells in zip(*rows, strict=True)]
    excess = sum(widths) + _GAP * (len(widths) - 1) - room
    while excess > 0:
        able = [at for at, column in enumerate(columns) if column.is_name and widths[at] > _NARROWEST]
        if not able:
            break
        widest = max(able, key=lambda at: widths[at])
        cut = min(excess, widths[widest] - _NARROWEST, max(1, excess // len(able)))
        widths[widest] -= cut
        excess -= cut
    return widths


def _line(columns: Sequence[Column], row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (_fitted(column, cell, width) for column, cell, width in zip(columns, row, widths, strict=True))
    return (" " * _GAP).join(cells).rstrip()


def _fitted(column: Column, cell: str, width: int) -> str:
    if cell_len(cell) > width:
        return set_cell_size(cell, width - 1) + "…"
    padding = " " * (width - cell_len(cell))
    return padding + cell if column.is_size else cell + padding

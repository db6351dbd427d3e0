# SPDX-License-Identifier: Apache-2.0
"""The bar of a transfer, with its rate and the time that is left.

Answers for how a transfer looks on a terminal; loaded only where there is one.

Threading: a bar is drawn by a thread of its own and may be moved from any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from glancefs.cli.text import human_size


class _Rate(ProgressColumn):
    """The rate, in the units of everything else."""

    def render(self, task: Task) -> Text:
        """Give the rate of the last seconds."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{human_size(int(speed))}/s", style="progress.data.speed")


@contextmanager
def bar(label: str, total: int | None, *, done: int) -> Iterator[Callable[[int], None]]:
    """Show a bar while the context lasts; without a total it shows what has passed and for how long."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        _Rate(),
        TimeRemainingColumn() if total is not None else TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(label), total=total, completed=done)
        yield lambda count: progress.advance(task, count)

# SPDX-License-Identifier: Apache-2.0
"""Where results go, and in which form: tables for people, lines for programs, JSON for either.

Answers for the form alone. On a terminal tables are aligned, sizes are rounded and transfers have a bar; into a pipe
the same columns go separated by tabs, sizes in bytes. Whatever others named is made visible first, so that no name can
steer a terminal or break a line.

Threading: used by the main thread; a bar may be moved from any.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

from glancefs.cli.text import KIB, Column, human_size, visible
from glancefs.headers import TIME_FORMAT
from glancefs.model import Image

TABLE_ROWS: Final = 500
"""How many rows share their widths; longer tables go on, so that nothing waits for their end."""

Cell = str | int | bool | datetime | None


IMAGE_COLUMNS: Final = (
    Column(title="ID"),
    Column(title="NAME", is_name=True),
    Column(title="TYPE"),
    Column(title="SIZE", is_size=True),
    Column(title="STATUS"),
    Column(title="VISIBILITY"),
    Column(title="OWNER"),
    Column(title="CREATED"),
)


class Output:
    """Standard output and standard error of one command."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._is_terminal = sys.stdout.isatty()

    def json(self, value: object) -> None:
        """Print a value as JSON; for people indented."""
        # ASCII, so that no terminal and no locale changes what is meant.
        sys.stdout.write(json.dumps(value, indent=2 if self._is_terminal else None) + "\n")

    def json_list(self, values: Iterable[object]) -> None:
        """Print a list as JSON, element by element."""
        separator = "[\n"
        for value in values:
            sys.stdout.write(separator + json.dumps(value))
            separator = ",\n"
        sys.stdout.write("[]\n" if separator == "[\n" else "\n]\n")

    def line(self, text: str) -> None:
        """Print a line."""
        sys.stdout.write(visible(text) + "\n")

    def note(self, text: str) -> None:
        """Tell people something that is no result."""
        sys.stderr.write(visible(text) + "\n")

    def comment(self, text: str) -> None:
        """Tell somebody who sits in front of it, and nobody else, that something went well."""
        if sys.stderr.isatty():
            self.note(text)

    def images(self, images: Iterable[Image]) -> None:
        """Print images, one each line."""
        if self.as_json:
            self.json_list(image_json(image) for image in images)
        else:
            self.table(IMAGE_COLUMNS, map(_image_row, images))

    def image(self, image: Image) -> None:
        """Print everything about one image."""
        if self.as_json:
            self.json(image_json(image))
        else:
            self.fields(_image_fields(image, for_people=self._is_terminal))

    def fields(self, fields: Iterable[tuple[str, Cell]]) -> None:
        """Print names and values."""
        if self._is_terminal:
            self._print_table(
                (Column(title=""), Column(title="")), [[name, value] for name, value in fields], head=False
            )
        else:
            sys.stdout.writelines(f"{visible(name)}\t{_plain(value)}\n" for name, value in fields)

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> None:
        """Print a table: on a terminal with its titles, else line by line."""
        if not self._is_terminal:
            sys.stdout.writelines("\t".join(map(_plain, row)) + "\n" for row in rows)
            return
        waiting = iter(rows)
        head = True
        while block := list(islice(waiting, TABLE_ROWS)):
            self._print_table(columns, block, head=head)
            head = False

    @contextmanager
    def transfer(self, label: str, total: int | None, *, done: int = 0) -> Iterator[Callable[[int], None]]:
        """Show how far something is while the context lasts; gives what is to be told of each step's bytes."""
        if not sys.stderr.isatty():
            yield lambda _: None
            return
        from glancefs.cli.progress import bar

        with bar(visible(label), total, done=done) as advance:
            yield advance

    def _print_table(self, columns: Sequence[Column], rows: Sequence[Sequence[Cell]], *, head: bool) -> None:
        from glancefs.cli.tables import print_table

        texts = [
            [
                human_size(cell) if column.is_size and isinstance(cell, int) else _plain(cell)
                for column, cell in zip(columns, row, strict=True)
            ]
            for row in rows
        ]
        print_table(columns, texts, head=head)


def image_json(image: Image) -> dict[str, Any]:
    """Give an image as JSON shows it: numbers as numbers, what is not set as null."""
    return {
        "id": image.id,
        "name": image.name,
        "type": image.type.value,
        "status": image.status.value,
        "size": image.size,
        "checksum": image.checksum,
        "store": image.store,
        "owner": image.owner,
        "is_public": image.is_public,
        "protected": image.protected,
        "disk_format": image.disk_format,
        "container_format": image.container_format,
        "virtual_size": image.virtual_size,
        "min_disk": image.min_disk,
        "min_ram": image.min_ram,
        "created_at": time_text(image.created_at),
        "updated_at": time_text(image.updated_at),
        "properties": dict(image.properties),
    }


def time_text(time: datetime) -> str:
    """Give a time as every door shows it: UTC, to the second."""
    return (time if time.tzinfo is None else time.astimezone(UTC)).strftime(TIME_FORMAT)


def _image_row(image: Image) -> list[Cell]:
    visibility = "public" if image.is_public else "private"
    return [image.id, image.name, image.type, image.size, image.status, visibility, image.owner, image.created_at]


def _image_fields(image: Image, *, for_people: bool) -> Iterator[tuple[str, Cell]]:
    for name, value in image_json(image).items():
        if name == "properties":
            yield from ((f"property {key}", text) for key, text in value.items())
        elif for_people and name in {"size", "virtual_size"} and value is not None:
            yield name, f"{value} bytes" if value < KIB else f"{human_size(value)} ({value} bytes)"
        elif value is not None or not for_people:
            yield name, value


def _plain(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, datetime):
        return time_text(cell)
    return visible(str(cell))

# SPDX-License-Identifier: Apache-2.0
"""Commands that move data: ``add`` and ``get``.

Answers for names and types that were not said, for where data go, and for showing how far they are.

Threading: used by the main thread.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path
from typing import Any

import click

from glancefs.cli.backend import Backend, image_meant
from glancefs.cli.fields import field_options, said_fields
from glancefs.cli.files import PART, opened, write_file, write_stream
from glancefs.cli.output import Output, image_json
from glancefs.cli.said import Said, pass_said, shared_options
from glancefs.cli.text import human_size, visible
from glancefs.errors import ImageNotFound
from glancefs.formats import detect_type
from glancefs.model import Image, ImageStatus, ImageType, NewImage

STREAM = "-"
LONGEST_FILE_NAME = 255
"""In bytes, on every file system of Linux."""


@click.command()
@shared_options("config", "data", "url", "json", "debug")
@click.argument("files", metavar="FILE...", nargs=-1)
@click.option("--name", help="Its name; by default the file's.")
@click.option("--id", "image_id", help="Its identifier; by default the server gives one.")
@click.option("--store", help="Where its data are kept; by default where the configuration says.")
@click.option("--checksum", metavar="sha256:HEX", help="What the data must be.")
@field_options
@click.option("--quiet", "-q", is_flag=True, help="Print the identifiers alone.")
@pass_said
def add(said: Said, /, *, files: tuple[str, ...], quiet: bool, **given: Any) -> None:  # noqa: ANN401 - whatever click gives
    """Add files as images; FILE - is standard input.

    Without FILE the image is queued, and waits for its data; `glancefs upload` brings them. A type that is not said is
    told by the first bytes: a Linux kernel, a ramdisk, a machine's disk, or raw.
    """
    _check_usage(files, given)
    output = said.output()
    added: list[Image] = []
    with said.backend(makes_registry=True, writes=True) as backend:
        try:
            for file in files or (None,):
                image = _add_queued(backend, given) if file is None else _add_file(backend, output, file, given)
                added.append(image)
                if quiet:
                    output.line(image.id)
                elif not said.json:
                    output.line(_story(image))
        finally:
            # What was added is told also when the next one fails.
            if said.json and not quiet:
                output.json_list(map(image_json, added))


def _check_usage(files: tuple[str, ...], given: dict[str, Any]) -> None:
    single = next((name for name in ("name", "image_id", "checksum") if given[name] is not None), None)
    if len(files) > 1 and single:
        option = "--id" if single == "image_id" else f"--{single}"
        message = f"{option} is said for one image, and there are {len(files)} files."
        raise click.UsageError(message)
    if given["name"] == "":
        raise click.UsageError("An empty name is none.")
    if given["name"] is None and (not files or STREAM in files):
        raise click.UsageError("What has no file has no name: say --name.")
    if not files and given["type"] is None:
        raise click.UsageError("What has no data yet has no type: say --type.")


def _new_image(given: dict[str, Any], *, name: str, kind: ImageType) -> NewImage:
    fields = {key: value for key, value in given.items() if key not in {"name", "image_id", "type"}}
    fields = said_fields(fields) | {"id": given["image_id"]}
    return NewImage(name=name, type=kind, **fields)


def _add_queued(backend: Backend, given: dict[str, Any]) -> Image:
    new = _new_image(given, name=given["name"], kind=ImageType(given["type"]))
    return backend.add(new, None, size=None, progress=lambda _: None)


def _add_file(backend: Backend, output: Output, file: str, given: dict[str, Any]) -> Image:
    name = Path(file).name if given["name"] is None else given["name"]
    with opened(file) as source:
        kind = ImageType(given["type"]) if given["type"] else detect_type(source.head)
        new = _new_image(given, name=name, kind=kind)
        with output.transfer(name, source.size) as progress:
            return backend.add(new, source.data, size=source.size, progress=progress)


def _story(image: Image) -> str:
    if image.status is ImageStatus.QUEUED:
        return f"{image.id}: {image.name} ({image.type}, waits for its data)"
    return f"{image.id}: {image.name} ({image.type}, {human_size(image.size)})"


@click.command()
@shared_options("config", "data", "url", "json", "debug")
@click.argument("image", metavar="ID|NAME")
@click.argument("file", metavar="FILE")
@pass_said
def upload(said: Said, /, *, image: str, file: str) -> None:
    """Bring the data of a queued image; FILE - is standard input."""
    output = said.output()
    with said.backend(writes=True) as backend, opened(file) as source:
        queued = image_meant(backend, image)
        with output.transfer(queued.name, source.size) as progress:
            done = backend.upload(queued.id, source.data, size=source.size, progress=progress)
    if said.json:
        output.json(image_json(done))
    else:
        output.line(_story(done))


@click.command()
@shared_options("config", "data", "url", "json", "debug")
@click.argument("image", metavar="ID|NAME")
@click.option(
    "--output", "-o", "target", metavar="FILE", help="Where to; - is standard output. By default its name here."
)
@pass_said
def get(said: Said, /, *, image: str, target: str | None) -> None:
    """Get an image's data, verified.

    What was interrupted stays in FILE.part, and the next try goes on there. An image's own name overwrites no file that
    is here already; a FILE that is said is replaced.
    """
    output = said.output()
    with said.backend() as backend:
        found = image_meant(backend, image)
        if found.status is not ImageStatus.AVAILABLE:
            message = f"Image {found.id!r} has no data: its status is {found.status}."
            raise ImageNotFound(message)
        path = _place(found, target)
        with output.transfer(found.name, found.size) as progress:
            if path is None:
                write_stream(backend, found, sys.stdout.buffer, progress=progress)
            elif _is_special(path):
                with path.open("wb") as device:
                    write_stream(backend, found, device, progress=progress)
            else:
                write_file(backend, found, path, progress=progress)
    if path is not None and said.json:
        output.json(image_json(found) | {"file": str(path)})
    elif path is not None:
        output.comment(f"{path}: {human_size(found.size)}, verified.")


def _place(image: Image, target: str | None) -> Path | None:
    """Give the file to write; None for standard output."""
    if target == STREAM:
        return None
    path = Path(target) if target else Path()
    if not path.is_dir():
        if target and target.endswith(os.sep):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), target)
        # What stands behind a link is replaced, not the link.
        return path.resolve()
    # Its name is anybody's choice: it leads nowhere else, and hides no file.
    name = visible(image.name.rpartition("/")[2]).lstrip(".-")
    path /= name if name and len(os.fsencode(f"{name}{PART}")) <= LONGEST_FILE_NAME else image.id
    if path.exists():
        raise FileExistsError(errno.EEXIST, "is here already; say -o FILE to replace it", str(path))
    return path


def _is_special(path: Path) -> bool:
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False

# SPDX-License-Identifier: Apache-2.0
"""``glancefs move-data``: the data of images from one store to another.

Answers for finding the images and for showing how far they are.

Threading: used by the main thread.
"""

from __future__ import annotations

import click

from glancefs.cli.backend import image_meant
from glancefs.cli.said import Said, pass_said, shared_options
from glancefs.model import Image


@click.command("move-data")
@shared_options("config", "data", "url", "json", "debug")
@click.argument("images", metavar="ID|NAME...", nargs=-1, required=True)
@click.option("--to", required=True, metavar="STORE", help="The store that is to have the data.")
@pass_said
def move_data(said: Said, /, *, images: tuple[str, ...], to: str) -> None:
    """Move the data of images to another store.

    They can be read all the time, and are removed from where they were once the copy was read back and found the same.
    What is interrupted can be begun again. With --url the server does it, for its admins.
    """
    from glancefs.cli.output import image_json

    output = said.output()
    moved: list[Image] = []
    with said.backend(writes=True) as backend:
        # All of them are found before the first is moved.
        found = {image.id: image for image in (image_meant(backend, text) for text in images)}
        try:
            for image in found.values():
                # Each byte is copied and read back.
                with output.transfer(image.name, 2 * image.size) as progress:
                    moved.append(backend.move(image, to=to, progress=progress))
                if not said.json:
                    output.line(f"{image.id}: {image.name} {'is' if image.store == to else 'is now'} in {to}")
        finally:
            if said.json:
                output.json_list(map(image_json, moved))

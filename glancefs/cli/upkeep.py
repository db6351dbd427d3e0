# SPDX-License-Identifier: Apache-2.0
"""Commands for who runs the place: ``check``, ``gc`` and ``db``. They work on the data folder of this machine.

Answers for telling what the audit, the sweep and the migrations found and did.

Threading: used by the main thread; the audit reads in threads of its own.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from glancefs.cli.said import Said, pass_said, shared_options
from glancefs.cli.text import Column, human_size
from glancefs.errors import ConfigError, SchemaTooNew
from glancefs.model import Image, ImageStatus
from glancefs.options import DATABASE, hide_password

_TOLD_EVERY = 100_000
"""After how many rows people are told how far a copy is."""

_FINDINGS = (
    Column(title="ID"),
    Column(title="NAME", is_name=True),
    Column(title="WHAT"),
    Column(title="IN WORDS"),
)


@click.command()
@shared_options("config", "data", "json", "debug")
@click.option("--quick", is_flag=True, help="Look at presence and size alone, without reading the data.")
@pass_said
def check(said: Said, *, quick: bool) -> int:
    """Hold every image against its bytes.

    Exits with 1 when something is wrong, and tells what.
    """
    from glancefs.assembly import assemble
    from glancefs.audit import audit

    output = said.output()
    with assemble(said.load()) as core:
        held = [entry for entry in core.registry.holdings() if entry.status is ImageStatus.AVAILABLE]
        size = sum(entry.size for entry in held)
        with output.transfer("checking", size) as advance:
            seen = 0

            def progress(done: int, _total: int, _image: Image) -> None:
                nonlocal seen
                advance(done - seen)
                seen = done

            findings = list(audit(registry=core.registry, stores=core.stores, quick=quick, progress=progress))
    images = sum(entry.images for entry in held)
    if said.json:
        output.json({"images": images, "size": size, "findings": [asdict(finding) for finding in findings]})
    elif findings:
        output.table(_FINDINGS, [[found.image_id, found.image_name, found.what, found.sentence] for found in findings])
    verdict = f"{len(findings)} of them damaged" if findings else "all well"
    output.note(f"{images} images, {human_size(size)}: {verdict}.")
    return 1 if findings else 0


@click.command()
@shared_options("config", "data", "json", "debug")
@pass_said
def gc(said: Said) -> None:
    """Remove what dead processes left: abandoned uploads, data that no image names, old files of mounts.

    Safe beside running servers and mounts; every start of one does it too.
    """
    from glancefs.assembly import assemble, clear_up

    with assemble(said.load(writes=True)) as core:
        swept = clear_up(core)
    output = said.output()
    if said.json:
        output.json(asdict(swept))
        return
    output.line(
        f"Removed {swept.uploads} abandoned uploads and {swept.orphans} orphans, {human_size(swept.size)} in all."
    )
    if swept.staged:
        output.line(f"{swept.staged} of the files that mounts had left were too old to be kept.")
    if swept.requeued:
        output.line(f"{swept.requeued} images wait for their data again.")


@click.group("db")
def database() -> None:
    """Keep the registry's database."""


@database.command()
@shared_options("config", "data", "json", "debug")
@pass_said
def upgrade(said: Said) -> None:
    """Make the registry's database, or bring it up to date."""
    from glancefs.assembly import assemble

    config = said.load(writes=True)
    try:
        assemble(config).close()
        was_current = True
    except SchemaTooNew:
        raise
    except ConfigError:
        assemble(config, migrate=True).close()
        was_current = False
    output = said.output()
    if said.json:
        output.json({"upgraded": not was_current})
    else:
        output.line("The registry was up to date." if was_current else "The registry is up to date now.")


@database.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@shared_options("json", "debug")
@pass_said
def copy(said: Said, source: str, target: str) -> None:
    """Copy a registry to another database, of whatever kind.

    FROM and TO are URLs as the option registry has them, or @FILE for one that is in a file. TO must hold nothing yet.
    Everything comes along, identifiers and revisions too; who adds or changes images meanwhile waits.
    """
    from glancefs.registries.copying import copy_registry

    output = said.output()

    def progress(table: str, done: int, total: int) -> None:
        if done == total or done % _TOLD_EVERY == 0:
            output.comment(f"{table}: {done} of {total}")

    copied = copy_registry(_url_of(source), _url_of(target), progress=progress)
    if said.json:
        output.json(asdict(copied))
    else:
        output.line(f"Copied {copied.images} images ({copied.rows} rows), up to revision {copied.revision}.")


def _url_of(text: str) -> str:
    """Read the URL of a database from the command line, or from a file that it names."""
    if text.startswith("@"):
        try:
            text = Path(text[1:]).expanduser().read_text().strip()
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"The file {text[1:]} can't be read: {getattr(error, 'strerror', 'no text')}.") from None
    elif hide_password(text) != text:
        # Everybody on this machine sees it in the list of processes.
        raise ConfigError("A password does not belong on the command line; put the URL into a file and say @FILE.")
    try:
        return str(DATABASE.read(text, Path.cwd()))
    except ValueError:
        raise ConfigError(f"{hide_password(text)!r} is no URL of a database.") from None

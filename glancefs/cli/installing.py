# SPDX-License-Identifier: Apache-2.0
"""``glancefs install-helpers``: puts where the system looks for them what a package of Python can't put there itself.

Answers for the helpers of mount(8), the units of systemd, the manual pages and the completion of shells: which files
there are, what they say about where glancefs is, and that no file is touched that somebody else has put there. What
they do, the files themselves know.

Threading: used by the main thread.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

import click

from glancefs.cli.completion import SHELLS, script_for
from glancefs.errors import ConfigError

MARK: Final = "Written by `glancefs install-helpers`; --uninstall removes it."
"""Stands in every file, which is how ours are told from others."""

_HELPERS: Final = {
    "mount.glancefs": "mount",
    "mount.fuse.glancefs": "mount",
    "umount.glancefs": "umount",
    "umount.fuse.glancefs": "umount",
}
"""Which module does it: for `mount -t glancefs`, and for the type as the kernel tells it."""
_SHARE: Final = "usr/local/share"
_COMPLETIONS: Final = {
    "bash": f"{_SHARE}/bash-completion/completions/glancefs",
    "zsh": f"{_SHARE}/zsh/site-functions/_glancefs",
    "fish": f"{_SHARE}/fish/vendor_completions.d/glancefs.fish",
}
_UNITS: Final = "usr/local/lib/systemd/system"
_USERS: Final = "usr/local/lib/sysusers.d/glancefs.conf"
_PROGRAM: Final = 0o755
_TEXT: Final = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One file."""

    path: Path
    text: str
    mode: int = _TEXT

    def is_there(self) -> bool:
        """Whether it is there as it should be."""
        return self.path.read_text() == self.text and self.path.stat().st_mode & 0o7777 == self.mode

    def write(self) -> None:
        """Put it there in one step. Raises OSError."""
        self.path.parent.mkdir(mode=_PROGRAM, parents=True, exist_ok=True)
        new = self.path.with_name(f".{self.path.name}.new")
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, self.mode)
        with os.fdopen(descriptor, "w") as file:
            file.write(self.text)
            os.fchmod(descriptor, self.mode)
        new.replace(self.path)


@click.command()
@click.option(
    "--prefix",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("/"),
    show_default=True,
    help="The folder below which all goes.",
)
@click.option("--uninstall", is_flag=True, help="Remove what this command has installed.")
def install_helpers(*, prefix: Path, uninstall: bool) -> None:
    """Install what makes images a file system of this machine, for root.

    The helpers of mount(8), units of systemd, manual pages, and completion for shells.
    """
    prefix = prefix.absolute()
    if os.geteuid() and prefix == Path("/"):
        raise ConfigError("Only root may write to /sbin and /usr/local; --prefix takes another folder.")
    wanted = list(pieces(prefix))
    there = [piece for piece in wanted if os.path.lexists(piece.path)]
    if strangers := [piece.path for piece in there if not is_ours(piece.path)]:
        message = f"{', '.join(map(str, strangers))}: not written by this command, so nothing is changed."
        raise ConfigError(message)
    if uninstall:
        for piece in there:
            piece.path.unlink()
            click.echo(f"removed {piece.path}")
        return
    # Whatever root's umask is, everybody may read these.
    os.umask(0o022)
    changed = [piece for piece in wanted if piece not in there or not piece.is_there()]
    for piece in changed:
        piece.write()
        click.echo(f"wrote {piece.path}")
    if len(changed) < len(wanted):
        click.echo(f"{len(wanted) - len(changed)} files were there already, as they should be.")
    if changed and prefix == Path("/"):
        click.echo("For systemd, say now: systemd-sysusers glancefs.conf && systemctl daemon-reload")


def is_ours(path: Path) -> bool:
    """Whether a file was written by this command; a link or a folder never was."""
    if path.is_symlink() or not path.is_file():
        return False
    return MARK in path.read_text(errors="replace")


def pieces(prefix: Path) -> Iterator[Piece]:
    """Give every file that there is to install, for the interpreter that runs this."""
    for name, module in _HELPERS.items():
        # -I: neither the working directory nor a variable says which code root runs.
        command = f'exec {shlex.quote(sys.executable)} -I -m mount_helpers.{module} "$@"'
        yield Piece(path=prefix / "sbin" / name, text=f"#!/bin/sh\n# {MARK}\n{command}\n", mode=_PROGRAM)
    share = files("glancefs") / "share"
    for unit in _sorted(share / "systemd"):
        text = f"# {MARK}\n{unit.read_text()}".replace("@glancefs@", f"{_for_systemd(sys.executable)} -I -m glancefs")
        yield Piece(path=prefix / (_USERS if unit.name.endswith(".sysusers") else f"{_UNITS}/{unit.name}"), text=text)
    for page in _sorted(share / "man"):
        section = page.name.rpartition(".")[2]
        yield Piece(path=prefix / _SHARE / f"man/man{section}" / page.name, text=f'{page.read_text()}.\\" {MARK}\n')
    for shell in SHELLS:
        # Last, since zsh reads its first line.
        yield Piece(path=prefix / _COMPLETIONS[shell], text=f"{script_for(shell)}\n# {MARK}\n")


def _sorted(folder: Traversable) -> list[Traversable]:
    return sorted(folder.iterdir(), key=lambda entry: entry.name)


def _for_systemd(path: str) -> str:
    """Write a path so that systemd.service(5) takes it for one word, specifiers included."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if escaped != path or " " in path else path

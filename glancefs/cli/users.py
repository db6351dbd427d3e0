# SPDX-License-Identifier: Apache-2.0
"""``glancefs user``: who may log in, kept in the htpasswd file that the configuration names.

Answers for asking for passwords and for telling. The file itself is `glancefs.cli.htpasswd`'s.

Threading: used by the main thread.
"""

from __future__ import annotations

import sys

import click

from glancefs.cli.htpasswd import Htpasswd, check_password
from glancefs.cli.said import Said, pass_said, shared_options
from glancefs.cli.text import Column
from glancefs.errors import NotFound

_COLUMNS = (Column(title="NAME"), Column(title="ADMIN"))


@click.group("user")
def users() -> None:
    """Maintain the users of auth.mode = "htpasswd"."""


@users.command("add")
@shared_options("config", "data", "json", "debug")
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="Read the password from the first line of standard input.")
@pass_said
def add_user(said: Said, *, name: str, password_stdin: bool) -> None:
    """Add a user, or give a user another password."""
    config = said.load(writes=True)
    file = Htpasswd(path=config.auth.htpasswd)
    password = _read_password() if password_stdin else _ask_password(name)
    is_new = file.put(name, password)
    output = said.output()
    if said.json:
        output.json({"name": name, "is_new": is_new})
    else:
        output.line(f"User {name} added." if is_new else f"User {name} has another password.")
    if config.auth.mode != "htpasswd":
        output.note('Nobody is asked for it: auth.mode is not "htpasswd".')


@users.command("remove")
@shared_options("config", "data", "json", "debug")
@click.argument("name")
@pass_said
def remove_user(said: Said, *, name: str) -> None:
    """Remove a user; the user's images stay."""
    if not Htpasswd(path=said.load(writes=True).auth.htpasswd).remove(name):
        message = f"There is no user {name!r}."
        raise NotFound(message)
    output = said.output()
    if said.json:
        output.json({"name": name})
    else:
        output.line(f"User {name} removed.")


@users.command("list")
@shared_options("config", "data", "json", "debug")
@pass_said
def list_users(said: Said) -> None:
    """List the users."""
    config = said.load()
    names = Htpasswd(path=config.auth.htpasswd).names()
    output = said.output()
    if said.json:
        output.json([{"name": name, "is_admin": name in config.auth.admins} for name in names])
    else:
        output.table(_COLUMNS, [[name, "admin" if name in config.auth.admins else ""] for name in names])


def _read_password() -> str:
    line = sys.stdin.buffer.readline().removesuffix(b"\n").removesuffix(b"\r")
    try:
        return check_password(line.decode())
    except UnicodeDecodeError:
        raise click.UsageError("The password is not UTF-8.") from None


def _ask_password(name: str) -> str:
    if not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask for a password: say --password-stdin.")
    return check_password(
        str(click.prompt(f"Password for {name}", hide_input=True, confirmation_prompt=True, err=True))
    )

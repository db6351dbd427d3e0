# SPDX-License-Identifier: Apache-2.0
"""The reference pages say everything that there is: every option, every command, every call.

Threading: none.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from glancefs import cli, exception
from glancefs.cli import root
from glancefs.client import Client
from glancefs.config import Config
from glancefs.option_table import OPTIONS
from glancefs.remote.calls import ROOMS as CALLS
from glancefs.remote.calls import every_call

PAGES = Path(cli.__file__).parents[2] / "docs/reference"
SHARED = {"--config", "--data", "--url", "--json", "--debug", "--help"}


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner is not None
        yield from commands(inner, f"{path} {name}")


def section(page: str, path: str) -> str:
    """What stands under a command's title, up to the next title."""
    found = re.search(rf"^### `{re.escape(path)}[` ]", page, re.MULTILINE)
    assert found, f"{path} is not in the page"
    return page[found.end() :].partition("\n#")[0]


@pytest.mark.parametrize("path", [path for path, _ in commands(root.root, "glancefs")])
def test_every_command_and_option_is_in_the_reference(path: str) -> None:
    page = (PAGES / "cli.md").read_text()
    command = dict(commands(root.root, "glancefs"))[path]
    told = section(page, path)
    for parameter in command.params:
        assert isinstance(parameter, click.Option | click.Argument)
        if isinstance(parameter, click.Option):
            names = [*parameter.opts, *parameter.secondary_opts]
            wanted = [name for name in names if name.startswith("--")]
            assert all(f"`{name}" in (page if name in SHARED else told) for name in wanted), names
            assert parameter.help


def test_every_exit_status_is_in_the_reference() -> None:
    page = (PAGES / "cli.md").read_text()
    statuses = [
        *(root.FAILED, root.MISUSED, root.NOT_FOUND, root.NOT_ALLOWED, root.UNAVAILABLE),
        *(root.INTERRUPTED, root.UNREAD),
    ]
    assert [status for status in statuses if f"| {status} |" not in page] == []


def test_every_option_of_the_configuration_is_in_the_reference(tmp_path: Path) -> None:
    page = (PAGES / "configuration.md").read_text()
    config = Config.at(tmp_path)
    for option in OPTIONS:
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{option.key}` |"))
        assert f"`{option.variable}`" in row
        value: object = config
        for name in option.key.split("."):
            value = getattr(value, name)
        shown = option.kind.show(value) if value is not None else "unset"
        # Defaults below the data folder are told in words.
        assert str(tmp_path) in shown or (shown or "none") in row


def test_every_call_of_mounts_is_in_the_reference() -> None:
    page = (PAGES / "rest.md").read_text()
    for name, call in every_call().items():
        (row,) = (line for line in page.splitlines() if line.startswith("| `") and f"`{name}`" in line.split("|")[1])
        arguments = inspect.signature(_method(name)).parameters.keys() - {"self"} - call.unsaid
        assert [argument for argument in arguments if f"`{argument}`" not in row] == []


def _method(name: str) -> Callable[..., object]:
    room, _, method = name.rpartition("/")
    function: Callable[..., object] = getattr(CALLS[room], method)
    return function


def test_every_call_of_the_client_is_in_the_reference() -> None:
    page = (PAGES / "client.md").read_text()
    calls = [name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")]
    assert [name for name in calls if f"{name}(" not in page] == []
    arguments = [name for name in inspect.signature(Client).parameters if name not in {"host", "port"}]
    assert [name for name in arguments if f"`{name}`" not in page] == []
    assert [name for name in exception.__all__ if name != "GlancefsError" and f"| `{name}` |" not in page] == []

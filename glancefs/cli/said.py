# SPDX-License-Identifier: Apache-2.0
"""What the command line says for every command alike: which configuration, which images, which form of output.

Answers for the shared options, wherever on the line they stand, and for what follows from them. The options of single
commands are the commands' own.

Threading: used by the main thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from glancefs.cli.backend import Backend
    from glancefs.cli.output import Output
    from glancefs.config import Config

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(slots=True)
class Said:
    """The shared options, as far as they were said."""

    config: Path | None = None
    data: Path | None = None
    url: str | None = None
    json: bool = False
    debug: bool = False

    def load(self, overrides: Mapping[str, object] | None = None, *, writes: bool = False) -> Config:
        """Read the configuration. Raises ConfigError.

        ``writes``: files are made in the data folder from now on, which are to be its owner's.
        """
        from glancefs.cli.owner import act_as_owner
        from glancefs.config import load

        data = None if self.data is None else str(self.data)
        config = load(file=self.config, overrides={"data": data} | dict(overrides or {}))
        if writes:
            act_as_owner(config.data)
        return config

    def backend(self, *, makes_registry: bool = False, writes: bool = False) -> Backend:
        """Give access to the images, here or on a server; a context manager. Raises ConfigError, Unavailable.

        ``makes_registry``: a data folder without a registry gets one. ``writes``: data are brought, not only read.
        """
        from glancefs.config import remote_from_environment

        if self.url is not None and (self.data or self.config):
            raise click.UsageError("--url names a server, --data and --config a folder of this machine: say one.")
        remote = remote_from_environment()
        # What the line says is closer than what the environment says.
        url = self.url or (None if self.data or self.config else remote.url)
        if url is not None:
            from glancefs.cli.remote import open_server

            return open_server(url=url, remote=remote)
        from glancefs.cli.local import open_folder

        return open_folder(self.load(writes=writes), makes_registry=makes_registry)

    def output(self) -> Output:
        """Give where results go."""
        from glancefs.cli.output import Output

        return Output(as_json=self.json)


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> object:
    if value and context.obj is not None and parameter.name is not None:
        setattr(context.obj, parameter.name, value)
    return value


_OPTIONS: Final[Mapping[str, Callable[[_Function], _Function]]] = {
    "config": click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        help="The configuration file.",
        expose_value=False,
        callback=_keep,
    ),
    "data": click.option(
        "--data",
        type=click.Path(file_okay=False, path_type=Path),
        help="The data folder.",
        expose_value=False,
        callback=_keep,
    ),
    "url": click.option(
        "--url",
        help="A server, instead of a data folder; $GLANCEFS_URL says it too.",
        expose_value=False,
        callback=_keep,
    ),
    "json": click.option("--json", is_flag=True, help="Print JSON.", expose_value=False, callback=_keep),
    "debug": click.option(
        "--debug", is_flag=True, help="Show where a failure comes from.", expose_value=False, callback=_keep
    ),
}


def shared_options(*names: str) -> Callable[[_Function], _Function]:
    """Give a command these of the shared options: ``config``, ``data``, ``url``, ``json``, ``debug``."""

    def decorate(function: _Function) -> _Function:
        for name in reversed(names):
            function = _OPTIONS[name](function)
        return function

    return decorate


pass_said: Final = click.make_pass_decorator(Said)

# SPDX-License-Identifier: Apache-2.0
"""The root of the command line: which commands there are, and how each of them ends.

Answers for loading a command only when it is asked for, and for turning every failure into one line on standard error
and an exit status. Does nothing itself.

Exit statuses: 0 done; 1 it failed, or `check` found damage; 2 it can't be done as said (usage, configuration, values);
3 not found; 4 not allowed; 5 the server, a store or the registry is unavailable; 129, 130, 143 ended by SIGHUP, Ctrl-C,
SIGTERM; 141 nobody reads.

Threading: used by the main thread.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, Final, cast

import click

from glancefs import __version__, errors
from glancefs.cli.said import Said, shared_options
from glancefs.cli.text import visible

FAILED: Final = 1
MISUSED: Final = 2
NOT_FOUND: Final = 3
NOT_ALLOWED: Final = 4
UNAVAILABLE: Final = 5
INTERRUPTED: Final = 130
UNREAD: Final = 141

# The first class that fits counts.
_STATUSES: Final[tuple[tuple[type[errors.GlancefsError], int], ...]] = (
    (errors.ConfigError, MISUSED),
    (errors.InvalidImage, MISUSED),
    (errors.InvalidQuery, MISUSED),
    (errors.UnsupportedStore, MISUSED),
    (errors.NotFound, NOT_FOUND),
    (errors.NotAuthenticated, NOT_ALLOWED),
    (errors.Forbidden, NOT_ALLOWED),
    (errors.Unavailable, UNAVAILABLE),
)


class UnreadError(Exception):
    """Whoever read our output is gone. Not an OSError, for which click has an answer of its own."""


class LazyGroup(click.Group):
    """A group whose commands are loaded when they are asked for, so that the others start at once."""

    def __init__(self, *args: Any, commands_at: Mapping[str, str], **kwargs: Any) -> None:  # noqa: ANN401 - for click
        super().__init__(*args, **kwargs)
        self._commands_at = commands_at

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the names in the order in which they are to be read."""
        del ctx
        return list(self._commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command."""
        del ctx
        place = self._commands_at.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        return cast("click.Command", getattr(import_module(f"glancefs.cli.{module}"), name))

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click declares it
        """Run a command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise UnreadError from None
        except EOFError as error:
            # To click it is somebody at the terminal who gives up, and is passed over in silence.
            raise click.ClickException(str(error)) from error


@click.group(
    cls=LazyGroup,
    commands_at={
        "serve": "serve:serve",
        "registry": "registry:registry",
        "mount": "mount:mount",
        "umount": "mount:umount",
        "up": "up:up",
        "list": "images:list_images",
        "show": "images:show",
        "add": "transfers:add",
        "upload": "transfers:upload",
        "get": "transfers:get",
        "set": "images:set_image",
        "rm": "images:remove",
        "check": "upkeep:check",
        "gc": "upkeep:gc",
        "move-data": "relocating:move_data",
        "db": "upkeep:database",
        "user": "users:users",
        "config": "configuration:configuration",
        "completion": "completion:completion",
        "install-helpers": "installing:install_helpers",
    },
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="glancefs", message="%(prog)s %(version)s")
@shared_options("config", "data", "url", "json", "debug")
def root() -> None:
    """Keep virtual-machine images, and serve them.

    Commands on images work on a data folder, or with --url or $GLANCEFS_URL on a server.
    """


def run(arguments: Sequence[str]) -> int:
    """Run a command line; gives the exit status."""
    said = Said()
    try:
        with _orderly_end():
            status = root.main(list(arguments), prog_name="glancefs", standalone_mode=False, obj=said)
            sys.stdout.flush()
    except (UnreadError, BrokenPipeError):
        return _nobody_reads()
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last guard of the command line
        if said.debug:
            traceback.print_exc()
        return _tell(error)
    return status if isinstance(status, int) else 0


@contextlib.contextmanager
def _orderly_end() -> Iterator[None]:
    """Let SIGTERM and a terminal that is closed end a command as Ctrl-C does, so that it leaves nothing half done."""

    def end(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            # What nohup(1) has ignored stays so.
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def status_of(error: Exception) -> int:
    """Give the exit status for a failure."""
    if isinstance(error, click.ClickException):
        return error.exit_code
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), FAILED)


def _tell(error: Exception) -> int:
    with contextlib.suppress(OSError):
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            error.show()
            return MISUSED
        click.echo(f"glancefs: {visible(_sentence(error))}", err=True)
    return status_of(error)


def _sentence(error: Exception) -> str:
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "glancefs"
        return f"{' '.join(error.format_message().split())} `{command} --help` tells more."
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, errors.GlancefsError):
        return str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"An error that nobody expected, {type(error).__name__}: {error}. --debug shows where it happened."


def _nobody_reads() -> int:
    # What Python still holds for standard output is flushed at exit; let it fall silently.
    with contextlib.suppress(OSError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)
    return UNREAD

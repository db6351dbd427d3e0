# SPDX-License-Identifier: Apache-2.0
"""``glancefs up``: the server and the mount of one data folder together, in the foreground, and what they are doing.

Answers for starting both, each in a process of its own, for showing their state, and for ending both: at a signal, or
when one of them dies. Without FUSE, or where something is mounted already, the server goes on alone. What each of them
does, `glancefs.cli.serve` and `glancefs.cli.mount` know.

Threading: the main thread; children are started before there is another.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from glancefs import __version__
from glancefs.cli.children import Child, how_it_ended
from glancefs.cli.happenings import Happening, Happenings
from glancefs.cli.mount import Place
from glancefs.cli.said import Said, pass_said, shared_options
from glancefs.cli.text import visible
from glancefs.config import with_tilde
from glancefs.errors import ConfigError, GlancefsError

if TYPE_CHECKING:
    from gateway.http.signals import StopSignals
    from glancefs.cli.inventory import Inventory
    from glancefs.cli.screen import Screen
    from glancefs.config import Config
    from glancefs.fuse.options import MountOptions
    from glancefs.reporting import Report, Reporter

LEVELS: Final = ("debug", "info", "warning", "error")
_FRAME: Final = 0.25
"""Seconds between two pictures while something moves."""
_IDLE: Final = 1.0
_KEPT_FAILURES: Final = 20
_HARMLESS: Final = ("DEBUG ", "INFO ")
_STOPPED: Final = 128 + signal.SIGTERM
"""The exit status of a child that was told to end before it was ready."""
_AT_ONCE: Final = 2.0
"""Seconds for a server that is to end at once."""


@click.command()
@shared_options("config", "data", "debug")
@click.argument("mountpoint", type=Place(), required=False)
@click.option("-o", "--options", "said_options", multiple=True, metavar="OPTION[=VALUE],…", help="Mount options.")
@click.option("--listen", metavar="HOST:PORT", help="Where to answer; by default 127.0.0.1:9292.")
@click.option("--workers", type=click.IntRange(min=1), help="How many processes answer; by default 1.")
@click.option(
    "--insecure", is_flag=True, help="Let everybody in as admin also where others than this machine can reach."
)
@click.option(
    "--log-level", type=click.Choice(LEVELS), default="warning", show_default=True, help="What is told at the least."
)
@pass_said
def up(
    said: Said,
    *,
    mountpoint: Path | None,
    said_options: tuple[str, ...],
    listen: str | None,
    workers: int | None,
    insecure: bool,
    log_level: str,
) -> int:
    """Serve the images of a data folder, and show them as files at MOUNTPOINT, until Ctrl-C.

    MOUNTPOINT is made if it is not there; without one there is no mount.
    """
    from glancefs.cli.remote_mount import refuse_elsewhere
    from glancefs.cli.serve import refuse_open_door
    from glancefs.config import wants_plain_text
    from glancefs.fuse.options import read_options

    options = read_options(said_options)
    refuse_elsewhere(options)
    config = said.load({"gateway.listen": listen, "gateway.workers": workers}, writes=True)
    refuse_open_door(config, is_insecure=insecure)
    screen = None
    if sys.stdout.isatty() and not wants_plain_text():
        from glancefs.cli.screen import Screen

        screen = Screen()
    serve = partial(_serve, config, log_level)
    mount = None
    if mountpoint is not None:
        mount = partial(_mount, config, options, mountpoint.absolute(), log_level)
    return _Doors(config, serve=serve, mount=mount, point=mountpoint, screen=screen).run()


def _serve(config: Config, log_level: str, reporter: Reporter) -> None:
    from glancefs.cli.serve import make_server

    _log_to_parent(log_level)
    make_server(config, ready=lambda url: reporter.ready([url]), reporter=reporter).run()


def _mount(config: Config, options: MountOptions, point: Path, log_level: str, reporter: Reporter) -> None:
    try:
        import_module("glancefs.fuse.mount")
    except ImportError as error:
        message = f"A mount needs further packages, as glancefs[mount] brings them: {error}."
        raise ConfigError(message) from None
    from glancefs.cli.mount import serve_mount
    from glancefs.fuse.daemon import log_to
    from glancefs.fuse.table import check_free, mounted_at, place_of

    if options.log is None:
        _log_to_parent(log_level)
    else:
        log_to(options.log, level=log_level, is_foreground=True)
    place = place_of(point)
    if mounted_at(place) is None:
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"{place} can't be made: {error.strerror}."
            raise ConfigError(message) from None
    check_free(place)
    if options.public is not None:
        config = replace(config, default_is_public=options.public)
    serve_mount(config, options, place, str(config.data), lambda: reporter.ready([str(place)]), reporter=reporter)


def _log_to_parent(level: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level.upper())


class _Doors:
    """The server, the mount, and what is shown of them."""

    def __init__(
        self,
        config: Config,
        *,
        serve: Callable[[Reporter], None],
        mount: Callable[[Reporter], None] | None,
        point: Path | None,
        screen: Screen | None,
    ) -> None:
        self._config: Final = config
        self._serve: Final = serve
        self._mount: Final = mount
        self._point: Final = point
        self._screen: Final = screen
        self._state: Final = Happenings(title=f"glancefs {__version__}", data=self._shown(str(config.data)))
        self._children: Final[list[Child]] = []
        self._inventory: Inventory | None = None
        self._failure: GlancefsError | None = None
        self._is_drawing = False

    def run(self) -> int:
        """Open the doors, and keep them open until a signal comes. Gives the exit status, 0 after a clean end.

        Raises what kept the server from its work.
        """
        from gateway.http.signals import StopSignals

        self._children.append(Child("server", self._serve))
        with StopSignals(also=(signal.SIGWINCH,), at_once=self._end_at_once) as signals:
            if self._screen is not None:
                signal.signal(signal.SIGTSTP, self._rest)
            try:
                while self._children:
                    self._turn(signals)
            finally:
                self._close()
        if self._failure is not None:
            raise self._failure
        self._say(self._state.summary())
        return 0

    # ---- the loop

    def _turn(self, signals: StopSignals) -> None:
        """Wait for something to happen, and deal with it."""
        poller = select.poll()
        poller.register(signals.fileno(), select.POLLIN)
        for child in self._children:
            for descriptor in child.descriptors:
                poller.register(descriptor, select.POLLIN)
        poller.poll((_FRAME if self._state.moving else _IDLE) * 1000)
        signals.drain()
        if signals.received is not None and not self._state.is_ending:
            self._end()
        for child in list(self._children):
            self._hear(child)
        self._state.forget(time.monotonic())
        self._draw()

    def _hear(self, child: Child) -> None:
        status = child.ended()
        for line in child.lines():
            if line:
                self._tell(self._state.add(line, is_bad=not line.startswith(_HARMLESS)), is_error=True)
        for report in child.reports():
            self._heed(child, report)
        if status is not None:
            self._children.remove(child)
            self._state.forget(time.monotonic(), pid=child.pid)
            self._mourn(child, status)
            child.close()

    def _heed(self, child: Child, report: Report) -> None:
        if report.ready is not None:
            child.is_ready = True
            self._opened(child, report.ready[0])
        if report.failure is not None and child.name == "server":
            self._failure = report.failure
        elif report.failure is not None and not self._state.is_ending:
            self._tell(self._state.add(f"Going on without the mount: {report.failure}", is_bad=True), is_error=True)
        if report.sample is not None:
            for happening in self._state.take(report.pid, report.sample, time.monotonic()):
                self._tell(happening)

    def _opened(self, child: Child, address: str) -> None:
        from glancefs.cli.serve import addresses, who_may

        if child.name == "server":
            state = self._state
            state.title = f"glancefs {__version__} at {address}"
            state.addresses += addresses(self._config, address)
            state.remarks += who_may(self._config)
            doors = [f"  {name:7} {at}" for name, at in [("data", state.data), *state.addresses]]
            self._say("\n".join([state.title, *doors, *state.remarks]))
            self._open_screen()
            if self._mount is not None and not state.is_ending:
                self._children.append(Child("mount", self._mount))
                return
        else:
            self._state.addresses.append(("files", self._shown(address)))
            self._say(f"  {'files':7} {address}")
        self._take_stock()

    def _mourn(self, child: Child, status: int) -> None:
        """Deal with the end of a child; one that dies takes the other with it."""
        if child.name == "mount":
            self._state.addresses = [(name, at) for name, at in self._state.addresses if name != "files"]
            self._clear_mount_point(child)
        if self._state.is_ending:
            is_sound = not status or status == _STOPPED or (child.name == "mount" and not child.is_ready)
            if not is_sound and self._failure is None:
                self._failure = GlancefsError(f"The {child.name} {how_it_ended(status)} instead of finishing its work.")
            return
        if child.name == "mount" and not (child.is_ready and status):
            if child.is_ready:
                self._tell(self._state.add("The mount was taken away; going on without it."))
            elif status < 0:
                what = f"Going on without the mount: it {how_it_ended(status)}."
                self._tell(self._state.add(what, is_bad=True), is_error=True)
            self._take_stock()
            return
        if self._failure is None:
            self._failure = GlancefsError(f"The {child.name} {how_it_ended(status)}.")
        self._end()

    def _take_stock(self) -> None:
        # A thread: no child is started after it.
        if self._screen is not None and self._inventory is None:
            from glancefs.cli.inventory import Inventory

            self._inventory = Inventory(self._config)

    # ---- the end

    def _end(self) -> None:
        self._state.is_ending = True
        for child in self._children:
            child.send(signal.SIGTERM)

    def _end_at_once(self) -> None:
        self._close_screen()
        for child in self._children:
            # The server leaves its workers nothing to do; a mount is made to survive it.
            child.send(signal.SIGTERM if child.name == "server" else signal.SIGKILL)
        for child in self._children:
            if not select.select([child.pidfd], [], [], _AT_ONCE)[0]:
                child.send(signal.SIGKILL)
            child.ended(wait=True)
            self._clear_mount_point(child)

    def _close(self) -> None:
        self._close_screen()
        if self._inventory is not None:
            self._inventory.stop()
        for child in self._children:
            child.send(signal.SIGKILL)

    def _clear_mount_point(self, child: Child) -> None:
        """Take away what a mount leaves that was killed."""
        if child.name == "mount" and child.is_ready and self._point is not None:
            from glancefs.fuse.table import check_free, place_of

            with contextlib.suppress(GlancefsError, OSError):
                check_free(place_of(self._point))

    # ---- what is seen

    def _tell(self, happening: Happening, *, is_error: bool = False) -> None:
        self._say(str(happening), is_error=is_error)

    def _say(self, text: str, *, is_error: bool = False) -> None:
        """Write lines, where there is no screen (any more)."""
        if not self._is_drawing:
            # Nobody need read it, and a terminal may be closed.
            with contextlib.suppress(OSError):
                stream = sys.stderr if is_error else sys.stdout
                stream.write("\n".join(map(visible, text.split("\n"))) + "\n")
                stream.flush()

    def _draw(self) -> None:
        if self._screen is None or not self._is_drawing:
            return
        if self._inventory is not None:
            self._state.held = self._inventory.held
        with contextlib.suppress(OSError):
            self._screen.show(self._state)

    def _shown(self, path: str) -> str:
        return path if self._screen is None else with_tilde(path)

    def _open_screen(self) -> None:
        if self._screen is not None:
            self._is_drawing = True
            with contextlib.suppress(OSError):
                self._screen.open()

    def _close_screen(self) -> None:
        """Give the terminal back, and leave on it what went wrong."""
        if self._screen is not None and self._is_drawing:
            self._is_drawing = False
            with contextlib.suppress(OSError):
                self._screen.close()
                bad = [happening for happening in self._state.past if happening.is_bad]
                sys.stdout.writelines(f"{happening}\n" for happening in bad[-_KEPT_FAILURES:])
                sys.stdout.flush()

    def _rest(self, _number: int, _frame: object) -> None:
        """Give the terminal back while the shell has it (Ctrl-Z); the doors stay open."""
        is_drawing, self._is_drawing = self._is_drawing, False
        if self._screen is not None and is_drawing:
            self._screen.close()
        os.kill(os.getpid(), signal.SIGSTOP)
        if is_drawing:
            self._open_screen()

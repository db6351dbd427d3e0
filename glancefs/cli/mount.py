# SPDX-License-Identifier: Apache-2.0
"""``glancefs mount`` and ``glancefs umount``: images as files, from the configuration to the end.

Answers for reading what was said, in the foreground so that the one who said it hears what is wrong, and for starting
and ending the mount. How requests are answered, `glancefs.fuse` knows.

Threading: used by the main thread; a mount in the background is a process of its own.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from glancefs.cli.owner import act_as_owner
from glancefs.cli.remote_mount import RemoteMount, is_server, refuse_elsewhere
from glancefs.cli.said import Said, pass_said, shared_options
from glancefs.cli.sweeping import FirstSweep
from glancefs.errors import ConfigError, Conflict

if TYPE_CHECKING:
    from glancefs.assembly import Assembly
    from glancefs.config import Config
    from glancefs.context import RequestContext
    from glancefs.fuse.options import MountOptions
    from glancefs.fuse.statistics import Statistics
    from glancefs.fuse.views import TreePerUser
    from glancefs.reporting import Reporter
    from glancefs.tree import ImageTree

_log = logging.getLogger(__name__)

LEVELS: Final = ("debug", "info", "warning", "error")
READY_PATIENCE: Final = 60.0
_EMBEDDED: Final = "sqlite:"


class Source(click.Path):
    """A path, or the URL of a server; completed like a path."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,  # noqa: ARG002 - click hands it over
        ctx: click.Context | None,  # noqa: ARG002 - click hands it over
    ) -> str:
        """Give it as it was said."""
        return os.fspath(value)


class Place(click.Path):
    """A path that is not looked at, since a mount that does not answer may lie there; completed like any other."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,  # noqa: ARG002 - click hands it over
        ctx: click.Context | None,  # noqa: ARG002 - click hands it over
    ) -> Path:
        """Give the path as it was said."""
        return Path(value)


@click.command()
@shared_options("debug")
@click.argument("source", type=Source())
@click.argument("mountpoint", type=Place())
@click.option("-o", "--options", "said_options", multiple=True, metavar="OPTION[=VALUE],…", help="Mount options.")
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground, and log to standard error.")
@click.option(
    "--log-level", type=click.Choice(LEVELS), default="info", show_default=True, help="What is logged at the least."
)
@click.option("--check", is_flag=True, help="Say what is wrong with all this, if anything is, and mount nothing.")
@pass_said
def mount(
    said: Said,
    *,
    source: str,
    mountpoint: Path,
    said_options: tuple[str, ...],
    foreground: bool,
    log_level: str,
    check: bool,
) -> None:
    """Show the images of SOURCE as files at MOUNTPOINT: of a data folder, a configuration file, or a server's URL.

    Returns once the mount answers, and leaves it running until `glancefs umount` or umount(8).
    """
    from glancefs.fuse.daemon import in_background, log_to
    from glancefs.fuse.options import read_options
    from glancefs.fuse.table import check_free, place_of

    del said
    options = read_options(said_options)
    far = RemoteMount.of(source, options) if is_server(source) else None
    config = _config(Path(source), options) if far is None else None
    point = place_of(mountpoint)
    check_free(point)
    if far is not None:
        far.check_place(point)
    if check:
        return
    label = source if far is not None else str(Path(source).absolute())

    def serve(ready: Callable[[], None]) -> None:
        log_to(options.log, level=log_level, is_foreground=foreground)
        if far is not None:
            far.serve(point, ready)
        elif config is not None:
            serve_mount(config, options, point, label, ready)

    if foreground:
        serve(lambda: _log.info("%s is at %s", label, point))
    else:
        in_background(serve, patience=READY_PATIENCE)


def _config(source: Path, options: MountOptions) -> Config:
    from glancefs.config import load

    refuse_elsewhere(options)
    said: dict[str, object] = {}
    if options.public is not None:
        said["default_is_public"] = options.public
    if source.is_dir():
        return load(overrides={"data": str(source.absolute()), **said})
    if source.is_file():
        return load(file=source, overrides=said)
    message = f"{source} is neither a data folder nor a configuration file."
    raise ConfigError(message)


def serve_mount(
    config: Config,
    options: MountOptions,
    point: Path,
    label: str,
    ready: Callable[[], None],
    *,
    reporter: Reporter | None = None,
) -> None:
    """Serve a mount until it is taken away or a signal comes; ``reporter`` hears what it is moving.

    Raises ConfigError when it can't be mounted, RegistryUnavailable, StoreUnavailable.
    """
    from glancefs.assembly import assemble, assemble_tree
    from glancefs.config import notify_address
    from glancefs.fuse.daemon import tell_systemd
    from glancefs.fuse.mount import Session
    from glancefs.fuse.statistics import Statistics

    act_as_owner(config.data)
    statistics = Statistics()
    address = notify_address()

    def tell() -> None:
        ready()
        tell_systemd(address, "READY=1")
        if reporter is not None:
            reporter.watch(statistics.sample)

    with contextlib.ExitStack() as stack:
        core = stack.enter_context(assemble(config, migrate=config.registry.startswith(_EMBEDDED)))
        tree: ImageTree | TreePerUser
        if options.multiuser:
            tree = _tree_per_user(core, options)
        else:
            documents = {"stats": statistics.document}
            tree = stack.enter_context(assemble_tree(core, user=options.user, documents=documents))
        sweep = FirstSweep(core)
        if not options.read_only:
            sweep.begin()
        session = Session(tree=tree, point=point, source=label, options=options, statistics=statistics, ready=tell)
        try:
            session.serve()
        finally:
            sweep.stop()
            if reporter is not None:
                reporter.stop()
            tell_systemd(address, "STOPPING=1")
            _log.info("%s is unmounted: %s", point, statistics.line())


def _tree_per_user(core: Assembly, options: MountOptions) -> TreePerUser:
    from glancefs.assembly import assemble_tree
    from glancefs.fuse.users import Users, read_table
    from glancefs.fuse.views import TreePerUser

    users = Users(table=None if options.users is None else read_table(options.users))
    since = time.time_ns()

    def make(context: RequestContext, statistics: Statistics) -> ImageTree:
        return assemble_tree(core, context=context, documents={"stats": statistics.document}, since=since)

    return TreePerUser(users=users, make_tree=make)


@click.command()
@click.argument("mountpoint", type=Place())
@click.option("-l", "--lazy", is_flag=True, help="Take it away also while files on it are open.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=600.0,
    show_default=True,
    help="How many seconds to wait until what was written is safe.",
)
def umount(*, mountpoint: Path, lazy: bool, timeout: float) -> None:
    """Take a mount away, and wait until everything that was written to it is safe."""
    from glancefs.fuse.table import FILE_SYSTEM, mounted_at, place_of, unmount

    point = place_of(mountpoint)
    mounted = mounted_at(point)
    if mounted is None or mounted.file_system != FILE_SYSTEM:
        message = f"{mountpoint} is no mount of glancefs."
        raise ConfigError(message)
    try:
        daemon = _daemon_of(point)
    except TimeoutError:
        if not lazy:
            message = f"{point} does not answer. --lazy takes it away all the same."
            raise Conflict(message) from None
        unmount(point, lazy=True, is_silent=True)
        return
    try:
        try:
            unmount(point, lazy=lazy or daemon is None)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            message = f"{point} is busy: somebody has files open or works in it. --lazy takes it away anyhow."
            raise Conflict(message) from None
        if daemon is not None and not select.select([daemon], [], [], timeout)[0]:
            message = f"{point} is unmounted, but its daemon is not done after {timeout:g} seconds."
            raise Conflict(message)
    finally:
        if daemon is not None:
            os.close(daemon)


def _daemon_of(point: Path) -> int | None:
    """Give a descriptor that becomes readable when the mount's daemon has ended; None for one that is dead.

    Raises TimeoutError for one that does not answer.
    """
    from glancefs.fuse.table import ask

    try:
        pid = int(ask(partial(os.getxattr, point, "user.glance.mount.pid")))
        return os.pidfd_open(pid)
    except TimeoutError:
        raise
    except (OSError, ValueError):
        return None

# SPDX-License-Identifier: Apache-2.0
"""``glancefs serve``: the server, from its configuration to its end.

Answers for what happens before the first request (is this safe to open, is the registry there, what did dead processes
leave) and for telling where the doors are. How requests are served, the gateway knows.

Threading: the main thread waits for signals; the sweep runs in a thread beside the requests of one of the processes.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import click

from glancefs import __version__
from glancefs.cli.said import Said, pass_said, shared_options
from glancefs.cli.sweeping import FirstSweep
from glancefs.cli.watchdog import Watchdog
from glancefs.config import notify_address, watchdog_seconds
from glancefs.errors import ConfigError, StoreUnavailable

if TYPE_CHECKING:
    from gateway.application import Application
    from gateway.http.limits import Limits
    from gateway.metrics import Metrics
    from gateway.server import Server
    from glancefs.assembly import Assembly
    from glancefs.config import Config, GatewayConfig
    from glancefs.reporting import Reporter
    from glancefs.stores.base import Store

_log = logging.getLogger(__name__)

LEVELS: Final = ("debug", "info", "warning", "error")
_EMBEDDED: Final = "sqlite:"


@click.command()
@shared_options("config", "data", "debug")
@click.option("--listen", metavar="HOST:PORT", help="Where to answer; by default 127.0.0.1:9292.")
@click.option("--workers", type=click.IntRange(min=1), help="How many processes answer; by default 1.")
@click.option(
    "--insecure", is_flag=True, help="Let everybody in as admin also where others than this machine can reach."
)
@click.option(
    "--log-level", type=click.Choice(LEVELS), default="info", show_default=True, help="What is logged at the least."
)
@pass_said
def serve(said: Said, *, listen: str | None, workers: int | None, insecure: bool, log_level: str) -> int:
    """Serve the images of a data folder over HTTP until SIGTERM or Ctrl-C."""
    config = said.load({"gateway.listen": listen, "gateway.workers": workers}, writes=True)
    refuse_open_door(config, is_insecure=insecure)
    set_up_logging(log_level)
    watchdog = Watchdog(address=notify_address(), seconds=watchdog_seconds())

    def ready(url: str) -> None:
        watchdog.announce(url)
        _announce(config, url)

    server = make_server(config, ready=ready)
    with watchdog:
        return server.run()


def make_server(config: Config, *, ready: Callable[[str], None], reporter: Reporter | None = None) -> Server:
    """Give the server of a configuration. ``reporter`` hears from each of its processes what it is moving.

    Raises ConfigError, StoreUnavailable, RegistryUnavailable.
    """
    from gateway.server import Server

    serving = _Serving(config, reporter)
    gateway = config.gateway
    return Server(
        app_factory=serving.start,
        listen=str(gateway.listen),
        workers=gateway.workers,
        tls_cert=gateway.tls_cert,
        tls_key=gateway.tls_key,
        limits=_limits(gateway),
        shutdown_timeout=gateway.shutdown_timeout,
        observer=serving.metrics.observe,
        ready=ready,
        watch=reporter.watch if reporter is not None else None,
        on_exit=lambda _: serving.stop(),
    )


class _Serving:
    """What the processes of one server share, and what each of them has of its own."""

    def __init__(self, config: Config, reporter: Reporter | None) -> None:
        from gateway.assembly import make_metrics
        from glancefs.assembly import assemble

        self._config = config
        # Before any fork: registry and stores are made once, and what is wrong with them is told once.
        with assemble(config, migrate=config.registry.startswith(_EMBEDDED)) as core:
            for store in core.stores.values():
                _try(store)
        self.metrics: Metrics = make_metrics(config.gateway)
        self._reporter = reporter
        self._core: Assembly | None = None
        self._application: Application | None = None
        self._sweep: FirstSweep | None = None
        # One byte for all processes: whoever gets it sweeps.
        self._turn, end = os.pipe()
        os.set_blocking(self._turn, False)
        os.write(end, b"!")
        os.close(end)

    def start(self) -> Application:
        """Put this process's application together."""
        from gateway.assembly import make_application
        from glancefs.assembly import assemble

        core = self._core = assemble(self._config)
        if os.read(self._turn, 1):
            self._sweep = FirstSweep(core)
            self._sweep.begin()
        self._application = make_application(core, metrics=self.metrics)
        return self._application

    def stop(self) -> None:
        """Let go of what this process has."""
        if self._reporter is not None:
            self._reporter.stop()
        if self._application is not None:
            self._application.close()
        if self._sweep is not None:
            self._sweep.stop()
        if self._core is not None:
            self._core.close()


def _try(store: Store) -> None:
    """See that a store takes images; one on other machines may start after us. Raises ConfigError, StoreUnavailable."""
    try:
        with store.claim():
            pass
    except StoreUnavailable as error:
        if not store.capabilities.is_remote:
            raise
        _log.warning("Starting without the store %r, until it answers: %s", store.scheme, error)


def refuse_open_door(config: Config, *, is_insecure: bool) -> None:
    """Refuse to let everybody in from everywhere, unless that was said. Raises ConfigError."""
    listen = config.gateway.listen
    if config.auth.mode == "none" and not listen.is_loopback and not is_insecure:
        message = (
            f"{listen} can be reached from other machines, and auth.mode is none: everybody would be admin. "
            'Set auth.mode to "htpasswd" or "keystone", or say --insecure.'
        )
        raise ConfigError(message)


def _limits(config: GatewayConfig) -> Limits:
    from gateway.http.limits import Limits

    return Limits(
        max_uploads=config.max_uploads,
        max_downloads=config.max_downloads,
        max_connections=config.max_connections,
        head_timeout=config.head_timeout,
        idle_timeout=config.idle_timeout,
        body_timeout=config.body_timeout,
    )


def set_up_logging(level: str) -> None:
    """Log to standard error, one line for each event."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level.upper())


def _announce(config: Config, url: str) -> None:
    lines = [f"glancefs {__version__} at {url}", f"  data    {config.data}"]
    public = config.gateway.public_url
    if public:
        lines.append(f"  known as {public}")
    lines += [f"  {name:7} {address}" for name, address in addresses(config, url)]
    lines += who_may(config)
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def addresses(config: Config, url: str) -> list[tuple[str, str]]:
    """Give the name and the address of each door of a server."""
    doors = [("images", f"{url}/images/"), ("v1", f"{url}/v1/")]
    return [*doors, ("dav", f"{url}/dav/")] if config.gateway.dav else doors


def who_may(config: Config) -> list[str]:
    """Say who may do what, and what an operator may not have meant."""
    listen = config.gateway.listen
    if config.auth.mode == "none":
        whom = "this machine's users reach it" if listen.is_loopback else "ANYBODY WHO REACHES IT MAY DO EVERYTHING"
        return [f"Everybody is the admin `local` (auth.mode is none); {whom}."]
    if config.auth.mode == "keystone":
        lines = [f"Users are those of {config.auth.keystone.url}; everybody else reads what is public."]
    else:
        lines = [f"Users are those of {config.auth.htpasswd}; everybody else reads what is public."]
    if config.auth.mode == "htpasswd" and not config.auth.htpasswd.exists():
        lines.append("There are no users yet: `glancefs user add NAME` makes one.")
    if config.gateway.tls_cert is None and not listen.is_loopback:
        lines.append("Passwords and tokens cross the network in clear: gateway.tls_cert and tls_key are not set.")
    return lines

# SPDX-License-Identifier: Apache-2.0
"""``glancefs registry``: the registry served to other hosts, from its configuration to its end.

Answers for what happens before the first request (is it guarded, is the database there) and for saying where it is.
How requests are served, the gateway knows.

Threading: the main thread waits for signals.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from glancefs import __version__
from glancefs.cli.said import Said, pass_said, shared_options
from glancefs.cli.serve import LEVELS, set_up_logging
from glancefs.cli.watchdog import Watchdog
from glancefs.config import notify_address, watchdog_seconds
from glancefs.errors import ConfigError

if TYPE_CHECKING:
    from gateway.registry.door import Clocked
    from glancefs.config import Config
    from glancefs.registries.base import Registry

_EMBEDDED: Final = "sqlite:"


@click.command()
@shared_options("config", "data", "debug")
@click.option("--listen", metavar="HOST:PORT", help="Where to answer; by default 127.0.0.1:9191.")
@click.option("--workers", type=click.IntRange(min=1), help="How many processes answer; by default 1.")
@click.option(
    "--log-level", type=click.Choice(LEVELS), default="info", show_default=True, help="What is logged at the least."
)
@pass_said
def registry(said: Said, *, listen: str | None, workers: int | None, log_level: str) -> int:
    """Serve the registry of a data folder to other servers and mounts until SIGTERM or Ctrl-C."""
    from gateway.assembly import make_registry_metrics
    from gateway.server import Server
    from glancefs.assembly import open_served_registry, registry_token

    config = said.load({"registry_server.listen": listen, "registry_server.workers": workers}, writes=True)
    token = registry_token(config)
    _refuse_open_door(config, is_guarded=token is not None)
    set_up_logging(log_level)
    # Before any fork: the database is made once, and what is wrong with it is told once.
    open_served_registry(config, migrate=config.registry.startswith(_EMBEDDED)).close()
    serving = config.registry_server
    metrics = make_registry_metrics(workers=serving.workers)
    opened: list[Registry | Clocked] = []

    def start() -> Clocked:
        from gateway.assembly import make_registry_application

        served = open_served_registry(config)
        application = make_registry_application(served, token=token, metrics=metrics)
        # Nobody is woken any more when the registry is gone.
        opened.extend((application, served))
        return application

    def stop(_: object) -> None:
        for one in opened:
            one.close()

    watchdog = Watchdog(address=notify_address(), seconds=watchdog_seconds())

    def ready(url: str) -> None:
        watchdog.announce(url)
        _announce(config, url, is_guarded=token is not None)

    server = Server(
        app_factory=start,
        listen=str(serving.listen),
        workers=serving.workers,
        tls_cert=serving.tls_cert,
        tls_key=serving.tls_key,
        shutdown_timeout=config.gateway.shutdown_timeout,
        observer=metrics.observe,
        ready=ready,
        on_exit=stop,
    )
    with watchdog:
        return server.run()


def _refuse_open_door(config: Config, *, is_guarded: bool) -> None:
    listen = config.registry_server.listen
    if not is_guarded and not listen.is_loopback:
        message = (
            f"{listen} can be reached from other machines, and there is no registry_token: everybody could change "
            "everything. Set one, the same for all who use this registry."
        )
        raise ConfigError(message)


def _announce(config: Config, url: str, *, is_guarded: bool) -> None:
    lines = [f"glancefs {__version__} registry at {url}"]
    if not is_guarded:
        lines.append("Everybody on this machine may change everything: there is no registry_token.")
    elif config.registry_server.tls_cert is None and not config.registry_server.listen.is_loopback:
        lines.append("The token crosses the network in clear: registry_server.tls_cert and tls_key are not set.")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()

# SPDX-License-Identifier: Apache-2.0
"""From a configuration and a core to the WSGI application of one process.

Answers for choosing and connecting the authenticator, the doors and the pages. Starts nothing.

Threading: an application is made once per process, after any fork; `make_metrics` is called before, so that all
processes count together.
"""

from __future__ import annotations

from gateway.application import ROUTES, Application
from gateway.auth import Authenticator, HtpasswdAuth, NoAuth
from gateway.dav.door import DavDoor
from gateway.health import Health
from gateway.metrics import Metrics, MetricsPage
from gateway.passwords import PasswordFile, RememberedPasswords
from gateway.rest.door import RestDoor
from glancefs.assembly import Assembly, Trees
from glancefs.config import AuthConfig, GatewayConfig


def make_metrics(config: GatewayConfig) -> Metrics:
    """Give what the processes of a server count with; its `observe` is the server's observer."""
    return Metrics(routes=ROUTES, workers=config.workers)


def make_application(core: Assembly, *, metrics: Metrics) -> Application:
    """Give the application over a core, as the core's configuration says."""
    authenticator = make_authenticator(core.config.auth)
    dav = None
    if core.config.gateway.dav:
        dav = DavDoor(
            trees=Trees(core),
            challenge=authenticator.challenge,
            takes_anonymous=core.config.gateway.dav_anonymous,
            uploads=metrics.upload,
        )
    health = Health(registry=core.registry, stores=core.stores)
    return Application(
        rest=RestDoor(images=core.images, uploads=metrics.upload),
        authenticator=authenticator,
        health=health,
        metrics=MetricsPage(metrics=metrics, registry=core.registry, health=health),
        public_url=core.config.gateway.public_url,
        dav=dav,
    )


def make_authenticator(config: AuthConfig) -> Authenticator:
    """Give the authenticator that the configuration names."""
    if config.mode == "htpasswd":
        return HtpasswdAuth(
            file=PasswordFile(path=config.htpasswd), remembered=RememberedPasswords(), admins=config.admins
        )
    return NoAuth()

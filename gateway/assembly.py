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
from gateway.registry.door import ROUTES as REGISTRY_ROUTES
from gateway.registry.door import Clocked, RegistryDoor
from gateway.registry.guard import TokenAuth
from gateway.rest.calls import Calls
from gateway.rest.door import RestDoor
from gateway.rest.feed import Feed
from gateway.root import DoorSign
from glancefs.assembly import Assembly, Trees, make_arrivals
from glancefs.config import AuthConfig, GatewayConfig
from glancefs.errors import ConfigError
from glancefs.registries.base import ServedRegistry


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
        door=RestDoor(
            images=core.images,
            relocation=core.relocation,
            uploads=metrics.upload,
            feed=Feed(folders=core.folders),
            calls=Calls(core=core, uploads=metrics.upload, arrivals=make_arrivals(core)),
        ),
        authenticator=authenticator,
        health=health,
        metrics=MetricsPage(metrics=metrics, registry=core.registry, health=health),
        public_url=core.config.gateway.public_url,
        dav=dav,
    )


def make_registry_metrics(*, workers: int) -> Metrics:
    """Give what the processes of a registry's server count with."""
    return Metrics(routes=(*REGISTRY_ROUTES, "root", "healthcheck", "metrics"), workers=workers)


def make_registry_application(registry: ServedRegistry, *, token: str | None, metrics: Metrics) -> Clocked:
    """Give the application that serves a registry to who presents the token."""
    health = Health(registry=registry, stores={})
    application = Application(
        door=RegistryDoor(registry=registry),
        authenticator=TokenAuth(token=token),
        health=health,
        metrics=MetricsPage(metrics=metrics, registry=registry, health=health),
        signs=[DoorSign(name="registry", path="/images/", about="The images' metadata, for other servers and mounts.")],
    )
    return Clocked(application, on_close=application.close)


def make_authenticator(config: AuthConfig) -> Authenticator:
    """Give the authenticator that the configuration names. Raises ConfigError where its packages are missing."""
    if config.mode == "htpasswd":
        return HtpasswdAuth(
            file=PasswordFile(path=config.htpasswd), remembered=RememberedPasswords(), admins=config.admins
        )
    if config.mode == "keystone":
        return _keystone(config)
    return NoAuth()


def _keystone(config: AuthConfig) -> Authenticator:
    try:
        # An extra of the package, and a quarter of a second that others need not wait.
        from gateway.keystone import KeystoneAuth  # noqa: PLC0415 - see above
    except ImportError as error:
        message = f"auth.mode is keystone, which needs further packages, as glancefs[keystone] brings them: {error}."
        raise ConfigError(message) from None
    return KeystoneAuth(config=config.keystone)

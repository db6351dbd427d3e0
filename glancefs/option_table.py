# SPDX-License-Identifier: Apache-2.0
"""Every option that an operator may set: what it may be, what it means, and what it is unless somebody says otherwise.

Answers for the table alone; `glancefs.config` reads what is said, and `docs/reference/configuration.md` tells more of
each.

Threading: frozen values.
"""

from __future__ import annotations

from typing import Final

from glancefs import options as kinds
from glancefs.options import Address, Option
from glancefs.store_options import STORE_OPTIONS

OPTIONS: Final = (
    Option(
        key="data",
        kind=kinds.PATH,
        about="The folder in which everything is kept that has no other place.",
    ),
    Option(key="default_store", kind=kinds.TEXT, default="file", about="Where images go that name no store."),
    Option(
        key="default_is_public",
        kind=kinds.BOOLEAN,
        default=False,
        about="Whether images are public that don't say. Private ones belong to who adds them.",
    ),
    Option(
        key="image_ids",
        kind=kinds.choice("integer", "uuid"),
        default="integer",
        about="What generated identifiers look like: 1, 2, 3, or UUIDs.",
    ),
    Option(
        key="registry",
        kind=kinds.DATABASE,
        default=lambda data: f"sqlite:///{data / 'registry.sqlite'}",
        about="The database of the images' metadata, or the server that has it.",
    ),
    Option(
        key="registry_token",
        kind=kinds.TOKEN,
        about="The secret that a registry's server shares with those who use it.",
    ),
    Option(key="registry_token_file", kind=kinds.PATH, about="A file that holds the secret, in its place."),
    Option(key="registry_cacert", kind=kinds.PATH, about="Certificates to trust in a registry's server, PEM."),
    Option(
        key="registry_timeout",
        kind=kinds.PATIENCE,
        default=4.0,
        about="How many seconds a registry's server may take to answer.",
    ),
    Option(
        key="registry_server.listen",
        kind=kinds.ADDRESS,
        default=Address(host="127.0.0.1", port=9191),
        about="Host and port on which `glancefs registry` answers.",
    ),
    Option(key="registry_server.workers", kind=kinds.COUNT, default=1, about="How many processes answer on that port."),
    Option(
        key="registry_server.tls_cert",
        kind=kinds.PATH,
        about="The certificate and its chain, PEM. With tls_key it makes `glancefs registry` speak HTTPS.",
    ),
    Option(key="registry_server.tls_key", kind=kinds.PATH, about="The certificate's private key, PEM."),
    Option(
        key="gateway.listen",
        kind=kinds.ADDRESS,
        default=Address(host="127.0.0.1", port=9292),
        about="Host and port on which the server answers.",
    ),
    Option(
        key="gateway.public_url",
        kind=kinds.URL,
        about="What the URIs of images begin with; unset, what each request calls its host.",
    ),
    Option(key="gateway.workers", kind=kinds.COUNT, default=1, about="How many processes answer on the one port."),
    Option(
        key="gateway.tls_cert",
        kind=kinds.PATH,
        about="The certificate and its chain, PEM. With tls_key it makes the server speak HTTPS.",
    ),
    Option(key="gateway.tls_key", kind=kinds.PATH, about="The certificate's private key, PEM."),
    Option(
        key="gateway.dav",
        kind=kinds.BOOLEAN,
        default=True,
        about="Whether the images are served as files over WebDAV, below /dav/.",
    ),
    Option(
        key="gateway.dav_anonymous",
        kind=kinds.BOOLEAN,
        default=True,
        about="Whether WebDAV shows what is public to those who don't log in; else it asks everybody to.",
    ),
    Option(key="gateway.max_upload", kind=kinds.SIZE, about="The largest image that is taken; unset, any."),
    Option(
        key="gateway.max_uploads",
        kind=kinds.COUNT,
        default=32,
        about="How many uploads one process takes at a time; the others are told to come back.",
    ),
    Option(
        key="gateway.max_downloads",
        kind=kinds.COUNT,
        default=64,
        about="How many downloads one process sends at a time; the others are told to come back.",
    ),
    Option(
        key="gateway.max_connections",
        kind=kinds.COUNT,
        default=2000,
        about="How many connections one process keeps open; beyond, the one that idles longest goes.",
    ),
    Option(
        key="gateway.head_timeout",
        kind=kinds.PATIENCE,
        default=15.0,
        about="How many seconds a request's headers may take to arrive.",
    ),
    Option(
        key="gateway.idle_timeout",
        kind=kinds.PATIENCE,
        default=75.0,
        about="How many seconds a connection may stay open without a request.",
    ),
    Option(
        key="gateway.body_timeout",
        kind=kinds.PATIENCE,
        default=30.0,
        about="How many seconds an upload may be silent before it counts as cut.",
    ),
    Option(
        key="gateway.shutdown_timeout",
        kind=kinds.SECONDS,
        default=30.0,
        about="How many seconds requests under way may go on after SIGTERM.",
    ),
    Option(
        key="auth.mode",
        kind=kinds.choice("none", "htpasswd", "keystone"),
        default="none",
        about="none: everybody is the admin `local`. htpasswd: HTTP Basic with the users of a file. keystone: tokens.",
    ),
    Option(
        key="auth.htpasswd",
        kind=kinds.PATH,
        default=lambda data: data / "htpasswd",
        about="The file of users; `glancefs user` maintains it.",
    ),
    Option(
        key="auth.admins",
        kind=kinds.NAMES,
        default=(),
        about="Users who may see and change everybody's images.",
    ),
    Option(
        key="auth.keystone.url",
        kind=kinds.URL,
        default="http://127.0.0.1:5000/v3",
        about="Where Keystone's API of version 3 is.",
    ),
    Option(key="auth.keystone.user", kind=kinds.TEXT, default="glance", about="The user as whom tokens are checked."),
    Option(key="auth.keystone.password", kind=kinds.SECRET, about="That user's password."),
    Option(key="auth.keystone.project", kind=kinds.TEXT, default="service", about="That user's project."),
    Option(
        key="auth.keystone.domain", kind=kinds.TEXT, default="Default", about="The domain of that user and project."
    ),
    Option(
        key="auth.keystone.credential_id",
        kind=kinds.TEXT,
        about="An application credential with which tokens are checked, in place of a user and a password.",
    ),
    Option(key="auth.keystone.credential_secret", kind=kinds.SECRET, about="The application credential's secret."),
    Option(
        key="auth.keystone.admin_role", kind=kinds.TEXT, default="admin", about="The role that makes an admin here."
    ),
    Option(key="auth.keystone.region", kind=kinds.TEXT, about="The region in which Keystone is looked for."),
    Option(
        key="auth.keystone.interface",
        kind=kinds.choice("internal", "public", "admin"),
        default="internal",
        about="By which of its endpoints Keystone is asked.",
    ),
    Option(key="auth.keystone.cacert", kind=kinds.PATH, about="Certificates to trust in Keystone, PEM."),
    Option(
        key="auth.keystone.timeout",
        kind=kinds.PATIENCE,
        default=5.0,
        about="How many seconds Keystone may take to answer.",
    ),
    Option(
        key="auth.keystone.cache_seconds",
        kind=kinds.SECONDS,
        default=300.0,
        about="For how many seconds a token that was right is not checked again.",
    ),
    *STORE_OPTIONS,
)

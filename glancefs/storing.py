# SPDX-License-Identifier: Apache-2.0
"""From the configuration of the stores to stores: the part of the assembly that knows their classes.

Answers for making those that are configured, and for telling which package one of them lacks. Connects to nothing.

Threading: stores are made once per process, after any fork.
"""

from __future__ import annotations

from collections.abc import Mapping

from glancefs.errors import ConfigError
from glancefs.store_options import S3StoreConfig, StoresConfig, SwiftStoreConfig
from glancefs.stores.base import Store
from glancefs.stores.file import FileStore
from glancefs.stores.owner import Owner


def make_stores(config: StoresConfig, *, owners: Mapping[str, Owner]) -> dict[str, Store]:
    """Make every store that is configured, by its name. Raises ConfigError where a package is missing."""
    stores: dict[str, Store] = {"file": FileStore(path=config.file.path, owner=owners["file"])}
    for name in config.configured():
        try:
            if name == "swift":
                stores[name] = _swift(config.swift, owners[name])
            elif name == "s3":
                stores[name] = _s3(config.s3, owners[name])
        except ImportError as error:
            message = f"The store {name!r} needs the package {error.name}: install glancefs[{name}]."
            raise ConfigError(message) from error
    return stores


def _swift(config: SwiftStoreConfig, owner: Owner) -> Store:
    # The clients take a good part of a second to load, which those who have no such store need not wait for.
    from glancefs.stores.objects import ObjectStore  # noqa: PLC0415 - as above
    from glancefs.stores.swift import SwiftEngine  # noqa: PLC0415 - as above
    from glancefs.stores.swift_access import Credentials, SwiftAccess  # noqa: PLC0415 - as above

    credentials = Credentials(
        auth_url=str(config.auth_url),
        version=config.auth_version,
        user=config.user,
        key=config.key,
        project=config.project,
        domain=config.domain,
        application_id=config.application_credential_id,
        application_secret=config.application_credential_secret,
    )
    access = SwiftAccess(
        credentials=credentials,
        region=config.region,
        timeout=config.timeout,
        insecure=config.insecure,
        cacert=None if config.cacert is None else str(config.cacert),
    )
    return ObjectStore(
        scheme="swift",
        engine=SwiftEngine(access=access, container=config.container),
        part_size=config.segment_size,
        retries=config.retries,
        owner=owner,
    )


def _s3(config: S3StoreConfig, owner: Owner) -> Store:
    from glancefs.stores.objects import ObjectStore  # noqa: PLC0415 - as above
    from glancefs.stores.s3 import S3Engine, S3Settings, make_client  # noqa: PLC0415 - as above

    settings = S3Settings(
        bucket=str(config.bucket),
        endpoint_url=config.endpoint_url,
        region=config.region,
        access_key=config.access_key,
        secret_key=config.secret_key,
        path_style=config.path_style,
        sse=config.sse,
        sse_key=config.sse_key,
        timeout=config.timeout,
        insecure=config.insecure,
        cacert=None if config.cacert is None else str(config.cacert),
    )
    return ObjectStore(
        scheme="s3",
        engine=S3Engine(settings, client=make_client(settings)),
        part_size=config.part_size,
        retries=config.retries,
        owner=owner,
    )

# SPDX-License-Identifier: Apache-2.0
"""The options of the stores: where the bytes of images are kept, and with which credentials.

Answers for what can be said of each store, and for what of it goes together. Opens nothing.

Threading: values are frozen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from glancefs import options as kinds
from glancefs.errors import ConfigError
from glancefs.options import Option

LEAST_PART: Final = 64 * 1024
"""In bytes: smaller parts would be all overhead."""
LEAST_S3_PART: Final = 5 * 1024 * 1024
"""In bytes: what S3 asks for of all parts but the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStoreConfig:
    """Images as files of a local file system."""

    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SwiftStoreConfig:
    """Images in a container of an OpenStack Swift; configured where ``auth_url`` is said."""

    auth_url: str | None
    auth_version: str
    user: str | None
    key: str | None = field(repr=False)
    project: str | None
    domain: str
    application_credential_id: str | None
    application_credential_secret: str | None = field(repr=False)
    region: str | None
    container: str
    segment_size: int
    insecure: bool
    cacert: Path | None
    retries: int
    timeout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class S3StoreConfig:
    """Images in a bucket of whatever speaks S3; configured where ``bucket`` is said."""

    bucket: str | None
    endpoint_url: str | None
    region: str | None
    access_key: str | None
    secret_key: str | None = field(repr=False)
    path_style: bool
    part_size: int
    sse: str | None
    sse_key: str | None
    insecure: bool
    cacert: Path | None
    retries: int
    timeout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StoresConfig:
    """Where the bytes of images are kept."""

    file: FileStoreConfig
    swift: SwiftStoreConfig
    s3: S3StoreConfig

    def configured(self) -> Iterator[str]:
        """Give the names of the stores that there are."""
        yield "file"
        if self.swift.auth_url is not None:
            yield "swift"
        if self.s3.bucket is not None:
            yield "s3"


def _of_every_network(store: str) -> tuple[Option, ...]:
    return (
        Option(
            key=f"stores.{store}.insecure",
            kind=kinds.BOOLEAN,
            default=False,
            about="Whether its certificate is not looked at.",
        ),
        Option(key=f"stores.{store}.cacert", kind=kinds.PATH, about="Certificates to trust instead of the system's."),
        Option(
            key=f"stores.{store}.retries",
            kind=kinds.COUNT,
            default=5,
            about="How often a call that fails is tried again, with growing pauses.",
        ),
        Option(
            key=f"stores.{store}.timeout",
            kind=kinds.PATIENCE,
            default=30.0,
            about="How many seconds it may be silent before a call counts as failed.",
        ),
    )


STORE_OPTIONS: Final = (
    Option(
        key="stores.file.path",
        kind=kinds.PATH,
        default=lambda data: data / "images",
        about="The folder of the images' bytes.",
    ),
    Option(key="stores.swift.auth_url", kind=kinds.URL, about="Where to log in to Swift; unset, there is none."),
    Option(
        key="stores.swift.auth_version",
        kind=kinds.choice("1", "3"),
        default="3",
        about="How to log in: 3 is Keystone, 1 is Swift's own way.",
    ),
    Option(key="stores.swift.user", kind=kinds.TEXT, about="Who logs in; with auth_version 1, account:user."),
    Option(key="stores.swift.key", kind=kinds.SECRET, about="The user's password."),
    Option(
        key="stores.swift.project",
        kind=kinds.TEXT,
        about="The Keystone project that has the container; with auth_version 1, another account than the user's own.",
    ),
    Option(
        key="stores.swift.domain", kind=kinds.TEXT, default="Default", about="The Keystone domain of user and project."
    ),
    Option(
        key="stores.swift.application_credential_id",
        kind=kinds.TEXT,
        about="An application credential of Keystone, instead of user, key and project.",
    ),
    Option(key="stores.swift.application_credential_secret", kind=kinds.SECRET, about="Its secret."),
    Option(key="stores.swift.region", kind=kinds.TEXT, about="The region, where Keystone's catalog has several."),
    Option(
        key="stores.swift.container",
        kind=kinds.TEXT,
        default="glancefs",
        about="The container of the images' bytes; it is made when the first comes.",
    ),
    Option(
        key="stores.swift.segment_size",
        kind=kinds.SIZE,
        default=32 * 1024 * 1024,
        about="Into segments of how many bytes images are cut; each upload holds up to three in memory.",
    ),
    *_of_every_network("swift"),
    Option(key="stores.s3.bucket", kind=kinds.TEXT, about="The bucket of the images' bytes; unset, there is none."),
    Option(key="stores.s3.endpoint_url", kind=kinds.URL, about="Where S3 is spoken; unset, at Amazon."),
    Option(key="stores.s3.region", kind=kinds.TEXT, about="The bucket's region."),
    Option(
        key="stores.s3.access_key",
        kind=kinds.TEXT,
        about="Who we are; unset, whoever boto3 finds that we are.",
    ),
    Option(key="stores.s3.secret_key", kind=kinds.SECRET, about="The secret that belongs to access_key."),
    Option(
        key="stores.s3.path_style",
        kind=kinds.BOOLEAN,
        default=False,
        about="Whether the bucket is named in the path, not in the host's name; most servers but Amazon's want it.",
    ),
    Option(
        key="stores.s3.part_size",
        kind=kinds.SIZE,
        default=32 * 1024 * 1024,
        about="Into parts of how many bytes images are cut; each upload holds up to three in memory.",
    ),
    Option(
        key="stores.s3.sse",
        kind=kinds.choice("AES256", "aws:kms"),
        about="How the server is to encrypt what it keeps; unset, as the bucket says.",
    ),
    Option(key="stores.s3.sse_key", kind=kinds.TEXT, about="The name of the key, for aws:kms."),
    *_of_every_network("s3"),
)


def check_stores(stores: StoresConfig, *, default_store: str, origins: Mapping[str, str]) -> None:
    """Refuse what single values can't tell. Raises ConfigError."""
    there = list(stores.configured())
    if default_store not in there:
        known = {option.key.split(".")[1]: option.key for option in STORE_OPTIONS[::-1]}
        hint = ""
        if default_store in known:
            switch = "auth_url" if default_store == "swift" else "bucket"
            hint = f"; stores.{default_store}.{switch} is not set"
        message = f"default_store is {default_store!r}, but there is {', '.join(sorted(there))} only{hint}."
        raise ConfigError(f"{origins['default_store']}: {message}")
    if "swift" in there:
        _check_swift(stores.swift, origins)
    for key, size, least in (
        ("stores.swift.segment_size", stores.swift.segment_size, LEAST_PART),
        ("stores.s3.part_size", stores.s3.part_size, LEAST_S3_PART),
    ):
        if size < least:
            raise ConfigError(f"{origins[key]}: {key} is {size}, and the least is {least}.")
    if (stores.s3.access_key is None) != (stores.s3.secret_key is None):
        _refuse_single("stores.s3.access_key", "stores.s3.secret_key", stores.s3.access_key, origins)


def _check_swift(swift: SwiftStoreConfig, origins: Mapping[str, str]) -> None:
    prefix = "stores.swift."
    if swift.application_credential_id is not None or swift.application_credential_secret is not None:
        if swift.auth_version != "3":
            raise ConfigError(
                f"{origins[f'{prefix}auth_version']}: application credentials need stores.swift.auth_version 3."
            )
        if swift.application_credential_id is None or swift.application_credential_secret is None:
            name = f"{prefix}application_credential_"
            _refuse_single(f"{name}id", f"{name}secret", swift.application_credential_id, origins)
        return
    wanted = {"user": swift.user, "key": swift.key}
    if swift.auth_version == "3":
        wanted["project"] = swift.project
    for name, value in wanted.items():
        if value is None:
            raise ConfigError(f"{origins[f'{prefix}auth_url']}: stores.swift.auth_url needs {prefix}{name} beside it.")


def _refuse_single(one: str, other: str, value: str | None, origins: Mapping[str, str]) -> None:
    given, missing = (other, one) if value is None else (one, other)
    raise ConfigError(f"{origins[given]}: {given} needs {missing} beside it.")

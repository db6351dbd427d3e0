# SPDX-License-Identifier: Apache-2.0
"""The configuration: one TOML file, the environment and the command line, read once into one frozen value.

Answers for which source wins (command line, then environment, then file, then default), for where each value came from,
and for what single values can't tell. Which options there are, `glancefs.option_table` says. The only reader of the
environment. Opens nothing that an option names.

Every option is overridden by ``GLANCEFS_<SECTION>_<OPTION>``; an empty variable counts as not set. Relative paths are
relative to the folder of the file that says them, or to the working directory.

Threading: values are frozen; reading is done once, at start.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from glancefs import options as kinds
from glancefs.config_file import Said, did_you_mean, read_file
from glancefs.errors import ConfigError
from glancefs.option_table import OPTIONS
from glancefs.options import PREFIX, Address, Option
from glancefs.store_options import FileStoreConfig, S3StoreConfig, StoresConfig, SwiftStoreConfig, check_stores

DEFAULT: Final = "default"

# What the client reads, where the file is, and what Kubernetes sets for a service called glancefs are no options.
_OTHER_VARIABLES = re.compile(r"GLANCEFS_(CONFIG|URL|USER|PASSWORD|TOKEN|CACERT|(SERVICE|PORT)(_.*)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """The HTTP server."""

    listen: Address
    public_url: str | None
    workers: int
    tls_cert: Path | None
    tls_key: Path | None
    dav: bool
    dav_anonymous: bool
    max_upload: int | None
    max_uploads: int
    max_downloads: int
    max_connections: int
    head_timeout: float
    idle_timeout: float
    body_timeout: float
    shutdown_timeout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryServerConfig:
    """The registry as a service to other hosts."""

    listen: Address
    workers: int
    tls_cert: Path | None
    tls_key: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeystoneConfig:
    """Which Keystone knows who is asking, and as whom it is asked."""

    url: str
    user: str
    password: str | None = field(repr=False)
    project: str
    domain: str
    credential_id: str | None
    credential_secret: str | None = field(repr=False)
    admin_role: str
    region: str | None
    interface: str
    cacert: Path | None
    timeout: float
    cache_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthConfig:
    """Who is asking."""

    mode: str
    htpasswd: Path
    admins: tuple[str, ...]
    keystone: KeystoneConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that an operator may say. `OPTIONS` tells the meaning of each field."""

    data: Path
    default_store: str
    default_is_public: bool
    image_ids: str
    registry: str
    registry_token: str | None = field(repr=False)
    registry_token_file: Path | None
    registry_cacert: Path | None
    registry_timeout: float
    registry_server: RegistryServerConfig
    gateway: GatewayConfig
    auth: AuthConfig
    stores: StoresConfig
    origins: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), compare=False, repr=False)
    """Where each value came from, by the option's dotted key."""

    @classmethod
    def at(cls, data: Path, said: Mapping[str, object] | None = None) -> Config:
        """Give the configuration of a data folder with defaults for what isn't said, by dotted keys.

        Reads neither a file nor the environment. Raises ConfigError.
        """
        return _assemble(_overrides(said or {}), data=data.absolute())


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What one option is, as text without secrets, and where that came from."""

    option: Option
    text: str | None
    """None for an option that is not set."""
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteConfig:
    """Which server the command line speaks to, and as whom. Not part of the file: it would hold secrets."""

    url: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    cacert: Path | None = None


def load(
    *,
    file: Path | None = None,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Read the configuration; ``overrides`` are values by dotted key that win over everything (the command line).

    Raises ConfigError, in one line, for a file that is not there or no TOML, for unknown options and for wrong values.
    """
    variables = os.environ if environ is None else environ
    found = config_file(file=file, environ=variables)
    said = read_file(found, [option.key for option in OPTIONS]) if found else {}
    home = Path(variables.get("XDG_DATA_HOME") or _home(variables) / ".local" / "share")
    return _assemble(said | _from_environment(variables) | _overrides(overrides or {}), data=home / "glancefs")


def config_file(*, file: Path | None = None, environ: Mapping[str, str] | None = None) -> Path | None:
    """Find the file: the given one, ``$GLANCEFS_CONFIG``, the user's, the system's; None when there is none of them.

    Raises ConfigError when one that was named is not there.
    """
    variables = os.environ if environ is None else environ
    named = file or (Path(variables["GLANCEFS_CONFIG"]) if variables.get("GLANCEFS_CONFIG") else None)
    if named:
        if not named.is_file():
            message = f"There is no configuration file {named}."
            raise ConfigError(message)
        return named.absolute()
    own = Path(variables.get("XDG_CONFIG_HOME") or _home(variables) / ".config")
    places = (own / "glancefs" / "config.toml", Path("/etc/glancefs/config.toml"))
    return next((place for place in places if place.is_file()), None)


def describe(config: Config) -> Iterator[Setting]:
    """Tell every option's value and where it came from; passwords within values are hidden."""
    for option in OPTIONS:
        value: Any = config
        for name in option.key.split("."):
            value = getattr(value, name)
        shown = None if value is None else option.kind.show(value)
        yield Setting(option=option, text=shown, origin=config.origins.get(option.key, DEFAULT))


def remote_from_environment(environ: Mapping[str, str] | None = None) -> RemoteConfig:
    """Read ``GLANCEFS_URL``, ``_USER``, ``_PASSWORD``, ``_TOKEN`` and ``_CACERT``."""
    variables = os.environ if environ is None else environ
    cacert = variables.get("GLANCEFS_CACERT")
    return RemoteConfig(
        url=variables.get("GLANCEFS_URL") or None,
        user=variables.get("GLANCEFS_USER") or None,
        password=variables.get("GLANCEFS_PASSWORD") or None,
        token=variables.get("GLANCEFS_TOKEN") or None,
        cacert=Path(cacert) if cacert else None,
    )


def cache_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Give the folder for what can be had again, of the user who asks (XDG Base Directory Specification)."""
    variables = os.environ if environ is None else environ
    said = variables.get("XDG_CACHE_HOME", "")
    # Relative paths are to be ignored.
    if said.startswith("/"):
        return Path(said) / "glancefs"
    # At boot nobody says where the home is.
    home = variables.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir
    return Path(home) / ".cache" / "glancefs"


def notify_address(environ: Mapping[str, str] | None = None) -> str | None:
    """Read where systemd wants to hear that a service is ready (sd_notify(3)); None where nobody does."""
    return (os.environ if environ is None else environ).get("NOTIFY_SOCKET") or None


def watchdog_seconds(environ: Mapping[str, str] | None = None) -> float | None:
    """Read within how many seconds systemd wants to hear again and again that this very process is alive.

    None where nobody does (sd_watchdog_enabled(3)).
    """
    variables = os.environ if environ is None else environ
    microseconds, pid = variables.get("WATCHDOG_USEC", ""), variables.get("WATCHDOG_PID", str(os.getpid()))
    return int(microseconds) / 1e6 if microseconds.isdecimal() and pid == str(os.getpid()) else None


def with_tilde(path: str, environ: Mapping[str, str] | None = None) -> str:
    """Give a path as people write it, with ``~`` for their home."""
    home = str(_home(os.environ if environ is None else environ))
    return f"~{path.removeprefix(home)}" if home != "/" and path.startswith(f"{home}/") else path


def wants_plain_text(environ: Mapping[str, str] | None = None) -> bool:
    """Whether a terminal is to be written on line by line: it can't do more, or its user wants no colour."""
    variables = os.environ if environ is None else environ
    return bool(variables.get("NO_COLOR")) or variables.get("TERM", "dumb") in {"", "dumb"}


def _home(environ: Mapping[str, str]) -> Path:
    if said := environ.get("HOME"):
        return Path(said)
    # mount(8) and systemd say none.
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return Path("/")


def _overrides(values: Mapping[str, object]) -> dict[str, Said]:
    return {
        key: Said(value=str(value) if isinstance(value, Path) else value, origin="command line")
        for key, value in values.items()
        if value is not None
    }


def _from_environment(environ: Mapping[str, str]) -> dict[str, Said]:
    by_variable = {option.variable: option for option in OPTIONS}
    said = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or _OTHER_VARIABLES.fullmatch(variable):
            continue
        if variable not in by_variable:
            message = f"The environment variable {variable} is no option{did_you_mean(variable, by_variable)}"
            raise ConfigError(message)
        if text:
            said[by_variable[variable].key] = Said(value=text, origin=variable, is_text=True)
    return said


def _assemble(said: Mapping[str, Said], *, data: Path) -> Config:
    known = {option.key: option for option in OPTIONS}
    values: dict[str, Any] = {"data": data}
    for key in said:
        if key not in known:
            message = f"{key} is no option{did_you_mean(key, known)}"
            raise ConfigError(message)
    for option in OPTIONS:
        if option.key in said:
            values[option.key] = _value(option, said[option.key])
        elif option.key not in values:
            values[option.key] = option.default(values["data"]) if callable(option.default) else option.default
    config = _build(values, {key: entry.origin for key, entry in said.items()})
    _check(config)
    return config


def _value(option: Option, said: Said) -> object:
    value = said.value
    try:
        if said.is_text:
            value = option.kind.parse(str(value))
        return option.kind.read(value, said.folder)
    except ValueError:
        shown = "that" if option.kind.is_secret else _shown(said.value)
        message = f"{said.origin}: {option.key} takes {option.kind.name}, not {shown}."
        raise ConfigError(message) from None


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(kinds.hide_password(value) if isinstance(value, str) else value)[:80]


def _build(values: Mapping[str, Any], origins: Mapping[str, str]) -> Config:
    def section(prefix: str) -> dict[str, Any]:
        return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}

    return Config(
        **{key: value for key, value in values.items() if "." not in key},
        registry_server=RegistryServerConfig(**section("registry_server.")),
        gateway=GatewayConfig(**section("gateway.")),
        auth=AuthConfig(
            **{key: value for key, value in section("auth.").items() if "." not in key},
            keystone=KeystoneConfig(**section("auth.keystone.")),
        ),
        stores=StoresConfig(
            file=FileStoreConfig(**section("stores.file.")),
            swift=SwiftStoreConfig(**section("stores.swift.")),
            s3=S3StoreConfig(**section("stores.s3.")),
        ),
        origins=MappingProxyType({option.key: origins.get(option.key, DEFAULT) for option in OPTIONS}),
    )


def _check(config: Config) -> None:
    """Refuse what single values can't tell."""
    check_stores(config.stores, default_store=config.default_store, origins=config.origins)
    for section, server in (("gateway", config.gateway), ("registry_server", config.registry_server)):
        if (server.tls_cert is None) != (server.tls_key is None):
            given, wanted = ("tls_cert", "tls_key") if server.tls_cert else ("tls_key", "tls_cert")
            message = f"{config.origins[f'{section}.{given}']}: {section}.{given} needs {section}.{wanted} beside it."
            raise ConfigError(message)
    keystone = config.auth.keystone
    if config.auth.mode == "keystone" and keystone.password is None and keystone.credential_secret is None:
        message = (
            f"{config.origins['auth.mode']}: auth.mode is keystone, which needs auth.keystone.password, "
            "or auth.keystone.credential_id and auth.keystone.credential_secret."
        )
        raise ConfigError(message)
    if (keystone.credential_id is None) != (keystone.credential_secret is None):
        raise ConfigError("auth.keystone.credential_id and auth.keystone.credential_secret need each other.")
    if config.registry_token is not None and config.registry_token_file is not None:
        origin = config.origins["registry_token_file"]
        message = f"{origin}: registry_token_file and registry_token are both said; one is enough."
        raise ConfigError(message)

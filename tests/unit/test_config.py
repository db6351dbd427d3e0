# SPDX-License-Identifier: Apache-2.0
"""The configuration: which source wins, what is refused, and in which words.

Threading: none.
"""

from __future__ import annotations

import dataclasses
import os
import pwd
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from glancefs.config import Config, cache_folder, config_file, describe, load, remote_from_environment
from glancefs.errors import ConfigError
from glancefs.option_table import OPTIONS
from glancefs.options import Address

SWIFT = "[stores.swift]\nauth_url = 'http://login.example/v3'\n"


def loaded(
    tmp_path: Path,
    content: str = "",
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Config:
    file = tmp_path / "config.toml"
    file.write_text(content)
    return load(file=file, environ={"HOME": str(tmp_path)} | dict(environ or {}), overrides=overrides)


def refusal(tmp_path: Path, content: str = "", environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, content, environ)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{tmp_path}/")


def leaves(value: object, prefix: str = "") -> Iterator[str]:
    assert dataclasses.is_dataclass(value)
    for entry in dataclasses.fields(value):
        inner = getattr(value, entry.name)
        if dataclasses.is_dataclass(inner) and not isinstance(inner, Address):
            yield from leaves(inner, f"{prefix}{entry.name}.")
        elif entry.name != "origins":
            yield prefix + entry.name


def test_every_field_is_an_option_and_every_option_a_field(tmp_path: Path) -> None:
    assert sorted(leaves(Config.at(tmp_path))) == sorted(option.key for option in OPTIONS)


def test_nothing_said_gives_the_defaults(tmp_path: Path) -> None:
    config = load(environ={"HOME": str(tmp_path)})
    data = tmp_path / ".local/share/glancefs"
    assert config.data == data
    assert config.stores.file.path == data / "images"
    assert config.registry == f"sqlite:///{data}/registry.sqlite"
    assert config.auth.htpasswd == data / "htpasswd"
    assert str(config.gateway.listen) == "127.0.0.1:9292"
    assert config.gateway.listen.is_loopback
    assert set(config.origins.values()) == {"default"}


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    content = "[gateway]\nworkers = 2\nshutdown_timeout = 5\nlisten = 'localhost:1'\n"
    environ = {"GLANCEFS_GATEWAY_WORKERS": "3", "GLANCEFS_GATEWAY_LISTEN": "localhost:2"}
    config = loaded(tmp_path, content, environ, {"gateway.listen": "localhost:3", "gateway.max_upload": None})
    assert (config.gateway.shutdown_timeout, config.gateway.workers, config.gateway.listen.port) == (5.0, 3, 3)
    assert config.origins["gateway.shutdown_timeout"] == f"{tmp_path}/config.toml:3"
    assert config.origins["gateway.workers"] == "GLANCEFS_GATEWAY_WORKERS"
    assert config.origins["gateway.listen"] == "command line"
    assert config.origins["gateway.max_upload"] == "default"


def test_every_option_is_taken_from_the_environment(tmp_path: Path) -> None:
    said = {
        "data": "/d",
        "default_store": "file",
        "default_is_public": "yes",
        "image_ids": "uuid",
        "registry": "postgresql://db/glance",
        "gateway.listen": "[::1]:80",
        "gateway.public_url": "https://images.example/",
        "gateway.workers": "4",
        "gateway.tls_cert": "/c.pem",
        "gateway.tls_key": "/k.pem",
        "gateway.max_upload": "20G",
        "gateway.shutdown_timeout": "1.5",
        "auth.mode": "htpasswd",
        "auth.htpasswd": "/h",
        "auth.admins": "ann, bob",
        "stores.file.path": "/s",
    }
    assert said.keys() <= {option.key for option in OPTIONS}
    environ = {option.variable: said[option.key] for option in OPTIONS if option.key in said}
    config = loaded(tmp_path, environ=environ)
    assert config.default_is_public is True
    assert config.gateway.listen == Address(host="::1", port=80)
    assert config.gateway.public_url == "https://images.example"
    assert config.gateway.max_upload == 20 * 1024**3
    assert config.auth.admins == ("ann", "bob")
    assert config.stores.file.path == Path("/s")
    assert {key: config.origins[key] for key in said} == {
        option.key: option.variable for option in OPTIONS if option.key in said
    }


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    assert loaded(tmp_path, "[gateway]\nworkers = 2", {"GLANCEFS_GATEWAY_WORKERS": ""}).gateway.workers == 2


def test_relative_paths_are_relative_to_who_says_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    config = loaded(
        tmp_path,
        "data = 'store'\nregistry = 'sqlite:///r.db'",
        {"GLANCEFS_AUTH_HTPASSWD": "users"},
        {"stores.file.path": "bytes"},
    )
    assert config.data == tmp_path / "store"
    assert config.registry == f"sqlite:///{tmp_path}/r.db"
    assert config.auth.htpasswd == elsewhere / "users"
    assert config.stores.file.path == elsewhere / "bytes"


def test_the_first_file_found_counts(tmp_path: Path) -> None:
    own = tmp_path / ".config/glancefs/config.toml"
    own.parent.mkdir(parents=True)
    own.write_text("")
    named = tmp_path / "named.toml"
    named.write_text("")
    environ = {"HOME": str(tmp_path)}
    assert config_file(environ=environ) == own
    assert config_file(environ=environ | {"GLANCEFS_CONFIG": str(named)}) == named
    assert config_file(file=own, environ=environ | {"GLANCEFS_CONFIG": str(named)}) == own


def test_a_named_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no configuration file .*gone\.toml\."):
        load(environ={"GLANCEFS_CONFIG": str(tmp_path / "gone.toml")})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[gateway]\n\nworkrs = 2", "config.toml:3: gateway.workrs is no option; did you mean gateway.workers?"),
        ("listen = 'localhost:1'", "config.toml:1: listen is no option; did you mean gateway.listen?"),
        ("[gatway]\nworkers = 2", "config.toml:1: gatway is no option; did you mean gateway?"),
        ("[stores.swft]\nkey = 2", "config.toml:1: stores.swft is no option; did you mean stores.swift?"),
        ("[stores.swift]\nkey = 7", "config.toml:2: stores.swift.key takes text, not that."),
        (f"{SWIFT}container = 'c'", "config.toml:2: stores.swift.auth_url needs stores.swift.user beside it."),
        (f"{SWIFT}user = 'u'\nkey = 'k'", "config.toml:2: stores.swift.auth_url needs stores.swift.project beside it."),
        (
            f"{SWIFT}application_credential_id = 'i'",
            "config.toml:3: stores.swift.application_credential_id needs stores.swift.application_credential_secret",
        ),
        (
            f"{SWIFT}application_credential_secret = 's'\nauth_version = 1",
            "config.toml:4: application credentials need stores.swift.auth_version 3.",
        ),
        ("[stores.swift]\nsegment_size = 1", "config.toml:2: stores.swift.segment_size is 1, and the least is 65536."),
        ("[stores.s3]\nsecret_key = 's'", "config.toml:2: stores.s3.secret_key needs stores.s3.access_key beside it."),
        ("[stores.s3]\npart_size = '1M'", "config.toml:2: stores.s3.part_size is 1048576, and the least is 5242880."),
        ("[gateway]\nworkers = '2'", "config.toml:2: gateway.workers takes a whole number from 1, not '2'."),
        ("gateway.workers = true", "config.toml:1: gateway.workers takes a whole number from 1, not true."),
        ("[gateway]\nworkers = 0", "config.toml:2: gateway.workers takes a whole number from 1, not 0."),
        ("gateway = 1", "config.toml:1: gateway is a section; it takes [gateway] and options below it."),
        ("default_is_public = 'yes'", "config.toml:1: default_is_public takes true or false, not 'yes'."),
        ("image_ids = 'text'", 'config.toml:1: image_ids takes "integer" or "uuid", not \'text\'.'),
        ("[gateway]\nlisten = 'here'", "config.toml:2: gateway.listen takes a host and a port"),
        ("[gateway]\nlisten = 'h:70000'", "config.toml:2: gateway.listen takes a host and a port"),
        ("[gateway]\nmax_upload = '20 apples'", "config.toml:2: gateway.max_upload takes bytes"),
        ("[gateway]\nmax_upload = -1", "config.toml:2: gateway.max_upload takes bytes"),
        ("[gateway]\nshutdown_timeout = -1", "config.toml:2: gateway.shutdown_timeout takes seconds"),
        ("[gateway]\nidle_timeout = 0", "config.toml:2: gateway.idle_timeout takes seconds, more than 0, not 0."),
        ("[gateway]\nshutdown_timeout = nan", "config.toml:2: gateway.shutdown_timeout takes seconds"),
        ("[gateway]\npublic_url = 'images.example'", "config.toml:2: gateway.public_url takes a URL"),
        ("[auth]\nadmins = 'ann'", "config.toml:2: auth.admins takes a list of names, not 'ann'."),
        ("data = ''", "config.toml:1: data takes a path, not ''."),
        (
            "default_store = 'swift'",
            "config.toml:1: default_store is 'swift', but there is file only; stores.swift.auth_url is not set.",
        ),
        ("[gateway]\ntls_cert = 'c.pem'", "config.toml:2: gateway.tls_cert needs gateway.tls_key beside it."),
        ("a b", "config.toml is not TOML: "),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(tmp_path: Path, content: str, message: str) -> None:
    assert refusal(tmp_path, content).startswith(message)


def test_an_unknown_variable_is_refused_with_the_nearest(tmp_path: Path) -> None:
    message = refusal(tmp_path, environ={"GLANCEFS_GATEWAY_WORKER": "2"})
    assert message == (
        "The environment variable GLANCEFS_GATEWAY_WORKER is no option; did you mean GLANCEFS_GATEWAY_WORKERS?"
    )


def test_a_wrong_variable_is_named(tmp_path: Path) -> None:
    message = refusal(tmp_path, environ={"GLANCEFS_GATEWAY_WORKERS": "two"})
    assert message.startswith("GLANCEFS_GATEWAY_WORKERS: gateway.workers takes a whole number from 1, not 'two'")


def test_variables_of_kubernetes_and_of_the_client_are_no_options(tmp_path: Path) -> None:
    environ = {"GLANCEFS_PORT": "tcp://10.0.0.1:80", "GLANCEFS_SERVICE_HOST": "10.0.0.1", "GLANCEFS_PASSWORD": "x"}
    assert loaded(tmp_path, environ=environ).gateway.listen.port == 9292


def test_passwords_are_neither_described_nor_told_in_errors(tmp_path: Path) -> None:
    config = loaded(tmp_path, "registry = 'postgresql://glance:s3cret@db/glance'")
    shown = {setting.option.key: setting.text for setting in describe(config)}
    assert shown["registry"] == "postgresql://glance:***@db/glance"
    assert "s3cret" not in refusal(tmp_path, "gateway.public_url = 'http://ann:s3cret@h'")


def test_every_setting_is_described_as_it_can_be_said(tmp_path: Path) -> None:
    config = Config.at(tmp_path, {"gateway.max_upload": "1MiB", "auth.admins": ["ann", "bob"]})
    shown = {setting.option.key: setting.text for setting in describe(config)}
    environ = {option.variable: text for option in OPTIONS if (text := shown[option.key]) is not None}
    assert loaded(tmp_path, environ=environ) == config


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("h", False)],
)
def test_what_only_this_machine_reaches(host: str, is_loopback: bool) -> None:  # noqa: FBT001 - a case of the table
    assert Address(host=host, port=1).is_loopback is is_loopback


def test_the_server_may_listen_on_a_unix_socket(tmp_path: Path) -> None:
    listen = Config.at(tmp_path, {"gateway.listen": "unix:/run/glancefs.sock"}).gateway.listen
    assert (listen.path, str(listen), listen.is_loopback) == ("/run/glancefs.sock", "unix:/run/glancefs.sock", True)


def test_credentials_are_read_and_not_shown() -> None:
    remote = remote_from_environment({"GLANCEFS_URL": "http://h", "GLANCEFS_USER": "ann", "GLANCEFS_PASSWORD": "s3"})
    assert (remote.url, remote.user, remote.password, remote.token) == ("http://h", "ann", "s3", None)
    assert "s3" not in repr(remote)


def test_several_stores_can_be_configured_and_what_is_secret_is_never_shown(tmp_path: Path) -> None:
    content = f"default_store = 'swift'\n{SWIFT}user = 'u'\nkey = 'hidden'\nproject = 'p'\n"
    content += "[stores.s3]\nbucket = 'b'\naccess_key = 'a'\nsecret_key = 'hidden'"
    config = loaded(tmp_path, content)
    assert list(config.stores.configured()) == ["file", "swift", "s3"]
    assert (config.stores.swift.key, config.stores.s3.secret_key) == ("hidden", "hidden")
    shown = {setting.option.key: setting.text for setting in describe(config)}
    assert (shown["stores.swift.key"], shown["stores.s3.secret_key"]) == ("***", "***")
    assert "hidden" not in f"{shown} {config!r}"


def test_without_a_home_in_the_environment_it_is_the_user_s() -> None:
    assert cache_folder(environ={}) == Path(pwd.getpwuid(os.getuid()).pw_dir, ".cache", "glancefs")

# SPDX-License-Identifier: Apache-2.0
"""Credentials come from where nobody else can read them, and are told to nobody.

Threading: none.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from glancefs.config import RemoteConfig
from glancefs.credentials import credentials_for, read_credentials
from glancefs.errors import ConfigError
from glancefs.transport import Credentials

URL = "https://images.example.org/"


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    file = folder / "credentials"
    file.write_text(text)
    file.chmod(mode)
    return file


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("user=alice\npassword=a=b#c \n", Credentials(user="alice", password="a=b#c ")),
        ("# mine\n\n user = alice\npassword=\n", Credentials(user="alice", password="")),
        ("token=gAAAA", Credentials(token="gAAAA")),
    ],
)
def test_a_file_of_lines_is_read(tmp_path: Path, text: str, found: Credentials) -> None:
    assert read_credentials(written(tmp_path, text)) == found


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_file_that_others_can_use_is_refused_with_the_cure(tmp_path: Path, mode: int) -> None:
    file = written(tmp_path, "user=alice\npassword=secret\n", mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_credentials(file)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, "user=alice\npassword=secret\n")
    os.chown(file, 12345, 12345)
    with pytest.raises(ConfigError, match="somebody else"):
        read_credentials(file)


@pytest.mark.parametrize(
    "text",
    [
        *("", "user=alice\n", "secret", "user=a\nuser=b\npassword=secret", "pass=secret\n", "password=secret"),
        "\xff" * 70_000,
    ],
)
def test_what_holds_no_credentials_is_refused_and_not_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_credentials(written(tmp_path, text))
    assert "secret" not in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for place in (tmp_path, tmp_path / "pipe", tmp_path / "none"):
        with pytest.raises(ConfigError):
            read_credentials(place)


def test_the_file_comes_before_the_environment_before_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    nobody = RemoteConfig()
    assert credentials_for(URL, file=None, remote=nobody) == Credentials()
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine images.example.org login from-netrc password a\n")
    netrc.chmod(0o600)
    assert credentials_for(URL, file=None, remote=nobody).user == "from-netrc"
    said = RemoteConfig(user="from-environment", password="b")
    assert credentials_for(URL, file=None, remote=said).user == "from-environment"
    file = written(tmp_path, "user=from-file\npassword=c\n")
    assert credentials_for(URL, file=file, remote=said).user == "from-file"
    netrc.write_text("machine images.example.org bogus\n")
    with pytest.raises(ConfigError):
        credentials_for(URL, file=None, remote=nobody)


def test_a_keyring_is_asked_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    asked = []

    def get_credential(service: str, user: str | None) -> SimpleNamespace:
        asked.append((service, user))
        if user == "locked":
            raise RuntimeError(user)
        return SimpleNamespace(username="from-keyring", password="d")

    keyring = ModuleType("keyring")
    monkeypatch.setattr(keyring, "get_credential", get_credential, raising=False)
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    assert credentials_for(URL, file=None, remote=RemoteConfig()).user == "from-keyring"
    assert credentials_for(URL, file=None, remote=RemoteConfig(user="locked")) == Credentials(user="locked")
    assert asked == [("glancefs https://images.example.org", None), ("glancefs https://images.example.org", "locked")]


def test_a_secret_is_not_shown() -> None:
    assert "secret" not in repr(Credentials(user="alice", password="secret", token="secret"))

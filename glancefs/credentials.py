# SPDX-License-Identifier: Apache-2.0
"""As whom a mount asks a server: a file that nobody else can read, the environment, ``~/.netrc`` or a keyring.

Answers for reading credentials from where they are safe; the command line, which every user of the machine can read, is
no such place. Never logs one and tells none in an error.

Threading: pure functions, which read files.
"""

from __future__ import annotations

import importlib
import netrc
import os
import stat
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from glancefs.config import RemoteConfig
from glancefs.errors import ConfigError
from glancefs.transport import Credentials

_KEYS: Final = ("user", "password", "token")
_LARGEST: Final = 65_536


def credentials_for(url: str, *, file: Path | None, remote: RemoteConfig) -> Credentials:
    """Give the credentials for a server: of the file; else of the environment, ``~/.netrc`` or a keyring; else none.

    Raises ConfigError for a file that others can read, or that can't be used.
    """
    if file is not None:
        return read_credentials(file)
    if remote.token is not None or remote.password is not None:
        return Credentials(user=remote.user, password=remote.password, token=remote.token)
    host = urlsplit(url).hostname or ""
    return _from_netrc(host, remote.user) or _from_keyring(url, remote.user) or Credentials(user=remote.user)


def read_credentials(file: Path) -> Credentials:
    """Read a file of lines ``key=value``: ``user`` and ``password``, or ``token``. Raises ConfigError."""
    said: dict[str, str] = {}
    for number, line in enumerate(_private_text(file).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, equals, value = line.partition("=")
        key = key.strip()
        if not equals or key not in _KEYS:
            # What stands there may be a secret, so it is not told.
            message = f"{file}, line {number}: here is to be user=…, password=… or token=…."
            raise ConfigError(message)
        if key in said:
            message = f"{file}, line {number}: {key} is there twice."
            raise ConfigError(message)
        said[key] = value.strip() if key == "user" else value
    if "token" not in said and not {"user", "password"} <= said.keys():
        message = f"{file} holds no credentials: user=… and password=…, or token=…."
        raise ConfigError(message)
    return Credentials(**said)


def _private_text(file: Path) -> str:
    """Read what nobody else can read or have written. Raises ConfigError."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        message = f"The credentials can't be read: {file}: {error.strerror}."
        raise ConfigError(message) from None
    try:
        _check_private(file, os.fstat(descriptor))
        data = os.read(descriptor, _LARGEST + 1)
    finally:
        os.close(descriptor)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or len(data) > _LARGEST:
        message = f"{file} holds no credentials: user=… and password=…, or token=…."
        raise ConfigError(message)
    return text


def _check_private(file: Path, status: os.stat_result) -> None:
    """Look at the file that was opened, and not at what is at its path by now. Raises ConfigError."""
    if not stat.S_ISREG(status.st_mode):
        message = f"{file} is no file that can hold credentials."
        raise ConfigError(message)
    if status.st_uid not in {0, os.geteuid()}:
        message = f"{file} belongs to somebody else; credentials are taken from your own files and root's."
        raise ConfigError(message)
    if status.st_mode & 0o077:
        message = f"{file} can be read by others; `chmod 600 {file}` ends that."
        raise ConfigError(message)


def _from_netrc(host: str, user: str | None) -> Credentials | None:
    """Look a host up in ``~/.netrc``, and only there: its ``default`` entry is for FTP. Raises ConfigError."""
    file = Path("~/.netrc").expanduser()
    try:
        # Without a name it also checks that nobody else can read the file.
        entry = netrc.netrc().hosts.get(host)
    except FileNotFoundError:
        return None
    except (OSError, netrc.NetrcParseError) as error:
        message = f"{file} can't be used: {error}."
        raise ConfigError(message) from None
    if entry is None or (user is not None and entry[0] != user):
        return None
    return Credentials(user=entry[0], password=entry[2])


def _from_keyring(url: str, user: str | None) -> Credentials | None:
    """Ask the keyring of the desktop, where the package ``keyring`` is installed: service ``glancefs URL``."""
    try:
        keyring: Any = importlib.import_module("keyring")
    except ImportError:
        return None
    try:
        found = keyring.get_credential(f"glancefs {url.rstrip('/')}", user)
    except Exception:  # noqa: BLE001 - backends raise what they like, and one that is locked is as good as none
        return None
    return None if found is None else Credentials(user=found.username, password=found.password)

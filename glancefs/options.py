# SPDX-License-Identifier: Apache-2.0
"""What kinds of values options have: how each is read from TOML and from text, and how it is shown.

Answers for the form of single values and of options. Knows neither which options there are nor where they come from.

Threading: pure functions and frozen values.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

PREFIX: Final = "GLANCEFS_"
"""What the names of all variables begin with."""

_SIZE = re.compile(r"(\d+)\s*(?:([KMGT])(iB|B)?)?", re.IGNORECASE)
_POWERS: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_WORDS: Final = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}
_LARGEST_PORT: Final = 65535
_UNIX: Final = "unix:"
_SQLITE: Final = "sqlite:///"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A host and a TCP port, of which 0 asks for any free one; or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"{_UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it; a name other than ``localhost`` counts as reachable."""
        if self.path:
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of value."""

    name: str
    """What it is, after "takes"."""
    read: Callable[[Any, Path], Any]
    """Make the value of what TOML gave; the folder is what relative paths are relative to. Raises ValueError."""
    parse: Callable[[str], Any] = str
    """Make what TOML would have given of text from the environment. Raises ValueError."""
    show: Callable[[Any], str] = str
    """Make text of the value that reads as the same value, secrets apart."""
    is_secret: bool = False
    """Whether no message may repeat it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option: what it may be, what it means, and what it is unless somebody says otherwise."""

    key: str
    kind: Kind
    about: str
    default: Any = None
    """A value, or a function of the data folder."""

    @property
    def variable(self) -> str:
        """The environment variable that overrides it."""
        return PREFIX + self.key.replace(".", "_").upper()


def read_address(text: str) -> Address:
    """Read ``host:port``, ``[host]:port``, ``:port`` (every address) or ``unix:/path``. Raises ValueError."""
    if text.startswith(f"{_UNIX}/"):
        return Address(path=text.removeprefix(_UNIX))
    host, colon, port = text.strip().rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > _LARGEST_PORT:
        raise ValueError
    if host.startswith("[") and host.endswith("]"):
        host = str(ipaddress.IPv6Address(host[1:-1]))
    elif ":" in host or " " in host:
        raise ValueError
    return Address(host=host or "0.0.0.0", port=int(port))  # noqa: S104 - without a host, every address is asked for


def read_size(text: str) -> int:
    """Read bytes: ``1048576``, ``1M`` and ``1MiB`` are the same, ``1MB`` is a million. Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError
    number, unit, suffix = match.groups()
    return int(number) * int((1000 if (suffix or "").lower() == "b" else 1024) ** _POWERS[(unit or "").upper()])


def hide_password(address: str) -> str:
    """Give a URL without the password that it may hold, before its host or among its options."""
    # Up to the last @: a password may hold what should have been escaped in it.
    hidden = re.sub(r"(?<=://)([^/@:]*):.*@", r"\1:***@", address)
    return re.sub(r"(?i)([?&][a-z_]*(?:password|passwd)=)[^&]*", r"\1***", hidden)


def _of(kind: type, value: object) -> Any:  # noqa: ANN401 - callers say what comes out
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError
    return value


def _read_text(value: object, _: Path) -> str:
    if not (text := str(_of(str, value)).strip()):
        raise ValueError
    return text


def _read_token(value: object, folder: Path) -> str:
    text = _read_text(value, folder)
    # It travels in a header (RFC 9110, section 5.5).
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError
    return text


def _read_boolean(value: object, _: Path) -> bool:
    return bool(_of(bool, value))


def _read_count(value: object, _: Path) -> int:
    if (number := int(_of(int, value))) < 1:
        raise ValueError
    return number


def _read_seconds(value: object, _: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError
    return float(value)


def _read_patience(value: object, folder: Path) -> float:
    if (seconds := _read_seconds(value, folder)) <= 0:
        raise ValueError
    return seconds


def _read_size(value: object, _: Path) -> int:
    if isinstance(value, str):
        return read_size(value)
    if (number := int(_of(int, value))) < 0:
        raise ValueError
    return number


def _read_path(value: object, folder: Path) -> Path:
    # Not resolved: a data folder behind a symbolic link keeps the name that the operator gave it.
    try:
        return folder / Path(_read_text(value, folder)).expanduser()
    except RuntimeError:
        raise ValueError from None


def _read_names(value: object, folder: Path) -> tuple[str, ...]:
    return tuple(_read_text(entry, folder) for entry in _of(list, value))


def _read_url(value: object, folder: Path) -> str:
    url = _read_text(value, folder).rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError
    return url


def _read_database(value: object, folder: Path) -> str:
    url = _read_text(value, folder)
    if "://" not in url:
        raise ValueError
    if url.startswith(_SQLITE) and (path := url.removeprefix(_SQLITE)) and not path.startswith(":"):
        return f"{_SQLITE}{folder / path}"
    return url


def _parse_boolean(text: str) -> bool:
    try:
        return _WORDS[text.strip().lower()]
    except KeyError:
        raise ValueError from None


def _toml_list(values: tuple[str, ...]) -> str:
    return ",".join(values)


def choice(*words: str) -> Kind:
    """Give the kind of one of these words."""

    def read(value: object, folder: Path) -> str:
        # A version reads better as a number.
        word = str(value) if isinstance(value, int) and not isinstance(value, bool) else _read_text(value, folder)
        if word not in words:
            raise ValueError
        return word

    return Kind(name=" or ".join(f'"{word}"' for word in words), read=read)


TEXT: Final = Kind(name="text", read=_read_text)
SECRET: Final = Kind(name="text", read=_read_text, show=lambda _: "***", is_secret=True)
TOKEN: Final = Kind(name="printable ASCII without blanks", read=_read_token, show=lambda _: "***", is_secret=True)
BOOLEAN: Final = Kind(
    name="true or false", read=_read_boolean, parse=_parse_boolean, show=lambda value: str(value).lower()
)
COUNT: Final = Kind(name="a whole number from 1", read=_read_count, parse=int)
SECONDS: Final = Kind(name="seconds, from 0", read=_read_seconds, parse=float, show=lambda value: f"{value:g}")
PATIENCE: Final = Kind(name="seconds, more than 0", read=_read_patience, parse=float, show=lambda value: f"{value:g}")
SIZE: Final = Kind(name='bytes, such as 1048576 or "20G"', read=_read_size)
PATH: Final = Kind(name="a path", read=_read_path)
NAMES: Final = Kind(
    name="a list of names",
    read=_read_names,
    parse=lambda text: [name.strip() for name in text.split(",") if name.strip()],
    show=_toml_list,
)
URL: Final = Kind(name="a URL that begins with http:// or https:// and holds no password", read=_read_url)
DATABASE: Final = Kind(
    name="a URL such as sqlite:///registry.sqlite or http://registry.example:9191",
    read=_read_database,
    show=hide_password,
)
ADDRESS: Final = Kind(
    name='a host and a port, such as "127.0.0.1:9292", or "unix:/path"',
    read=lambda value, _: read_address(_of(str, value)),
)

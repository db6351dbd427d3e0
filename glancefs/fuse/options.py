# SPDX-License-Identifier: Apache-2.0
"""The options of a mount, as mount(8) and fstab(5) write them: ``-o ro,uid=1000,attr_timeout=5``.

Answers for which options there are, for refusing others by name, and for parting those that the kernel or libfuse take
from our own: libfuse refuses many that mount(8) hands on, and accepts one (``max_read``) that kills the mount.

Threading: pure functions and frozen values.
"""

from __future__ import annotations

import grp
import math
import os
import pwd
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from glancefs.errors import ConfigError
from glancefs.options import read_size

_LARGEST_ID: Final = 2**32 - 2
_LARGEST_READ_AHEAD: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MountOptions:
    """What was said of a mount."""

    read_only: bool = False
    uid: int = field(default_factory=os.getuid)
    """Whose the files seem to be."""
    gid: int = field(default_factory=os.getgid)
    umask: int | None = None
    """Permission bits that files and folders do not have; None: 0o022, and with `multiuser` none."""
    user: str | None = None
    """As whom images are seen, added and changed; None: as the admin of this machine."""
    public: bool | None = None
    """Whether images added here are public; None: as the configuration says."""
    attr_timeout: float = 60.0
    entry_timeout: float = 1.0
    read_ahead: int = 4096
    """In KiB: how much the kernel reads ahead; several requests, so that it copies one while the next is answered."""
    credentials: Path | None = None
    """The file that says as whom a server is asked."""
    cacert: Path | None = None
    """The certificates by which a server is trusted; None: those of the system."""
    timeout: float = 10.0
    """For how many seconds a program waits for a server that does not answer."""
    staging: Path | None = None
    """Where files for a server are kept while they are written; None: in the user's cache folder."""
    cache: Path | None = None
    """The folder in which a mount of a server keeps what it has read; None: it keeps nothing."""
    cache_size: int = 20 << 30
    """In bytes: how much it keeps."""
    settle: float = 5.0
    """Seconds without an open handle after which files written by programs that also read are complete."""
    log: Path | None = None
    """The file that gets the log; None: standard error, and of a background mount the system's log."""
    allow_other: bool = False
    multiuser: bool = False
    """Whether everybody acts as themselves, rather than as `user`."""
    users: Path | None = None
    """The table that says who is who; None: as the password database does."""
    passthrough: bool = True
    """Whether the kernel may read images from the store's files by itself."""
    libfuse: frozenset[str] = frozenset()
    """Options that the kernel and libfuse take."""


def _number(most: int, base: int = 10) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = int(text, base)
        if not 0 <= number <= most:
            raise ValueError
        return number

    return read


def _seconds(text: str) -> float:
    seconds = float(text)
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError
    return seconds


def _long_seconds(text: str) -> float:
    seconds = _seconds(text)
    if seconds < 1:
        raise ValueError
    return seconds


def _text(text: str) -> str:
    if not text:
        raise ValueError
    return text


def _path(text: str) -> Path:
    return Path(_text(text)).absolute()


_OURS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = MappingProxyType(
    {
        "uid": ("a user's number", _number(_LARGEST_ID)),
        "gid": ("a group's number", _number(_LARGEST_ID)),
        "umask": ("an octal number such as 022", _number(0o777, 8)),
        "user": ("a user's name", _text),
        "attr_timeout": ("seconds", _seconds),
        "entry_timeout": ("seconds", _seconds),
        "read_ahead": ("a number of KiB", _number(_LARGEST_READ_AHEAD)),
        "credentials": ("a path", _path),
        "cacert": ("a path", _path),
        "timeout": ("seconds, one at the least", _long_seconds),
        "staging": ("a path", _path),
        "cache": ("a path", _path),
        "cache_size": ("bytes, such as 20G", read_size),
        "settle": ("seconds", _seconds),
        "log": ("a path", _path),
        "users": ("a path", _path),
    }
)
"""Our own with a value: what they take, and how it is read."""

_FLAGS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "ro": {"read_only": True},
        "rw": {"read_only": False},
        "public": {"public": True},
        "private": {"public": False},
        "allow_other": {"allow_other": True},
        "multiuser": {"multiuser": True, "allow_other": True},
        "passthrough": {"passthrough": True},
        "no_passthrough": {"passthrough": False},
    }
)

_LIBFUSE: Final = frozenset(
    {
        *("allow_root", "auto_unmount", "default_permissions", "noatime", "nodev", "noexec", "nosuid", "sync"),
        *("dirsync", "dev", "exec", "suid"),
    }
)

_SWALLOWED: Final = frozenset(
    {
        *("defaults", "auto", "noauto", "users", "nouser", "owner", "group", "nofail", "_netdev", "atime", "async"),
        *("relatime", "norelatime", "strictatime", "nostrictatime", "lazytime", "nolazytime", "diratime"),
        *("nodiratime", "mand", "nomand", "nonempty"),
    }
)
"""What mount(8) and systemd say to each other, or what changes nothing for images."""
_SWALLOWED_PREFIXES: Final = ("x-", "comment=", "helper=")
_FORGIVEN_IF_NOT_ROOT: Final = frozenset({"dev", "suid"})


def read_options(texts: Iterable[str]) -> MountOptions:
    """Read options, comma-separated; a later one wins. Raises ConfigError for an unknown one or a wrong value."""
    said: dict[str, Any] = {}
    passed: set[str] = set()
    for word in _words(texts):
        name, equals, value = word.partition("=")
        if word in _FLAGS:
            said |= _FLAGS[word]
        elif name in _OURS and equals:
            said[name] = _value(name, value)
        elif word in _LIBFUSE:
            passed.add(word)
        elif _is_swallowed(word):
            continue
        else:
            raise ConfigError(_unknown(word))
    _check(said)
    if said.get("read_only"):
        passed.add("ro")
    if said.get("allow_other"):
        passed.add("allow_other")
    if os.getuid():
        passed -= _FORGIVEN_IF_NOT_ROOT
    return replace(MountOptions(), **said, libfuse=frozenset(passed))


def _check(said: Mapping[str, Any]) -> None:
    """Raise ConfigError for options that do not go together."""
    if said.get("multiuser") and "user" in said:
        raise ConfigError("With the mount option multiuser everybody acts as themselves, not as one user.")
    if "users" in said and not said.get("multiuser"):
        raise ConfigError("The mount option users says who is who, which needs multiuser beside it.")


def known_options(texts: Iterable[str]) -> Iterator[str]:
    """Give those of the options that there are, for who wants the others passed over (``-s`` of mount(8))."""
    for word in _words(texts):
        name, equals, _ = word.partition("=")
        if word in _FLAGS or word in _LIBFUSE or (name in _OURS and equals) or _is_swallowed(word):
            yield word.replace("\\", "\\\\").replace(",", "\\,")


def _is_swallowed(word: str) -> bool:
    return word == "user" or word in _SWALLOWED or word.startswith(_SWALLOWED_PREFIXES)


def _words(texts: Iterable[str]) -> Iterator[str]:
    """Split at commas; one behind a backslash, or between double quotes as mount(8) has them, is part of a value."""
    for text in texts:
        word = ""
        escaped = quoted = False
        for letter in text:
            if escaped:
                word += letter if letter in ",\\" else f"\\{letter}"
                escaped = False
            elif letter == '"' and (quoted or word.endswith("=")):
                quoted = not quoted
            elif quoted:
                word += letter
            elif letter == "\\":
                escaped = True
            elif letter == ",":
                if word:
                    yield word
                word = ""
            else:
                word += letter
        if word:
            yield word


def _value(name: str, text: str) -> Any:  # noqa: ANN401 - each option has a type of its own
    kind, read = _OURS[name]
    if name in {"uid", "gid"} and not text.isdigit():
        return _id_of(name, text)
    try:
        return read(text)
    except ValueError:
        message = f"The mount option {name} takes {kind}, not {text[:80]!r}."
        raise ConfigError(message) from None


def _id_of(name: str, text: str) -> int:
    with suppress(KeyError):
        return pwd.getpwnam(text).pw_uid if name == "uid" else grp.getgrnam(text).gr_gid
    message = f"The mount option {name} takes {_OURS[name][0]} or name, not {text[:80]!r}."
    raise ConfigError(message)


def _unknown(word: str) -> str:
    name = word.partition("=")[0]
    if name in _OURS:
        return f"The mount option {name} takes {_OURS[name][0]}: {name}=…"
    near = get_close_matches(name, [*_OURS, *_FLAGS, *_LIBFUSE], n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(sorted([*_OURS, *_FLAGS, *_LIBFUSE]))}."
    return f"{name[:80]!r} is no mount option{hint}"

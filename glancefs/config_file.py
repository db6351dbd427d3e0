# SPDX-License-Identifier: Apache-2.0
"""The configuration's TOML file: what it says of each option, and on which line.

Answers for reading it and for telling where it is wrong: unknown options, with the nearest known one. Knows neither
what options may be nor what they mean.

Threading: pure functions, but for reading the file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from glancefs.errors import ConfigError

_TABLE_LINE = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]")
_KEY_LINE = re.compile(r"""\s*([A-Za-z0-9_."'-]+(?:\s*\.\s*[A-Za-z0-9_."'-]+)*)\s*=""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a source says of an option: as TOML gives it, or as text."""

    value: object
    origin: str
    folder: Path = field(default_factory=Path.cwd)
    is_text: bool = False


def read_file(file: Path, known: Collection[str]) -> dict[str, Said]:
    """Give what a file says, by the dotted keys of the options. Raises ConfigError."""
    try:
        content = file.read_text(encoding="utf-8")
        tree = tomllib.loads(content)
    except OSError as error:
        message = f"{file} can't be read: {error.strerror}."
        raise ConfigError(message) from None
    except UnicodeDecodeError:
        message = f"{file} is not UTF-8."
        raise ConfigError(message) from None
    except tomllib.TOMLDecodeError as error:
        message = f"{file} is not TOML: {str(error).rstrip('.')}."
        raise ConfigError(message) from None
    lines = _lines(content)
    sections = dict.fromkeys(key.rpartition(".")[0] for key in known)
    said = {}
    for key, value in _flat(tree, known):
        origin = f"{file}{_line(key, lines)}"
        if _is_section(key, known):
            message = f"{origin}: {key} is a section; it takes [{key}] and options below it."
            raise ConfigError(message)
        if key not in known:
            near = sections if isinstance(value, dict) else known
            message = f"{origin}: {key} is no option{did_you_mean(key, near)}"
            raise ConfigError(message)
        said[key] = Said(value=value, origin=origin, folder=file.parent)
    return said


def _flat(tree: Mapping[str, Any], known: Collection[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        key = prefix + name
        if isinstance(value, dict) and _is_section(key, known):
            yield from _flat(value, known, f"{key}.")
        else:
            yield key, value


def _is_section(key: str, known: Collection[str]) -> bool:
    return any(option.startswith(f"{key}.") for option in known)


def _lines(content: str) -> dict[str, int]:
    """Find on which line each key is said; good enough for people, since tomllib keeps no positions."""
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(content.splitlines(), start=1):
        if match := _TABLE_LINE.match(line):
            table = _plain_key(match[1])
            lines.setdefault(table, number)
        elif match := _KEY_LINE.match(line):
            lines.setdefault(f"{table}.{_plain_key(match[1])}".lstrip("."), number)
    return lines


def _plain_key(text: str) -> str:
    return re.sub(r"""[\s"']""", "", text)


def _line(key: str, lines: Mapping[str, int]) -> str:
    while key:
        if key in lines:
            return f":{lines[key]}"
        key = key.rpartition(".")[0]
    return ""


def did_you_mean(word: str, known: Collection[str]) -> str:
    """End a sentence about an unknown word with the nearest known one."""
    near = get_close_matches(word, known, n=1, cutoff=0.6)
    # A key in the wrong section differs more than the cutoff allows, though its own name is right.
    near = near or [key for key in known if key.rpartition(".")[2] == word.rpartition(".")[2]][:1]
    return f"; did you mean {near[0]}?" if near else "."

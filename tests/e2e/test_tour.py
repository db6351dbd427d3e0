# SPDX-License-Identifier: Apache-2.0
"""The README's tour does what it says, line by line, for somebody who has nothing yet.

In README.md, between ``<!-- tour -->`` and ``<!-- /tour -->``, each block marked ``console`` is run: lines that begin
with ``$ `` are commands, what follows is what they print. Numbers, times, sizes and checksums may differ, and a line
``...`` stands for any lines. The first command, ``make run``, serves the others, which are typed in another terminal.
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.capabilities import ROOT
from tests.support.mounting import Mounts
from tests.support.processes import free_port, product, run
from tests.support.terminal import CTRL_C, Terminals

README = ROOT / "README.md"
_TOUR = re.compile(r"<!-- tour -->(.*?)<!-- /tour -->", re.DOTALL)
_BLOCK = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)
_MONTH = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_VARYING = re.compile(rf"[0-9a-f]{{8,}}|\b({_MONTH})\b|\d[\d.,:]*( ?[KMGT]i?B(/s)?| (bytes|seconds|s)\b)?")
_RULE = re.compile(r"[-\u2500\u2501]{2,}")
_DEFAULT_PORT = "9292"
_GROUND = ("git ", "cd ", "make setup", "sudo ")
"""Commands that make the ground on which this test stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A command of the tour and what it is said to print."""

    command: str
    output: tuple[str, ...]


def steps(text: str) -> list[Step]:
    """Read the tour out of a page."""
    found: list[Step] = []
    for tour in _TOUR.findall(text):
        for block in _BLOCK.findall(tour):
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, output = _divided(part.splitlines())
                found.append(Step(command=command, output=tuple(output)))
    return found


def _divided(lines: list[str]) -> tuple[str, list[str]]:
    """Part a command, which a backslash carries on to the next line, from what it prints."""
    count = 1
    while lines[count - 1].endswith("\\"):
        count += 1
    return "\n".join(lines[:count]), lines[count:]


def loosely(line: str) -> str:
    """A line without what differs from run to run."""
    return re.sub(r"\s+", " ", _RULE.sub("--", _VARYING.sub("#", line))).strip()


def matches(said: tuple[str, ...], printed: list[str]) -> bool:
    """Whether the lines are those that were said, but for what varies."""
    pattern = "".join(".*" if line.strip() == "..." else re.escape(loosely(line)) + "\n" for line in said)
    return re.fullmatch(pattern, "".join(f"{loosely(line)}\n" for line in printed), re.DOTALL) is not None


def terminal(commands: list[str], *, env: dict[str, str], home: Path) -> list[list[str]]:
    """Run commands in one shell, as somebody types them, and give what each prints on either stream."""
    mark = "--- the next command ---"
    script = "exec 2>&1\n" + "".join(f"{command}\necho '{mark}'\n" for command in commands)
    printed = run(["bash", "-c", script], env=env, cwd=home, expect=0).out
    return [part.splitlines() for part in printed.split(f"{mark}\n")[:-1]]


def test_lines_are_compared_loosely() -> None:
    assert matches(("ID  NAME", "1   debian  8.4 MiB"), ["ID    NAME", "17   debian 12 MiB"])
    assert matches(("a", "...", "z"), ["a", "b", "c", "z"])
    assert not matches(("a",), ["b"])
    assert not matches(("a",), ["a", "b"])


def test_steps_are_read_with_their_output() -> None:
    text = "x <!-- tour -->\n```console\n$ a \\\n  b\none\n$ c\n```\n```sh\n$ d\n```\n<!-- /tour -->"
    assert steps(text) == [Step(command="a \\\n  b", output=("one",)), Step(command="c", output=())]


@pytest.mark.needs("fuse", "getfattr", "qemu-img", "rsync")
def test_the_tour_of_the_readme_does_what_it_says(terminals: Terminals, mounts: Mounts, tmp_path: Path) -> None:
    tour = [step for step in steps(README.read_text()) if not step.command.startswith(_GROUND)]
    assert tour
    home, port = tmp_path / "home", str(free_port())
    home.mkdir()
    env = {
        "HOME": str(home),
        "PATH": os.pathsep.join([str(product().parent), os.environ["PATH"]]),
        "GLANCEFS_GATEWAY_LISTEN": f"127.0.0.1:{port}",
    }
    server = terminals.open([*made_by_make(home), home / "glancefs"], env=env, cwd=home, columns=120)
    mounts.guard(home / "glancefs", server.process.pid)
    [run_step, *typed] = tour
    assert run_step.command == "make run"

    def as_written(line: str) -> str:
        return re.sub(rf"\b{port}\b", _DEFAULT_PORT, line).replace(getpass.getuser(), "ann")

    picture = [as_written(line) for line in server.wait_for("^  holds ")]
    assert matches(run_step.output, picture), "\n".join(picture)
    printed = terminal([re.sub(rf"\b{_DEFAULT_PORT}\b", port, step.command) for step in typed], env=env, home=home)
    for step, lines in zip(typed, printed, strict=True):
        shown = [as_written(line) for line in lines]
        assert matches(step.output, shown), "\n".join([f"$ {step.command}", *shown, "README:", *step.output])
    server.type(CTRL_C)
    assert server.wait() == 0


def made_by_make(home: Path) -> list[str]:
    """The command that `make run` runs, without the mount point, which is its last word."""
    # What the tests were called with is not for the server.
    words = ["make", "--dry-run", "--old-file=.venv/.run", "run", f"DATA={home}/.local/share/glancefs", "ARGS="]
    said = run(words, cwd=ROOT)
    words = shlex.split(said.out.splitlines()[-1])
    assert words[:3] == ["exec", ".venv/bin/glancefs", "up"]
    return [str(product()), *words[2:-1]]

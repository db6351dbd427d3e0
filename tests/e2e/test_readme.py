# SPDX-License-Identifier: Apache-2.0
"""The README's tour, executed: each command as it is printed, its output held against what the README shows.

Threading: none.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.conftest import Serve
from tests.support.processes import product, run

ROOT = Path(__file__).resolve().parents[2]
MARKER = "---- end of step ----"

# What differs from one run to the next, and tells nothing.
_VARIES = re.compile(r"[0-9a-f]{64}|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


@dataclass(kw_only=True)
class Step:
    command: str
    output: list[str] = field(default_factory=list)


def tour(text: str) -> list[Step]:
    steps: list[Step] = []
    part = text.split("<!-- tour -->")[1].split("<!-- /tour -->", maxsplit=1)[0]
    for block in re.findall(r"```console\n(.*?)```", part, flags=re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append(Step(command=line[2:]))
            elif line.startswith(">"):
                steps[-1].command += f"\n{line[2:]}"
            else:
                steps[-1].output.append(line)
    return steps


def same(text: str) -> str:
    return _VARIES.sub("*", text).replace("\r", "").strip()


def test_the_tour_shows_what_happens(serve: Serve, tmp_path: Path) -> None:
    steps = tour((ROOT / "README.md").read_text())
    assert len(steps) > 5
    server = serve()

    def here(words: str) -> str:
        return words.replace("http://127.0.0.1:9292", server.url).replace("9292", server.url.rpartition(":")[2])

    def mine(words: str) -> str:
        return here(words).replace("/tmp/", f"{tmp_path}/")

    script = "\n".join(f"{mine(step.command)}\necho '{MARKER}'" for step in steps)
    path = f"{product().parent}:{os.environ['PATH']}"
    done = run(["bash", "-e"], stdin=script.encode(), cwd=ROOT, env={"PATH": path}, timeout=120)
    shown = done.out.split(f"{MARKER}\n")[:-1]
    expected = [mine("\n".join(step.output)) for step in steps]
    assert [same(text) for text in shown] == [same(text) for text in expected]

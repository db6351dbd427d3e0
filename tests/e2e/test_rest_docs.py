# SPDX-License-Identifier: Apache-2.0
"""The examples in the reference of the images API are true.

Threading: none.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.conftest import Serve
from tests.support.processes import run

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "rest.md"
SERVER = "http://127.0.0.1:9292"
_TIME = re.compile(r"\d{4}-\d\d-\d\d(?P<between>[ T])\d\d:\d\d:\d\d")
_DATE = re.compile(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT")


def examples() -> list[tuple[str, str]]:
    """Give the commands on the page with what they print."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        for example in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = example.partition("\n")
            found.append((command, output))
    return found


def without_times(text: str) -> str:
    """Give the text with all times alike, and without carriage returns."""
    text = _TIME.sub(r"2010-02-03\g<between>09:34:01", text.replace("\r", ""))
    return _DATE.sub("Wed, 03 Feb 2010 09:34:01 GMT", text)


@pytest.mark.needs("curl")
def test_every_example_prints_what_the_page_says(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    shown, printed = "", ""
    for command, output in examples():
        # The server of the examples is at its default address, which may be taken here.
        asked = command.replace("curl ", "curl -sS ").replace(SERVER, server.url)
        result = run(["bash", "-c", asked], cwd=tmp_path)
        shown += f"$ {command}\n{without_times(output)}"
        printed += f"$ {command}\n{without_times(result.out.replace(server.url, SERVER))}"
    assert "$ curl" in shown
    assert printed == shown

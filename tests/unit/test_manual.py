# SPDX-License-Identifier: Apache-2.0
"""The manual pages say what the documentation says, and are manual pages.

Threading: none.
"""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from markdown_it import MarkdownIt

from glancefs.fuse import options
from tests.support import manual
from tests.support.manual import DOCS, PAGES, SHARE, Page
from tests.support.processes import run

FILES = [SHARE / f"{page.name}.{page.section}" for page in PAGES]


def test_the_pages_are_those_of_the_documentation_as_it_is() -> None:
    # Where this fails, `make man` mends it.
    assert dict(manual.manual()) == {file.name: file.read_text() for file in SHARE.iterdir()}


@pytest.mark.needs("mandoc")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_mandoc_finds_nothing_wrong(file: object) -> None:
    said = run(["mandoc", "-T", "lint", "-W", "warning", str(file)], expect=None).out
    # A page that is made anew with each change would have another date each time.
    assert [line for line in said.splitlines() if "missing date" not in line] == []


@pytest.mark.needs("man")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_man_shows_them_without_a_warning(file: object) -> None:
    shown = run(["man", "--warnings", "--local-file", str(file)], env={"MANWIDTH": "100", "LC_ALL": "C.UTF-8"})
    assert shown.err == ""
    assert "SEE ALSO" in shown.out


def test_every_mount_option_is_in_the_table_from_which_the_page_is_made() -> None:
    _, _, table = (DOCS / "how-to" / "mount.md").read_text().partition("## Options")
    table = table.partition("\n## ")[0]
    names = [f"{name}=" for name in options._OURS]
    names += [name for name in [*options._FLAGS, *options._LIBFUSE] if name not in {"rw", "dev", "exec", "suid"}]
    assert [name for name in names if f"`{name}" not in table] == []


def test_what_roff_would_take_for_its_own_is_escaped() -> None:
    assert manual.escaped(".x\n'y' a-b \\z ~") == "\\&.x\n\\(aqy\\(aq a\\-b \\ez \\(ti"


def test_what_a_manual_page_can_t_show_is_refused() -> None:
    tokens = MarkdownIt("commonmark").parse("an ![image](a.png)")
    writer = manual._Writer(PurePosixPath("a.md"))
    with pytest.raises(ValueError, match=r"a\.md: a manual page can't show image"):
        list(writer.write(tokens))


def test_a_section_alone_can_be_taken() -> None:
    page = Page(
        name="x", section=1, volume="", about="x - y", parts=(("how-to/mount.md", "Options"),), also=r"\fBman\fR(1)"
    )
    made = manual.render(page)
    assert ".SH OPTIONS" in made
    assert "WHAT HAPPENS ON A MOUNT" not in made

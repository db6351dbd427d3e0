# SPDX-License-Identifier: Apache-2.0
"""The manual pages, made from the pages of the documentation: ``python -m tests.support.manual`` writes them.

Answers for which page of the documentation becomes which manual page, and for man(7) in the place of Markdown. What the
pages say stands in ``docs/`` alone. Markdown itself markdown-it-py reads.

Threading: pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from markdown_it import MarkdownIt
from markdown_it.token import Token  # noqa: TC002 - loaded anyway, as what is beside it

from tests.support.capabilities import ROOT

DOCS = ROOT / "docs"
SHARE = ROOT / "glancefs" / "share" / "man"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One manual page, and what it is made of."""

    name: str
    section: int
    volume: str
    about: str
    parts: tuple[tuple[str, str | None], ...]
    """Pages of the documentation, each whole or the one section of this title."""
    also: str
    """What to read besides, in roff."""
    synopsis: str = ""
    """How it is called, in roff, where the documentation has no section on it."""


PAGES = (
    Page(
        name="glancefs",
        section=1,
        volume="User Commands",
        about="glancefs, glance-api, glance-registry - keep virtual-machine images, and serve them",
        parts=(("reference/cli.md", None),),
        synopsis=r"\fBglancefs\fR [\fB\-\-config\fR FILE | \fB\-\-data\fR FOLDER | \fB\-\-url\fR URL] COMMAND ...",
        also=r"\fBglancefs.toml\fR(5), \fBmount.glancefs\fR(8), \fBfusermount3\fR(1), \fBqemu\-img\fR(1)",
    ),
    Page(
        name="glancefs.toml",
        section=5,
        volume="File Formats",
        about="glancefs.toml - the configuration of glancefs",
        parts=(("reference/configuration.md", None),),
        also=r"\fBglancefs\fR(1), \fBmount.glancefs\fR(8)",
    ),
    Page(
        name="mount.glancefs",
        section=8,
        volume="System Administration",
        about="mount.glancefs, umount.glancefs - mount virtual-machine images as files",
        parts=(("reference/mount.glancefs.md", None), ("how-to/mount.md", "Options")),
        also=(
            r"\fBglancefs\fR(1), \fBglancefs.toml\fR(5), \fBmount\fR(8), \fBumount\fR(8), \fBfstab\fR(5),"
            r" \fBsystemd.mount\fR(5), \fBmount.fuse3\fR(8)"
        ),
    ),
)
ALIASES = {"umount.glancefs.8": "mount.glancefs.8"}
_PAGE_OF = {
    "cli.md": r"\fBglancefs\fR(1)",
    "configuration.md": r"\fBglancefs.toml\fR(5)",
    "mount.md": r"\fBmount.glancefs\fR(8)",
    "mount.glancefs.md": r"\fBmount.glancefs\fR(8)",
}
_FIRST_OF_A_LINE = re.compile(r"^(?=[.'])", re.MULTILINE)


def manual() -> Iterator[tuple[str, str]]:
    """Give every file of the manual: its name and what it says."""
    for page in PAGES:
        yield f"{page.name}.{page.section}", render(page)
    for alias, target in ALIASES.items():
        yield alias, f".so man{target[-1]}/{target}\n"


def render(page: Page) -> str:
    """Make a manual page."""
    lines = [
        f'.TH {page.name.upper()} {page.section} "" "glancefs" "{page.volume}"',
        ".SH NAME",
        escaped(page.about),
        *([".SH SYNOPSIS", page.synopsis] if page.synopsis else []),
    ]
    for name, title in page.parts:
        lines += _body((DOCS / name).read_text(), PurePosixPath(name), title)
    text = "\n".join([*lines, ".SH SEE ALSO", page.also]) + "\n"
    # A title begins a paragraph by itself.
    return re.sub(r"^(\.S[HS] .*)\n\.PP$", r"\1", text, flags=re.MULTILINE)


def escaped(text: str) -> str:
    """Write text so that roff shows it letter by letter."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    for letter, name in (("'", r"\(aq"), ("`", r"\(ga"), ("^", r"\(ha"), ("~", r"\(ti")):
        text = text.replace(letter, name)
    return _FIRST_OF_A_LINE.sub(r"\\&", text)


def _body(text: str, name: PurePosixPath, title: str | None) -> Iterator[str]:
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    if title is not None:
        tokens = list(_section(tokens, title))
    yield from _Writer(name).write(tokens)


def _section(tokens: list[Token], title: str) -> Iterator[Token]:
    """Give what stands under a title of the second rank, and the title."""
    inside = False
    for number, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag == "h2":
            inside = tokens[number + 1].content == title
        if inside:
            yield token


class _Writer:
    """Writes tokens of Markdown as man(7)."""

    def __init__(self, name: PurePosixPath) -> None:
        self._name = name

    def write(self, tokens: list[Token]) -> Iterator[str]:
        """Give the lines."""
        position = 0
        while position < len(tokens):
            token = tokens[position]
            if token.type == "heading_open":
                if token.tag != "h1":
                    yield self._heading(token.tag, tokens[position + 1])
                elif tokens[position + 3].type != "heading_open":
                    # What stands before the first title.
                    yield ".SH DESCRIPTION"
                position += 3
                continue
            if token.type == "table_open":
                end = next(at for at in range(position, len(tokens)) if tokens[at].type == "table_close")
                yield from self._table(tokens[position:end])
                position = end
            elif token.type == "fence":
                code = escaped(token.content.rstrip("\n"))
                yield f".PP\n.RS 4\n.nf\n{code}\n.fi\n.RE"
            elif token.type == "list_item_open":
                mark = f"{token.info}." if token.info else r"\(bu"
                yield f".IP {mark} 4"
                # A list's item begins without a paragraph of its own.
                yield self._inline(tokens[position + 2])
                position += 3
            elif token.type == "inline":
                yield f".PP\n{self._inline(token)}"
            position += 1

    def _heading(self, tag: str, inline: Token) -> str:
        if tag == "h2":
            return f".SH {escaped(''.join(child.content for child in inline.children or ()).upper())}"
        return f".SS {self._inline(inline)}"

    def _table(self, tokens: list[Token]) -> Iterator[str]:
        """Make paragraphs with hanging tags of rows: terminals are narrow."""
        [titles, *rows] = list(_rows(tokens))
        for first, *others in rows:
            yield f".TP\n{self._inline(first)}"
            if len(others) == 1:
                yield self._inline(others[0])
                continue
            said = [
                f"{self._inline(title)}: {self._inline(cell)}"
                for title, cell in zip(titles[1:], others, strict=True)
                if cell.content
            ]
            yield "\n.br\n".join(said)

    def _inline(self, token: Token) -> str:
        text, links = "", []
        for child in token.children or ():
            match child.type:
                case "text":
                    text += escaped(child.content)
                case "code_inline":
                    text += rf"\fB{escaped(child.content)}\fR"
                case "softbreak" | "hardbreak":
                    text += "\n"
                case "em_open":
                    text += r"\fI"
                case "strong_open":
                    text += r"\fB"
                case "em_close" | "strong_close":
                    text += r"\fR"
                case "link_open":
                    links.append(str(child.attrs["href"]))
                case "link_close":
                    text += self._target(links.pop())
                case _:
                    message = f"{self._name}: a manual page can't show {child.type}"
                    raise ValueError(message)
        return _FIRST_OF_A_LINE.sub(r"\\&", text)

    def _target(self, link: str) -> str:
        page = PurePosixPath(link.partition("#")[0]).name
        if "://" in link:
            return rf" <{escaped(link)}>"
        return f" ({_PAGE_OF[page]})" if page in _PAGE_OF and page != self._name.name else ""


def _rows(tokens: Iterable[Token]) -> Iterator[list[Token]]:
    row: list[Token] = []
    for token in tokens:
        if token.type == "inline":
            row.append(token)
        elif token.type == "tr_close":
            yield row
            row = []


def write(folder: Path = SHARE) -> None:
    """Write the manual pages, and remove those that there are no more."""
    pages = dict(manual())
    for there in folder.iterdir():
        if there.name not in pages:
            there.unlink()
    for name, text in pages.items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    write()

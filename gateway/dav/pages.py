# SPDX-License-Identifier: Apache-2.0
"""A folder as a page for people: what is in it, with links to everything.

Answers for the page's look. It needs nothing from elsewhere, and no script; it goes out while the folder is read.

Threading: pure functions; a page goes on asking the tree while it is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from gateway.dav.properties import iso_date
from gateway.dav.urls import Share
from gateway.wsgi import Response
from glancefs.paths import RESERVED
from glancefs.tree import Entry, EntryKind

_BILLION: Final = 1_000_000_000
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEP: Final = 1024

# Styles of the page itself are all that it may use.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_HEAD: Final = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
:root{{color-scheme:light dark;--ink:#1d2433;--dim:#66708a;--line:#e3e6ee;--hover:#f2f5fb;--page:#fcfcfa;\
--link:#0b5c8a;--mark:#e8eef7}}
@media(prefers-color-scheme:dark){{:root{{--ink:#dfe3ec;--dim:#929cb3;--line:#2b303b;--hover:#22262f;--page:#181a1f;\
--link:#7cc4ee;--mark:#2a3140}}}}
body{{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:64rem;margin:2.5rem auto;\
padding:0 1.25rem}}
a{{color:var(--link);text-decoration:none}}a:hover{{text-decoration:underline}}
nav{{font-size:1.3rem;font-weight:600;overflow-wrap:anywhere;margin-bottom:1.25rem;padding:0 .6rem}}\
nav i{{color:var(--dim);font-style:normal;font-weight:400;padding:0 .35em}}
table{{border-collapse:collapse;width:100%}}th{{text-align:left;font-weight:600;color:var(--dim);font-size:.85rem}}
th,td{{padding:.45rem .6rem;border-bottom:1px solid var(--line);white-space:nowrap}}
tbody tr:hover{{background:var(--hover)}}
td:first-child{{white-space:normal;overflow-wrap:anywhere;width:99%}}
.n{{text-align:right;font-variant-numeric:tabular-nums}}time,.d{{color:var(--dim);font-variant-numeric:tabular-nums}}
.k{{background:var(--mark);border-radius:1em;padding:.1em .7em;font-size:.8rem}}
footer{{color:var(--dim);font-size:.85rem;margin-top:1.25rem;padding:0 .6rem}}
@media(max-width:38rem){{th:nth-child(4),td:nth-child(4),th:nth-child(2),td:nth-child(2){{display:none}}}}
</style></head><body>
<nav aria-label="Folders">{crumbs}</nav>
<table><thead><tr><th>Name</th><th>Kind</th><th class="n">Size</th><th>Modified (UTC)</th></tr></thead><tbody>
"""
_ROW: Final = (
    '<tr><td><a href="{href}"{download}>{name}</a></td><td><span class="k">{kind}</span></td>'
    '<td class="n" title="{size} bytes">{human}</td><td><time datetime="{iso}">{when}</time></td></tr>\n'
)
_FOLDER_ROW: Final = (
    '<tr><td><a href="{href}">{name}/</a></td><td><span class="d">folder</span></td>'
    '<td class="n"></td><td><time datetime="{iso}">{when}</time></td></tr>\n'
)


def page(share: Share, entry: Entry, pages: Iterator[Sequence[Entry]]) -> Response:
    """Give the page of a folder."""
    headers = [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Cache-Control", "no-cache"),
        ("Content-Security-Policy", _POLICY),
    ]
    return Response(status=200, headers=headers, body=_pieces(share, entry, pages))


def _pieces(share: Share, entry: Entry, pages: Iterator[Sequence[Entry]]) -> Iterator[bytes]:
    title = f"{entry.path or 'Images'} - glancefs"
    yield _HEAD.format(title=escape(title), crumbs=_crumbs(share, entry.path)).encode()
    if entry.path:
        above = share.href(entry.path.rpartition("/")[0], is_folder=True)
        yield f'<tr><td><a href="{above}">..</a></td><td></td><td></td><td></td></tr>\n'.encode()
    count = size = 0
    for entries in pages:
        yield "".join(_row(share, one) for one in entries).encode()
        count += len(entries)
        size += sum(one.size for one in entries)
    told = "Nothing is in here." if not count else f"{count} {'entry' if count == 1 else 'entries'}, {_human(size)}"
    more = "" if entry.path else f' · <a href="{share.href(RESERVED, is_folder=True)}">by id, by type, as JSON</a>'
    yield f"</tbody></table><footer>{told}{more}</footer></body></html>\n".encode()


def _row(share: Share, entry: Entry) -> str:
    seconds = entry.mtime_ns // _BILLION
    iso = iso_date(seconds)
    said = {"name": escape(entry.name), "iso": iso, "when": iso[:16].replace("T", " ")}
    if entry.kind is EntryKind.FOLDER:
        return _FOLDER_ROW.format(href=share.href(entry.path, is_folder=True), **said)
    is_data = entry.kind in {EntryKind.IMAGE, EntryKind.STAGED}
    return _ROW.format(
        href=share.href(entry.path, is_folder=False),
        download=" download" if is_data else "",
        kind=_kind(entry),
        size=entry.size,
        human=_human(entry.size),
        **said,
    )


def _kind(entry: Entry) -> str:
    if entry.image is not None:
        is_there = entry.kind is EntryKind.IMAGE
        return entry.image.type.value if is_there else f"{entry.image.type}, {entry.image.status}"
    return entry.kind.value


def _crumbs(share: Share, path: str) -> str:
    crumbs = [f'<a href="{share.href("", is_folder=True)}">Images</a>']
    walked = ""
    for name in filter(None, path.split("/")):
        walked = f"{walked}/{name}" if walked else name
        crumbs.append(f'<a href="{share.href(walked, is_folder=True)}">{escape(name)}</a>')
    return "<i>/</i>".join(crumbs)


def _human(size: int) -> str:
    number, unit = float(size), 0
    while number >= _STEP and unit < len(_UNITS) - 1:
        number /= _STEP
        unit += 1
    return f"{size} B" if not unit else f"{number:.1f} {_UNITS[unit]}"

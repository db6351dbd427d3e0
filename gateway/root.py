# SPDX-License-Identifier: Apache-2.0
"""What is here: the root of the server, for programs and for people.

Answers for the JSON and the small page that name the product and its doors (seed checklist, statement 33).

Threading: pure functions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from gateway.wsgi import Response, whole

_OFFERED: Final = ("application/json", "text/html")

_PAGE: Final = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{name}</title>
<style>
body{{font:16px/1.6 system-ui,sans-serif;max-width:38em;margin:4em auto;padding:0 1em;color:#223;background:#fcfcfa}}
h1{{font-size:1.6em;margin-bottom:0}}p.v{{margin-top:0;color:#667}}dt{{margin-top:1em;font-weight:600}}dd{{margin:0}}
a{{color:#0b5c8a}}@media(prefers-color-scheme:dark){{body{{background:#181a1f;color:#dde}}a{{color:#7cc4ee}}p.v{{color:#9ab}}}}
</style>
<h1>{name}</h1><p class="v">version {version}</p>
<p>Virtual-machine images, kept here and reached through these doors:</p>
<dl>
{doors}
</dl></html>
"""
_DOOR: Final = '<dt>{name}</dt><dd><a href="{url}">{url}</a><br>{about}</dd>'


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorSign:
    """What the root says of a door."""

    name: str
    path: str
    about: str


def root(signs: Sequence[DoorSign], *, version: str, base_url: str, accept: str | None) -> Response:
    """Say what is here, in the form that the caller takes; JSON to those who take any."""
    kind: str | None = _OFFERED[0]
    if accept is not None and accept != "*/*":
        kind = parse_accept_header(accept, MIMEAccept).best_match(_OFFERED, default=_OFFERED[0])
    vary = [("Vary", "Accept")]
    if kind == _OFFERED[1]:
        doors = "\n".join(
            _DOOR.format(name=escape(sign.name), url=escape(base_url + sign.path), about=escape(sign.about))
            for sign in signs
        )
        page = _PAGE.format(name="glancefs", version=escape(version), doors=doors)
        return whole(200, "text/html; charset=utf-8", page.encode(), vary)
    said = {
        "name": "glancefs",
        "version": version,
        "doors": [{"name": sign.name, "url": base_url + sign.path, "about": sign.about} for sign in signs],
    }
    return whole(200, "application/json", f"{json.dumps(said, indent=2)}\n".encode(), vary)

# SPDX-License-Identifier: Apache-2.0
"""What goes wrong, as HTTP says it: the one table from errors to statuses, and the body that tells it.

Answers for the status of every error, and for telling a program (RFC 9457, ``application/problem+json``), a person at a
terminal (one plain sentence) and a browser (a small page) what happened. The Python client turns ``type`` back into the
same class of error. Writes no log.

Threading: pure functions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from gateway.wsgi import Response, whole
from glancefs import errors

URN: Final = "urn:glancefs:error:"
"""What a problem's ``type`` begins with; the ``code`` of the class of error follows."""

STATUSES: Final[Mapping[type[errors.GlancefsError], int]] = MappingProxyType(
    {
        errors.GlancefsError: 500,
        errors.InvalidRequest: 400,
        errors.UploadTooLarge: 413,
        errors.NotAuthenticated: 401,
        errors.Forbidden: 403,
        errors.NotFound: 404,
        errors.Conflict: 409,
        errors.Locked: 423,
        errors.HeadersTooLarge: 431,
        errors.StoreFull: 507,
        errors.DataMissing: 500,
        errors.Unavailable: 503,
        errors.ConfigError: 500,
    }
)
"""An error that is not here has the status of its nearest ancestor that is."""

_JSON: Final = "application/problem+json"
_TEXT: Final = "text/plain"
_HTML: Final = "text/html"
_OFFERED: Final = (_JSON, "application/json", _TEXT, _HTML)
_OFFERED_AS_TEXT: Final = (_TEXT, _JSON, "application/json", _HTML)

# What an operator should mend and a caller can't, in words that give nothing away.
_INTERNAL: Final = "Something went wrong in the server; its log says what."

_PAGE: Final = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:36em;margin:4em auto;padding:0 1em;color:#223}}
h1{{font-size:1.4em}}small{{color:#667}}@media(prefers-color-scheme:dark){{body{{background:#181a1f;color:#dde}}}}</style>
<h1>{title}</h1><p>{detail}</p><p><small>{status}</small></p></html>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that did not succeed, in HTTP's terms."""

    status: int
    code: str
    """In kebab case; the `code` of a class of error where there is one."""
    detail: str
    """One plain sentence for people."""
    headers: tuple[tuple[str, str], ...] = ()
    members: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """What programs are told besides (RFC 9457, section 3.2)."""


def status_of(error: type[errors.GlancefsError]) -> int:
    """Give the status of a class of error."""
    return next(STATUSES[ancestor] for ancestor in error.__mro__ if ancestor in STATUSES)


def problem_of(error: errors.GlancefsError, *, challenge: str | None = None) -> Problem:
    """Give the problem that an error is to a caller; ``challenge`` is what a caller who is not known must answer."""
    status = status_of(type(error))
    headers: tuple[tuple[str, str], ...] = ()
    if isinstance(error, errors.Unavailable):
        headers = (("Retry-After", str(error.retry_after)),)
    elif status == HTTPStatus.UNAUTHORIZED and challenge is not None:
        headers = (("WWW-Authenticate", challenge),)
    # The text of an error that is the operator's to mend may name files and hosts.
    detail = _INTERNAL if status == HTTPStatus.INTERNAL_SERVER_ERROR else str(error) or HTTPStatus(status).phrase
    members = {"path": error.path} if isinstance(error, errors.Locked) and error.path is not None else {}
    return Problem(status=status, code=error.code, detail=detail, headers=headers, members=members)


def internal_problem() -> Problem:
    """Give the problem for an exception that nobody expected."""
    return Problem(status=500, code=errors.GlancefsError.code, detail=_INTERNAL)


def not_found(path: str) -> Problem:
    """Give the problem of a path that leads nowhere."""
    return Problem(status=404, code=errors.NotFound.code, detail=f"There is nothing at {path[:200]!r}.")


def method_not_allowed(method: str, allowed: Iterable[str]) -> Problem:
    """Give the problem of a method that a path does not have (RFC 9110, section 15.5.6)."""
    allow = ", ".join(allowed)
    detail = f"{method[:20]!r} can't be done here; {allow} can."
    return Problem(status=405, code="method-not-allowed", detail=detail, headers=(("Allow", allow),))


def problem_response(problem: Problem, *, accept: str | None, prefers_text: bool = False) -> Response:
    """Tell a problem in the form that the caller takes; ``prefers_text`` where they take any."""
    kind = _kind(accept, _OFFERED_AS_TEXT if prefers_text else _OFFERED)
    title = HTTPStatus(problem.status).phrase
    if kind == _TEXT:
        content_type, text = "text/plain; charset=utf-8", problem.detail + "\n"
    elif kind == _HTML:
        content_type = "text/html; charset=utf-8"
        text = _PAGE.format(title=title, detail=escape(problem.detail), status=problem.status)
    else:
        content_type = _JSON
        text = json.dumps(problem_json(problem)) + "\n"
    return whole(problem.status, content_type, text.encode(errors="replace"), problem.headers)


def problem_json(problem: Problem) -> dict[str, object]:
    """Give the object that tells a problem to programs (RFC 9457, section 3)."""
    title = HTTPStatus(problem.status).phrase
    said = {"type": URN + problem.code, "title": title, "status": problem.status, "detail": problem.detail}
    return said | dict(problem.members)


def _kind(accept: str | None, offered: tuple[str, ...]) -> str:
    if accept is None or accept == "*/*":
        return offered[0]
    return parse_accept_header(accept, MIMEAccept).best_match(offered, default=offered[0])

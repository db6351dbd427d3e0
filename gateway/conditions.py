# SPDX-License-Identifier: Apache-2.0
"""Conditional requests: whether a request is carried out, given what its caller knows already.

Answers for the evaluation of ``If-Match``, ``If-Unmodified-Since``, ``If-None-Match``, ``If-Modified-Since`` and
``If-Range`` in the order of RFC 9110, section 13.2.2. A header that is malformed is as good as absent where the RFC
says so. Knows nothing of images: it is given an entity tag and a time.

Threading: pure functions.
"""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus

from werkzeug.http import parse_date, parse_etags

from gateway.wsgi import Request


def failed_condition(request: Request, *, etag: str | None, modified: datetime, is_read: bool) -> HTTPStatus | None:
    """Give the status of the answer when a condition fails (304 or 412); None when the request is to be carried out.

    ``etag`` is a strong entity tag with its quotes, or None while there is none; ``modified`` is UTC, whole seconds.
    """
    opaque = None if etag is None else etag[1:-1]
    if_match = request.header("if-match")
    if if_match is not None:
        if not _matches(if_match, opaque, weakly=False):
            return HTTPStatus.PRECONDITION_FAILED
    elif _is_later(modified, request.header("if-unmodified-since")):
        return HTTPStatus.PRECONDITION_FAILED
    if_none_match = request.header("if-none-match")
    if if_none_match is not None:
        if _matches(if_none_match, opaque, weakly=True):
            return HTTPStatus.NOT_MODIFIED if is_read else HTTPStatus.PRECONDITION_FAILED
    elif is_read:
        since = request.header("if-modified-since")
        if since is not None and _date(since) is not None and not _is_later(modified, since):
            return HTTPStatus.NOT_MODIFIED
    return None


def range_applies(request: Request, *, etag: str | None, modified: datetime) -> bool:
    """Say whether ``If-Range``, if there is one, lets a range be sent (RFC 9110, section 13.1.5)."""
    said = request.header("if-range")
    if said is None:
        return True
    said = said.strip()
    if said.startswith(('"', "W/")):
        # A weak tag never matches here: the comparison is strong.
        return said == etag
    return _date(said) == _utc(modified)


def _matches(said: str, opaque: str | None, *, weakly: bool) -> bool:
    tags = parse_etags(said)
    if tags.star_tag:
        return True
    if opaque is None:
        return False
    return tags.contains_weak(opaque) if weakly else tags.contains(opaque)


def _is_later(modified: datetime, said: str | None) -> bool:
    date = None if said is None else _date(said)
    return date is not None and _utc(modified) > date


def _date(text: str) -> datetime | None:
    try:
        return parse_date(text)
    except (ValueError, OverflowError):
        return None


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC, microsecond=0)

# SPDX-License-Identifier: Apache-2.0
"""MKCOL, DELETE, COPY and MOVE (RFC 4918, sections 9.3 and 9.6 to 9.9).

Answers for what their headers say, and for answers that tell which of several things stayed as they were. What the
changes mean, the tree knows.

Threading: pure functions over a request's tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from wsgidav.dav_error import DAVError

from gateway.dav.call import Call
from gateway.dav.xml import DECLARATION, TYPE, escaped
from gateway.problems import problem_of
from gateway.wsgi import STATUS_LINES, Response, no_content, whole
from glancefs.errors import GlancefsError, NotFound, PathTaken
from glancefs.tree import Entry, EntryKind

Failure = tuple[str, GlancefsError]
"""A path, and what went wrong there."""


def make_folder(call: Call) -> Response:
    """Answer MKCOL. Raises DAVError (405, 409, 415)."""
    request = call.request
    if request.content_length or request.is_chunked:
        raise DAVError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "MKCOL takes no body.")
    call.check(call.find(call.path))
    try:
        call.tree.make_folder(call.path)
    except PathTaken:
        raise DAVError(HTTPStatus.METHOD_NOT_ALLOWED, "There is something at this path already.") from None
    except NotFound:
        raise no_parent() from None
    return Response(status=201, headers=[("Content-Length", "0")])


def delete(call: Call) -> Response:
    """Answer DELETE. Raises DAVError, and what the tree raises."""
    entry = call.entry()
    call.check(entry)
    if entry.kind is EntryKind.FOLDER:
        _check_depth(call, {"infinity"})
    stayed = _remove(call, entry)
    return _told(call, stayed) if stayed else no_content()


def move(call: Call) -> Response:
    """Answer MOVE: what is moved stays what it is, with another name. Raises DAVError, and what the tree raises."""
    entry, target, before = _source_and_target(call)
    if entry.kind is EntryKind.FOLDER:
        _check_depth(call, {"infinity"})
    if before is not None and _is_in_the_way(entry, before):
        stayed = _remove(call, before)
        if stayed:
            return _told(call, stayed)
    try:
        call.tree.rename(entry.path, target)
    except NotFound:
        raise no_parent() from None
    return _changed(is_new=before is None)


def copy(call: Call) -> Response:
    """Answer COPY: the data are not sent through this process. Raises DAVError, and what the tree raises."""
    entry, target, before = _source_and_target(call)
    is_deep = True
    if entry.kind is EntryKind.FOLDER:
        is_deep = _check_depth(call, {"0", "infinity"}) == "infinity"
    if before is not None and _is_in_the_way(entry, before):
        stayed = _remove(call, before)
        if stayed:
            return _told(call, stayed)
    try:
        copied = call.tree.copy(entry.path, target, is_deep=is_deep)
    except NotFound:
        raise no_parent() from None
    if copied.failures:
        return _told(call, [(failure.path, failure.error) for failure in copied.failures])
    return _changed(is_new=before is None)


def no_parent() -> DAVError:
    """Give the error for a path whose folder is not there (sections 9.3.1, 9.7.1, 9.8.5)."""
    return DAVError(HTTPStatus.CONFLICT, "The folder that it would be in is not there.")


# ---- what they have in common


def _source_and_target(call: Call) -> tuple[Entry, str, Entry | None]:
    """Give what is to be moved or copied, where to, and what is there. Raises DAVError (400, 403, 412, 502)."""
    target = call.share.destination(call.request.environ)
    overwrite = (call.request.header("overwrite") or "T").strip().upper()
    if overwrite not in {"T", "F"}:
        raise DAVError(HTTPStatus.BAD_REQUEST, "Overwrite is T or F.")
    entry = call.followed(call.entry()) if call.method == "COPY" else call.entry()
    call.check(entry)
    if target.path == call.path or not call.path or not target.path:
        raise DAVError(HTTPStatus.FORBIDDEN, "Nothing can be moved or copied onto itself, and the root stays.")
    if f"{target.path}/".startswith(f"{call.path}/") or f"{call.path}/".startswith(f"{target.path}/"):
        raise DAVError(HTTPStatus.FORBIDDEN, "Nothing can be moved or copied into itself, or over what it is in.")
    before = call.find(target.path)
    if before is not None and overwrite == "F":
        raise DAVError(HTTPStatus.PRECONDITION_FAILED, "There is something at the Destination already.")
    call.tree.check_unlocked(target.path)
    if call.method == "MOVE":
        call.tree.check_unlocked(call.path)
    return entry, target.path, before


def _is_in_the_way(entry: Entry, before: Entry) -> bool:
    """Say whether what is at the Destination has to go first; a file takes a file's place in one step."""
    return EntryKind.FOLDER in {entry.kind, before.kind}


def _remove(call: Call, entry: Entry) -> Sequence[Failure]:
    if entry.kind is EntryKind.FOLDER:
        return [(left.path, left.error) for left in call.tree.clear(entry.path)]
    call.tree.remove(entry.path)
    return ()


def _changed(*, is_new: bool) -> Response:
    return Response(status=201, headers=[("Content-Length", "0")]) if is_new else no_content()


def _check_depth(call: Call, allowed: set[str]) -> str:
    depth = (call.request.header("depth") or "infinity").strip().lower()
    if depth not in allowed:
        raise DAVError(HTTPStatus.BAD_REQUEST, f"The Depth of {call.method} of a folder is {' or '.join(allowed)}.")
    return depth


def _told(call: Call, failures: Sequence[Failure]) -> Response:
    """Tell what could not be done, and why (sections 9.6.1 and 9.8.3)."""
    pieces = [f'{DECLARATION}<D:multistatus xmlns:D="DAV:">\n']
    for path, error in failures:
        problem = problem_of(error)
        pieces.append(
            f"<D:response><D:href>{call.share.href(path, is_folder=False)}</D:href>"
            f"<D:status>HTTP/1.1 {STATUS_LINES[problem.status]}</D:status>"
            f"<D:responsedescription>{escaped(problem.detail)}</D:responsedescription></D:response>\n"
        )
    pieces.append("</D:multistatus>\n")
    return whole(HTTPStatus.MULTI_STATUS, TYPE, "".join(pieces).encode())

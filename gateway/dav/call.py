# SPDX-License-Identifier: Apache-2.0
"""One request to the share, and what is known of it before it is carried out.

Answers for the tree of the caller with the lock tokens that they submit, for what is at the request's path, and for
whether the request's conditions hold. Changes nothing.

Threading: belongs to one request.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import cached_property
from http import HTTPStatus
from typing import Final, Self

from wsgidav.dav_error import DAVError

from gateway.conditions import failed_condition
from gateway.dav.conditions import check_if, parsed_if, submitted_tokens
from gateway.dav.properties import Properties, etag_of
from gateway.dav.reading import modified_at
from gateway.dav.urls import Share
from gateway.wsgi import Request
from glancefs.assembly import Trees
from glancefs.errors import Locked, NotFound, PathNotFound
from glancefs.paths import join, split
from glancefs.tree import Entry, EntryKind

_CONDITIONS: Final = ("if-match", "if-none-match", "if-unmodified-since")


class Call:
    """A request to the share; a context manager that lets go of the tree."""

    def __init__(self, request: Request, *, trees: Trees) -> None:
        self.request: Final = request
        self.method: Final = request.method
        self.share: Final = Share.of(request.environ, base_url=request.base_url)
        self.target: Final = self.share.requested(request.environ)
        self.path: Final = self.target.path
        self.ifs: Final = parsed_if(request.header("if"))
        self._is_conditional: Final = bool(self.ifs) or any(request.header(name) is not None for name in _CONDITIONS)
        self.context: Final = replace(request.context, lock_tokens=submitted_tokens(self.ifs))
        self.tree: Final = trees.of(self.context, public_url=request.base_url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.tree.close()

    @cached_property
    def properties(self) -> Properties:
        """What writes properties for this request."""
        return Properties(share=self.share, tree=self.tree, base_url=self.request.base_url, space=self.tree.space)

    def entry(self) -> Entry:
        """Give what is at the request's path. Raises PathNotFound, also for a file that is called a folder."""
        entry = self.tree.lookup(self.path)
        if self.target.is_folder and entry.kind is not EntryKind.FOLDER:
            raise PathNotFound.at(f"{self.path}/")
        return entry

    def find(self, path: str) -> Entry | None:
        """Give what is at a path, if anything is."""
        try:
            return self.tree.lookup(path)
        except NotFound:
            return None

    def followed(self, entry: Entry) -> Entry:
        """Give what a link leads to, as if it were at the link's own path; anything else as it is.

        Raises PathNotFound for a link that leads nowhere by now.
        """
        if entry.kind is not EntryKind.LINK:
            return entry
        path = split(entry.path)[0]
        for part in self.tree.read_link(entry).split("/"):
            path = split(path)[0] if part == ".." else join(path, part)
        return replace(self.tree.lookup(path), path=entry.path, is_changeable=False)

    def check(self, entry: Entry | None) -> None:
        """Raise DAVError (412) unless what the request asks of the present state holds."""
        if not self._is_conditional:
            return
        check_if(self.ifs, self._state)
        if entry is None:
            failed = self.request.header("if-match") is not None
        else:
            tag, modified = etag_of(entry), modified_at(entry)
            failed = failed_condition(self.request, etag=tag, modified=modified, is_read=False) is not None
        if failed:
            raise DAVError(HTTPStatus.PRECONDITION_FAILED, "The file is not in the state that the request asks for.")

    def locked_hrefs(self, error: Locked) -> tuple[str, ...]:
        """Give the href of the lock that is in the way."""
        return (self.share.href(self.path if error.path is None else error.path, is_folder=False),)

    def _state(self, url: str | None) -> tuple[Collection[str], str | None]:
        target = self.target if url is None else self.share.named(url)
        if target is None:
            return (), None
        entry = self.find(target.path)
        locks = self.tree.locks_on(target.path)
        return [lock.token for lock in locks], None if entry is None else etag_of(entry)

# SPDX-License-Identifier: Apache-2.0
"""Who asks: the value that every use case takes first.

Answers for nothing but carrying the answer of an authenticator to the use cases. Does not decide what somebody may do:
`glancefs.images` does.

Threading: a frozen value, passed explicitly; never kept in a thread's local storage.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """The caller of a use case."""

    user: str | None = None
    """The user's name; None for a caller who did not say (may see and read what is public, and nothing else)."""

    is_admin: bool = False
    """Whether the user may see and change everybody's images."""

    lock_tokens: frozenset[str] = frozenset()
    """The tokens of write locks that the caller submits: what these lock, they may change (RFC 4918, section 7)."""


ANONYMOUS = RequestContext()
LOCAL_USER = "local"

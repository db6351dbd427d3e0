# SPDX-License-Identifier: Apache-2.0
"""The figures that keep one client from harming the others.

Answers for the limits of the HTTP layer and their defaults. Does not enforce them: each is enforced
where its name is used.

Threading: frozen values.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a client may send, and how long it may take; of each process. Sizes are bytes, times are seconds."""

    max_header_bytes: int = 8192
    """All header lines of a request with their CRLFs, without the request line and the empty line (seed: "8K")."""
    max_request_line: int = 8192
    """The request line without its CRLF."""
    small_body: int = 32 * 1024
    """Up to this size a body is collected without occupying a thread."""
    small_body_patience: float = 1.0
    """How long a small body is waited for in that way before it counts as an upload."""
    head_timeout: float = 15.0
    """From the first byte of a request (or the start of a TLS handshake) to the end of its headers."""
    idle_timeout: float = 75.0
    """How long a connection may stay open without a request."""
    body_timeout: float = 30.0
    """The longest silence within a request's body."""
    write_timeout: float = 30.0
    """The longest time in which a client takes not a single byte of the response."""
    min_rate: int = 1024
    """Bytes per second that a transfer must make on average while the client is waited for; 0 asks for nothing."""
    min_rate_grace: float = 30.0
    """The time of waiting within one request before `min_rate` is asked for."""
    linger: float = 2.0
    """How long a refused client may go on sending before it is cut, so that it reads the refusal first."""
    linger_bytes: int = 4 * 1024 * 1024
    """How much a refused client may go on sending before it is cut."""
    max_connections: int = 2000
    """Open connections of one process; beyond, the one that waits longest goes."""
    max_uploads: int = 32
    """Uploads that one process takes at a time; beyond: 503 with Retry-After."""
    max_downloads: int = 64
    """Long responses that one process sends at a time; beyond: 503 with Retry-After."""
    reserve: int = 8
    """Threads that no transfer ever occupies."""
    slotless_patience: float = 0.25
    """How long a short response may wait for its client when every place for a download is taken."""
    retry_after: int = 5
    """What a 503 says in Retry-After."""

    @property
    def threads(self) -> int:
        """The most threads that ever answer requests in one process."""
        return self.max_uploads + self.max_downloads + self.reserve

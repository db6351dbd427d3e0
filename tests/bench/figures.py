# SPDX-License-Identifier: Apache-2.0
"""The figures that are measured: what each is, beside whom, and what was promised.

Answers for judging a measurement and for printing the table, on the screen and as a page of the documentation. Does not
measure.

Threading: values and pure functions; a `Report` belongs to one thread.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

TUNED = "nginx with large buffers, unhashed, unsynced"
ONE_WORKER = "itself, one worker"
FEW_IMAGES = "itself, 1,000 images"
NOBODY_ELSE = "itself, no uploads"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table. What is promised is all of the limits that are set."""

    key: str
    what: str
    unit: str
    peer: str = ""
    at_least: float | None = None
    at_most: float | None = None
    ratio: float | None = None
    """The least of ours divided by the peer's."""

    @property
    def target(self) -> str:
        """What was promised, in words."""
        parts = [f"at least {amount(self.at_least, self.unit)}"] if self.at_least is not None else []
        parts += [f"at most {amount(self.at_most, self.unit)}"] if self.at_most is not None else []
        parts += [f"ratio {self.ratio:g}"] if self.ratio is not None else []
        return ", ".join(parts)


_WHO: Final = {
    "half": "the owner of half of them",
    "few": "the owner of one in ten thousand",
    "stranger": "a user who has none",
    "anonymous": "nobody known",
}

_MOUNT: Final = (
    Figure(key="mount-read", what="mount: first read of 1 GiB", unit="MiB/s", peer="bindfs", ratio=1.2),
    Figure(key="mount-read-c", what="the same", unit="MiB/s", peer="passthrough_ll"),
    Figure(key="mount-read-rclone", what="the same", unit="MiB/s", peer="rclone mount", ratio=8),
    Figure(key="mount-reread", what="mount: second read of 1 GiB", unit="MiB/s", peer="ext4", ratio=0.9),
    Figure(key="mount-random", what="mount: 4 KiB at random, first", unit="/s", peer="passthrough_ll", ratio=0.8),
    Figure(key="mount-random-again", what="mount: 4 KiB at random, again", unit="/s", peer="ext4", ratio=0.9),
    Figure(key="mount-write", what="mount: 1 GiB written, hashed", unit="MiB/s", peer="passthrough_ll", ratio=0.8),
    Figure(key="mount-write-rclone", what="the same", unit="MiB/s", peer="rclone mount"),
    Figure(
        key="mount-cp",
        what="mount: cp of 1 GiB in, hashed and synced",
        unit="MiB/s",
        peer="cp to ext4, then sha256sum, unsynced",
        ratio=0.5,
    ),
    Figure(
        key="mount-create",
        what="mount: files of 4 KiB, 16 clients, durable",
        unit="/s",
        peer="ext4, file and folder synced by the client",
        at_least=300,
    ),
    Figure(key="mount-ls", what="mount: ls -l of 10,000, the first", unit="/s", peer="ext4", ratio=0.4),
    Figure(key="mount-stat", what="mount: stat beside 8 readers, p99", unit="ms", at_most=10),
    Figure(key="mount-memory", what="mount: memory with 100,000 listed, 100 open", unit="MiB", at_most=150),
)

_REMOTE_WHAT: Final = {
    "remote-read": ("mount of a server: open and first read of 1 GiB", "MiB/s"),
    "remote-random": ("mount of a server: open, then 1,000 times 4 KiB at random", "/s"),
    "remote-write": ("mount of a server: 1 GiB written, until it is there", "MiB/s"),
    "remote-ls": ("mount of a server: ls -l of 1,000, the first", "/s"),
}
_REMOTE: Final = (
    *(
        Figure(key=f"{key}-{peer}", what=what if peer == "rclone" else "the same", unit=unit, peer=name, ratio=1.5)
        for key, (what, unit) in _REMOTE_WHAT.items()
        for peer, name in (("rclone", "rclone mount"), ("davfs", "davfs2"))
    ),
    Figure(
        key="remote-cached",
        what="mount of a server: first read of 1 GiB, in its cache from an earlier mount",
        unit="MiB/s",
        peer="ext4",
        ratio=0.9,
    ),
    Figure(key="remote-cached-local", what="the same", unit="MiB/s", peer="mount of the data folder"),
    Figure(key="remote-cached-again", what="the same, second read", unit="MiB/s", peer="ext4", ratio=0.9),
)

_DAV_NAMES: Final = {
    "nginx": "nginx as it comes, with dav-ext",
    "tuned": TUNED,
    "apache": "Apache, mod_dav",
    "rclone": "rclone serve webdav",
    "stock": "wsgidav as it comes",
}
DAV_PEERS: Final = {
    "dav-get": ("nginx", "apache", "rclone", "stock"),
    "dav-put": ("tuned", "nginx", "apache", "rclone", "stock"),
    "dav-list": ("apache", "nginx", "rclone", "stock"),
    "dav-list-all": ("apache", "nginx", "rclone", "stock"),
    "dav-small": ("stock", "rclone", "apache", "nginx"),
    "dav-look": ("stock", "rclone", "apache", "nginx"),
}
"""Beside whom each figure of the WebDAV door stands, the one that was promised about first."""


def _beside(key: str, what: str, unit: str, **ratios: float) -> tuple[Figure, ...]:
    """One line for each peer; ``ratios`` says what was promised beside whom."""
    return tuple(
        Figure(
            key=f"{key}-{peer}",
            what="the same" if number else what,
            unit=unit,
            peer=_DAV_NAMES[peer],
            ratio=ratios.get(peer),
        )
        for number, peer in enumerate(DAV_PEERS[key])
    )


_DAV: Final = (
    *_beside("dav-get", "WebDAV: GET of 1 GiB", "MB/s", nginx=0.9),
    *_beside("dav-put", "WebDAV: PUT of 1 GiB, hashed and synced", "MB/s", nginx=0.6),
    Figure(key="dav-busy", what="WebDAV: memory during these transfers, each worker", unit="MiB", at_most=100),
    *_beside("dav-list", "WebDAV: PROPFIND of 10,000, as clients ask", "/s", apache=0.5),
    Figure(key="dav-list-first", what="the same, until the first bytes", unit="ms", at_most=50),
    Figure(key="dav-list-memory", what="the same, memory at its highest", unit="MiB", at_most=100),
    *_beside("dav-list-all", "WebDAV: PROPFIND of 10,000, all properties", "/s", apache=0.5),
    Figure(key="dav-list-all-first", what="the same, until the first bytes", unit="ms", at_most=50),
    Figure(key="dav-list-all-memory", what="the same, memory at its highest", unit="MiB", at_most=100),
    *_beside("dav-small", "WebDAV: GET of 4 KiB, 8 clients", "/s", stock=2),
    *_beside("dav-look", "WebDAV: PROPFIND of one file, 8 clients", "/s", stock=2),
)

_STORES: Final = (
    Figure(
        key="swift-upload",
        what="Swift store: POST of 512 MiB",
        unit="MB/s",
        peer="swift upload, its start too",
        ratio=0.9,
    ),
    Figure(
        key="swift-download",
        what="Swift store: GET of 512 MiB",
        unit="MB/s",
        peer="swift download, its start too",
        ratio=0.9,
    ),
    Figure(
        key="swift-mount",
        what="Swift store: read of 512 MiB through a mount",
        unit="MB/s",
        peer="swift download, its start too",
    ),
)

KINDS: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mariadb": "MariaDB"}
"""The databases that a registry may be on."""

VIEWERS: Final = {name: _WHO[name] for name in ("half", "few", "anonymous")} | {"admin": "an admin"}
"""Who reads pages of the registry."""

_REGISTRIES: Final = tuple(
    figure
    for kind, title in KINDS.items()
    for figure in (
        *(
            Figure(
                key=f"{kind}-list-{key}",
                what=f"registry on {title}: 25 out of 1,000,000, for {who}",
                unit="/s",
                peer=FEW_IMAGES,
                ratio=round(1 / 1.5, 2),
            )
            for key, who in VIEWERS.items()
        ),
        Figure(key=f"{kind}-adds", what=f"registry on {title}: images added by 8 gateways, durable", unit="/s"),
    )
)

FIGURES: Final = (
    Figure(key="get", what="GET of 1 GiB", unit="MB/s", peer="nginx", ratio=0.9),
    Figure(key="get-4", what="GET of 1 GiB, 4 at a time", unit="MB/s", peer="nginx", ratio=0.9),
    Figure(key="post", what="POST of 1 GiB, hashed and synced", unit="MB/s", peer=TUNED),
    Figure(key="post-default", what="the same", unit="MB/s", peer="nginx as it comes, unhashed, unsynced", ratio=0.6),
    Figure(key="post-disk", what="the same", unit="MB/s", peer="the disk alone, synced"),
    Figure(key="post-unsynced", what="POST of 1 GiB, hashed, unsynced", unit="MB/s", peer=TUNED),
    Figure(key="post-hash", what="the same", unit="MB/s", peer="SHA-256 alone"),
    Figure(key="head", what="HEAD, 16 clients, one worker", unit="/s", peer="nginx, one worker", at_least=2500),
    Figure(key="head-2", what="HEAD, 16 clients, two workers", unit="/s", peer=ONE_WORKER, ratio=1.7),
    *(
        Figure(
            key=f"list-{key}",
            what=f"list of 25 out of 1,000,000, for {who}",
            unit="/s",
            peer=FEW_IMAGES,
            at_least=800,
            ratio=round(1 / 1.3, 2),
        )
        for key, who in _WHO.items()
    ),
    Figure(key="pairs", what="create + delete, 16 clients, durable", unit="/s", at_least=300),
    Figure(
        key="pairs-data",
        what="the same with 4 KiB of data, durable",
        unit="/s",
        peer="nginx, PUT + DELETE, unsynced",
    ),
    Figure(key="slow-head", what="HEAD beside 16 slow uploads, p99", unit="ms", peer=NOBODY_ELSE, at_most=50),
    Figure(key="slow-health", what="/healthcheck beside 16 slow uploads, p99", unit="ms", peer=NOBODY_ELSE, at_most=50),
    Figure(key="start", what="start to first answer", unit="s", peer="nginx", at_most=1),
    Figure(key="idle", what="memory when idle, one worker", unit="MiB", at_most=60),
    Figure(key="busy", what="memory at its highest during these transfers, each worker", unit="MiB", at_most=100),
    *_MOUNT,
    *_REMOTE,
    *_DAV,
    *_STORES,
    *_REGISTRIES,
)


def amount(value: float, unit: str) -> str:
    """A value as people read it."""
    digits = f"{value:,.2f}" if value < 10 else f"{value:,.0f}"
    return f"{digits.removesuffix('.00')}{'' if unit.startswith('/') else ' '}{unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What came out for a figure: the medians, and all runs."""

    figure: Figure
    ours: float
    peer: float | None = None
    runs: Sequence[object] = ()

    @property
    def ratio(self) -> float | None:
        """Ours divided by the peer's."""
        return self.ours / self.peer if self.peer else None

    @property
    def is_met(self) -> bool | None:
        """Whether the promise was kept; None where nothing was promised."""
        figure, kept = self.figure, []
        if figure.at_least is not None:
            kept.append(self.ours >= figure.at_least)
        if figure.at_most is not None:
            kept.append(self.ours <= figure.at_most)
        if figure.ratio is not None:
            kept.append(self.ratio is not None and self.ratio >= figure.ratio)
        return all(kept) if kept else None

    def cells(self) -> tuple[str, ...]:
        """The line of the table."""
        unit = self.figure.unit
        met = {True: "yes", False: "**no**", None: ""}[self.is_met]
        return (
            self.figure.what,
            amount(self.ours, unit),
            f"{amount(self.peer, unit)} ({self.figure.peer})" if self.peer else "",
            f"{self.ratio:.2f}" if self.ratio else "",
            self.figure.target,
            met,
        )


HEADINGS: Final = ("What", "glancefs", "Peer", "Ratio", "Promised", "Kept")


@dataclass(slots=True, kw_only=True)
class Report:
    """What was measured."""

    measured: dict[str, Measured] = field(default_factory=dict)

    def add(self, key: str, *, ours: float, peer: float | None = None, runs: Sequence[object] = ()) -> None:
        """Note a figure. Raises StopIteration for one that nobody knows."""
        figure = next(figure for figure in FIGURES if figure.key == key)
        self.measured[key] = Measured(figure=figure, ours=ours, peer=peer, runs=runs)

    @property
    def is_complete(self) -> bool:
        """Whether every figure was measured."""
        return all(figure.key in self.measured for figure in FIGURES)

    def rows(self) -> list[tuple[str, ...]]:
        """The table, in the order of `FIGURES`."""
        return [self.measured[figure.key].cells() for figure in FIGURES if figure.key in self.measured]

    def as_text(self) -> str:
        """The table for a terminal."""
        rows = [HEADINGS, *self.rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )

    def as_markdown(self) -> str:
        """The table for a page."""
        rule = ("---", "--:", "--:", "--:", "---", "---")
        return "\n".join("| " + " | ".join(row) + " |" for row in (HEADINGS, rule, *self.rows()))

    def with_earlier(self, file: Path) -> Report:
        """Give this report, and for what it lacks what was measured here before, as far as it is still known."""
        raw = json.loads(file.read_text()) if file.exists() else {}
        both = Report()
        for figure in FIGURES:
            if figure.key in self.measured:
                both.measured[figure.key] = self.measured[figure.key]
            elif (known := raw.get(figure.key)) is not None:
                both.add(figure.key, ours=known["ours"], peer=known["peer"], runs=known["runs"])
        return both

    def save_raw(self, file: Path) -> None:
        """Keep every run, for whoever wants to look closer."""
        raw = {key: asdict(measured) for key, measured in self.measured.items()}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(raw, indent=1, default=str) + "\n")

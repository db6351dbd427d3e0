# SPDX-License-Identifier: Apache-2.0
"""Registries that hold very many images, made in seconds rather than hours.

Answers for filling an empty SQLite registry behind its back, as its own code would have left it. Does not add to one
that holds something.

Threading: one thread, and nobody else on the database meanwhile.
"""

import random
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from glancefs.model import Image, ImageStatus, ImageType, Location
from glancefs.registries.rows import property_digests, values_of

START = datetime(2024, 1, 1, tzinfo=UTC)
FEW_OWNER = "few"
"""Owns every ten thousandth image."""
HALF_OWNER = "half"
"""Owns every second image."""


def various_images(count: int) -> Iterator[Image]:
    """Make images of all kinds: half of them public, two owners and a crowd, some without data, some deleted."""
    dice = random.Random(count)
    for number in range(1, count + 1):
        status = dice.choices(
            [ImageStatus.AVAILABLE, ImageStatus.QUEUED, ImageStatus.KILLED, ImageStatus.DELETED], [90, 4, 1, 5]
        )[0]
        has_data = status in {ImageStatus.AVAILABLE, ImageStatus.DELETED}
        created_at = START + timedelta(seconds=number // 2)
        yield Image(
            id=str(number) if number % 3 else f"{dice.getrandbits(128):032x}",
            name=f"{dice.choice(['debian', 'web', 'build', 'db'])}-{dice.randrange(count)}",
            type=dice.choice(list(ImageType)),
            status=status,
            size=dice.randrange(1 << 35) if has_data else 0,
            store="file",
            owner=FEW_OWNER if number % 10_000 == 1 else HALF_OWNER if number % 2 else f"user-{dice.randrange(1000)}",
            is_public=dice.random() < 0.5,
            created_at=created_at,
            updated_at=created_at + timedelta(seconds=dice.choice([0, 0, dice.randrange(1_000_000)])),
            deleted_at=created_at + timedelta(days=30) if status is ImageStatus.DELETED else None,
            checksum=f"sha256:{dice.getrandbits(256):064x}" if has_data else None,
            location=Location(store="file", key=f"{number:032x}") if status is ImageStatus.AVAILABLE else None,
            properties={"os": dice.choice(["linux", "other"]), "serial": str(number)} if number % 4 == 0 else {},
            disk_format=dice.choice([None, "raw", "qcow2"]),
        )


def fill(database: Path, images: Iterable[Image]) -> int:
    """Put images into an empty registry, in their order. Gives how many there were.

    Indexes are made when all the rows are there, which is many times faster than keeping them up.
    """
    connection = sqlite3.connect(database)
    try:
        connection.execute("PRAGMA synchronous = OFF")
        kept = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql NOT NULL"
        ).fetchall()
        for name, _ in kept:
            connection.execute(f"DROP INDEX {name}")
        count = _insert(connection, images)
        for _, sql in kept:
            connection.execute(sql)
        connection.execute(
            "INSERT INTO holdings (status, store, images, size_high, size_low)"
            " SELECT status, store, count(*), sum(size >> 32), sum(size & 0xFFFFFFFF) FROM images"
            " WHERE shelf IS NOT NULL GROUP BY status, store"
        )
        connection.execute("UPDATE counters SET revision = ?, next_id = ?", (count, count + 1))
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()
    return count


def _insert(connection: sqlite3.Connection, images: Iterable[Image]) -> int:
    def rows() -> Iterator[dict[str, Any]]:
        for number, image in enumerate(images, start=1):
            properties.extend((digest, number) for digest in property_digests(image.properties))
            yield values_of(replace(image, revision=number)) | {"seq": number, "place": number}

    properties: list[tuple[str, int]] = []
    named = ("id", *[row[1] for row in connection.execute("PRAGMA table_info(images)") if row[1] != "id"])
    places = ", ".join(f":{name}" for name in named)
    into = f"INSERT INTO images ({', '.join(named)}) VALUES ({places})"  # noqa: S608 - the names are the schema's
    done = connection.executemany(into, rows())
    connection.executemany("INSERT INTO image_properties (digest, seq) VALUES (?, ?)", sorted(properties))
    return done.rowcount

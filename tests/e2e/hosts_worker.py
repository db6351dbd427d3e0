# SPDX-License-Identifier: Apache-2.0
"""A user of one host among several: adds, reads, renames and deletes at random until told to end, and says what came.

Run as ``python -m tests.e2e.hosts_worker NAME SEED TARGET``, TARGET a server's URL or a mount's folder. Each line of
its output is one act: what, with which image, and whether it was done, refused, or left open (no answer, or one that
says that it is not known). The content of an image tells its key, so that it is known by whatever name.

Threading: one thread.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from tests.support.servers import Reply, ask

HEAD = 64
"""So many bytes of the content hold the key."""
LARGEST = 300_000
PAUSE = 0.02
PATIENCE = 30.0
PROBE = "probe-"
"""What the keys of images begin with that users leave alone."""
DONE, REFUSED, OPEN = "done", "refused", "open"


def content(key: str) -> bytes:
    """The content of an image, of any size, which only its key says."""
    numbers = random.Random(key)
    size = numbers.choice([HEAD, 1_000, numbers.randrange(HEAD, LARGEST)])
    return (key.encode().ljust(HEAD, b"\n") + numbers.randbytes(size))[:size]


def key_of(data: bytes) -> str:
    """The key that a content begins with."""
    return data[:HEAD].rstrip(b"\n").decode()


class Unreachable(Exception):
    """Nobody answered, or somebody who can't at present."""


class Absent(Exception):
    """What was to be found is not there (any more)."""


class Door(Protocol):
    """A way to the images; each image is said by what `listed` gave."""

    def listed(self) -> list[str]:
        """Tell of images."""

    def add(self, name: str, data: bytes) -> None:
        """Add an image."""

    def read(self, image: str, length: int | None = None) -> bytes:
        """Give the beginning of an image's content, or all of it."""

    def rename(self, image: str, name: str) -> None:
        """Give an image another name."""

    def delete(self, image: str) -> None:
        """Delete an image."""


class RestDoor:
    """A server."""

    def __init__(self, url: str) -> None:
        self._host = url.partition("://")[2]

    def listed(self) -> list[str]:
        return [image["id"] for image in self._ask("GET", "/images?is_public=none&limit=100").json["images"]]

    def add(self, name: str, data: bytes) -> None:
        headers = {"x-image-meta-name": name, "x-image-meta-type": "raw", "content-type": "application/octet-stream"}
        self._ask("POST", "/images", headers, data)

    def read(self, image: str, length: int | None = None) -> bytes:
        headers = {} if length is None else {"Range": f"bytes=0-{length - 1}"}
        return self._ask("GET", f"/images/{image}", headers).body

    def rename(self, image: str, name: str) -> None:
        self._ask("PUT", f"/images/{image}", {"x-image-meta-name": name})

    def delete(self, image: str) -> None:
        self._ask("DELETE", f"/images/{image}")

    def _ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: Any = None) -> Reply:
        connection = http.client.HTTPConnection(self._host, timeout=PATIENCE)
        try:
            reply = ask(connection, method, path, headers, body)
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(repr(error)) from None
        finally:
            connection.close()
        if reply.status in {404, 409}:
            raise Absent
        if reply.status >= 500:
            raise Unreachable(reply.body.decode(errors="replace"))
        assert reply.status < 300, (reply.status, reply.body)
        return reply


class MountDoor:
    """A mount."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def listed(self) -> list[str]:
        return sorted(self._guarded(lambda: os.listdir(self._folder)))  # noqa: PTH208 - names are what is wanted

    def add(self, name: str, data: bytes) -> None:
        self._guarded(lambda: (self._folder / name).write_bytes(data))

    def read(self, image: str, length: int | None = None) -> bytes:
        def read() -> bytes:
            with (self._folder / image).open("rb") as file:
                return file.read(-1 if length is None else length)

        data: bytes = self._guarded(read)
        return data

    def rename(self, image: str, name: str) -> None:
        self._guarded(lambda: (self._folder / image).rename(self._folder / name))

    def delete(self, image: str) -> None:
        self._guarded((self._folder / image).unlink)

    @staticmethod
    def _guarded(act: Callable[[], Any]) -> Any:
        try:
            return act()
        except FileNotFoundError:
            raise Absent from None
        except OSError as error:
            raise Unreachable(repr(error)) from None


class Worker:
    """One user."""

    def __init__(self, *, name: str, door: Door, seed: int) -> None:
        self._name = name
        self._door = door
        self._random = random.Random(seed)
        self._count = 0

    def run(self, is_ended: Callable[[], bool]) -> None:
        """Act until the end."""
        acts = [self._add, self._add, self._list, self._read, self._rename, self._delete]
        while not is_ended():
            try:
                self._random.choice(acts)()
            except Unreachable as error:
                self._tell("wait", why=str(error)[:200])
                time.sleep(0.2)
            except Absent:
                pass
            time.sleep(PAUSE)

    def _add(self) -> None:
        name = self._new_name()
        self._act("add", lambda: self._door.add(name, content(name)), key=name)

    def _list(self) -> None:
        self._tell("list", count=len(self._door.listed()), outcome=DONE)

    def _read(self) -> None:
        image = self._any()
        data = self._door.read(image)
        # What is seen is whole, at any moment.
        is_whole = data == content(key_of(data))
        self._tell("read", image=image, outcome=DONE if is_whole else f"half: {len(data)} of {key_of(data)!r}")

    def _rename(self) -> None:
        image, key = self._mine()
        name = self._new_name()
        self._act("rename", lambda: self._door.rename(image, name), key=key, name=name)

    def _delete(self) -> None:
        image, key = self._mine()
        self._act("delete", lambda: self._door.delete(image), key=key)

    def _act(self, what: str, act: Callable[[], None], **said: str) -> None:
        # Before, too: a killed worker leaves open what it was at.
        self._tell(what, **said, outcome=OPEN)
        try:
            act()
        except Absent:
            self._tell(what, **said, outcome=REFUSED)
            raise
        self._tell(what, **said, outcome=DONE)

    def _mine(self) -> tuple[str, str]:
        """Choose an image that users may change, and its key."""
        image = self._any()
        key = key_of(self._door.read(image, HEAD))
        if key.startswith(PROBE):
            raise Absent
        return image, key

    def _any(self) -> str:
        listed = self._door.listed()
        if not listed:
            raise Absent
        return self._random.choice(listed)

    def _new_name(self) -> str:
        self._count += 1
        return f"{self._name}-{self._count}"

    @staticmethod
    def _tell(what: str, **said: Any) -> None:
        sys.stdout.write(json.dumps({"what": what, "at": time.time(), **said}) + "\n")
        sys.stdout.flush()


def acts_of(log: str) -> Iterator[dict[str, Any]]:
    """Read what a worker said."""
    for line in log.splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def digest(data: bytes) -> str:
    """The checksum of a content as images have it."""
    return f"sha256:{sha256(data).hexdigest()}"


def main(name: str, seed: str, target: str) -> None:
    """Act until SIGTERM."""
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    door: Door = RestDoor(target) if target.startswith("http") else MountDoor(Path(target))
    Worker(name=name, door=door, seed=int(seed)).run(lambda: bool(ended))


if __name__ == "__main__":
    main(*sys.argv[1:])

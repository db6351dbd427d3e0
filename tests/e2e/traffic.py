# SPDX-License-Identifier: Apache-2.0
"""Many clients that do everything at once, until their server dies.

Answers for the mixture of requests, and for telling the ledger before each what may happen and after each what did. A
request that fails while the server is alive, or is answered otherwise than it should be, is a complaint.

Threading: one thread per client, each with images of its own; the thread that made a `Traffic` starts and joins them.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from tests.e2e.ledger import MOST, NOTE, Entry, Ledger, State
from tests.support.servers import Body, Reply, SomeServer, ask

CLIENTS: Final = 8
KEPT_PER_CLIENT: Final = 5
"""How many images a client lets stand before it deletes more than it adds."""
PIECE: Final = 64 * 1024


@dataclass(slots=True, kw_only=True)
class Client:
    """One sender of requests, with images that nobody else changes."""

    number: int
    ledger: Ledger
    seed: int
    count: int = 0
    done: dict[str, int] = field(default_factory=dict)
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed * 1000 + self.number)

    def act(self, connection: http.client.HTTPConnection) -> None:
        """Do one thing. Raises AssertionError for a wrong answer, OSError and HTTPException when there is none."""
        actions = [self._add, self._add, self._add_chunked, self._queue, self._note, self._read, self._list]
        own = [entry for entry in self._own() if entry.is_known_available]
        if own and (len(own) > KEPT_PER_CLIENT or self._random.random() < 0.15):
            actions = [self._delete]
        action: Callable[[http.client.HTTPConnection], None] = self._random.choice(actions)
        action(connection)
        name = action.__name__.strip("_")
        self.done[name] = self.done.get(name, 0) + 1

    # -- adding

    def _add(self, connection: http.client.HTTPConnection) -> None:
        entry = self._open()
        data = self.ledger.data_of(entry)
        headers = self._meta(entry) | {"Content-Type": "application/octet-stream"}
        if self._random.random() < 0.5:
            headers["x-image-meta-size"] = str(entry.size)
        body: Body = data
        if self._random.random() < 0.3:
            headers["Content-Length"] = str(entry.size)
            body = self._slowly(data)
        self._post(connection, entry, headers, body)

    def _add_chunked(self, connection: http.client.HTTPConnection) -> None:
        entry = self._open()
        headers = self._meta(entry)
        if self._random.random() < 0.5:
            headers["x-image-meta-size"] = str(entry.size)
        self._post(connection, entry, headers, self._slowly(self.ledger.data_of(entry)))

    def _post(self, connection: http.client.HTTPConnection, entry: Entry, headers: dict[str, str], body: Body) -> None:
        entry.may_become(State.AVAILABLE)
        reply = ask(connection, "POST", "/images/", headers, body)
        self._expect(reply, 201, entry, State.AVAILABLE)

    def _queue(self, connection: http.client.HTTPConnection) -> None:
        """Add an image without data, then send them."""
        waiting = [entry for entry in self._own() if entry.states == {State.QUEUED}]
        if waiting:
            entry = waiting[0]
        else:
            entry = self._open()
            entry.may_become(State.QUEUED)
            reply = ask(connection, "POST", "/images/", self._meta(entry))
            self._expect(reply, 201, entry, State.QUEUED)
        entry.may_become(State.AVAILABLE)
        data = self.ledger.data_of(entry)
        is_slow = self._random.random() < 0.5
        headers = {"Content-Type": "application/octet-stream"}
        reply = ask(connection, "PUT", f"/images/{entry.id}", headers, self._slowly(data) if is_slow else data)
        self._expect(reply, 200, entry, State.AVAILABLE)

    # -- the others

    def _note(self, connection: http.client.HTTPConnection) -> None:
        entry = self._any()
        if entry is None:
            return
        self.count += 1
        note = f"{self.number}-{self.count}"
        entry.may_note(note)
        reply = ask(connection, "PUT", f"/images/{entry.id}", {f"x-image-meta-property-{NOTE}": note})
        assert reply.status == 200, reply
        entry.noted(note)

    def _delete(self, connection: http.client.HTTPConnection) -> None:
        entry = self._any()
        if entry is None:
            return
        entry.may_become(State.DELETED)
        reply = ask(connection, "DELETE", f"/images/{entry.id}")
        assert reply.status == 200, reply
        entry.became(State.DELETED)

    def _read(self, connection: http.client.HTTPConnection) -> None:
        entry = self._any()
        if entry is None:
            return
        reply = ask(connection, "GET", f"/images/{entry.id}")
        assert reply.status == 200, reply
        assert reply.body == self.ledger.data_of(entry), f"{entry.name} came back different"

    def _list(self, connection: http.client.HTTPConnection) -> None:
        reply = ask(connection, "GET", "/images/detail?is_public=none&limit=25")
        assert reply.status == 200, reply
        assert isinstance(reply.json["images"], list)

    # -- parts

    def _own(self) -> list[Entry]:
        mine = f"c{self.number}-"
        return [entry for name, entry in self.ledger.entries.copy().items() if name.startswith(mine)]

    def _any(self) -> Entry | None:
        own = [entry for entry in self._own() if entry.is_known_available]
        return self._random.choice(own) if own else None

    def _open(self) -> Entry:
        self.count += 1
        size = self._random.choice([0, 1, self._log_uniform(), self._log_uniform(), self._log_uniform()])
        own_id = str(UUID(int=self._random.getrandbits(128))) if self._random.random() < 0.5 else None
        return self.ledger.open(f"c{self.number}-{self.seed}-{self.count}", size=size, id=own_id)

    def _log_uniform(self) -> int:
        """Small sizes as often as large ones: every path of an upload is taken."""
        return int(2 ** self._random.uniform(4, MOST.bit_length() - 1))

    def _meta(self, entry: Entry) -> dict[str, str]:
        meta = {"x-image-meta-name": entry.name, "x-image-meta-type": "raw"}
        return meta | ({"x-image-meta-id": entry.id} if entry.id else {})

    def _slowly(self, data: bytes) -> Iterator[bytes]:
        """Give the data in pieces with pauses, so that whoever kills the server finds uploads half done."""
        pause = self._random.choice([0, 0, 0.001, 0.02])
        for start in range(0, len(data), PIECE):
            yield data[start : start + PIECE]
            time.sleep(pause)

    def _expect(self, reply: Reply, status: int, entry: Entry, state: State) -> None:
        assert reply.status == status, reply
        image = reply.image
        assert image["status"] == state, reply
        if state is State.AVAILABLE:
            assert int(image["size"]) == entry.size, reply
        entry.id = str(image["id"])
        entry.became(state)


@dataclass(slots=True, kw_only=True)
class Traffic:
    """Clients that run until the server is gone."""

    server: SomeServer
    ledger: Ledger
    seed: int
    complaints: list[str] = field(default_factory=list)
    done: dict[str, int] = field(default_factory=dict)
    _dying: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Let all clients begin."""
        for number in range(CLIENTS):
            client = Client(number=number, ledger=self.ledger, seed=self.seed)
            thread = threading.Thread(target=self._run, args=(client,), name=f"client {number}")
            self._threads.append(thread)
            thread.start()

    def expect_death(self) -> None:
        """From here on, requests may fail."""
        self._dying.set()

    def join(self) -> None:
        """Wait until all clients have noticed."""
        for thread in self._threads:
            thread.join()

    def _run(self, client: Client) -> None:
        connection = self.server.connect()
        try:
            while not self._dying.is_set():
                client.act(connection)
        except AssertionError as error:
            self.complaints.append(f"client {client.number}: {error}")
        except (OSError, http.client.HTTPException) as error:
            if not self._dying.is_set():
                self.complaints.append(f"client {client.number}, while the server lived: {error!r}")
        finally:
            connection.close()
            for name, count in client.done.items():
                self.done[name] = self.done.get(name, 0) + count

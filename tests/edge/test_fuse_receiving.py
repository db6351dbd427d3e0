# SPDX-License-Identifier: Apache-2.0
"""Requests as the kernel sends them: which are answered where they are received, and that no other is lost."""

import ctypes
import errno
import logging
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from glancefs.fuse.calls import Call
from glancefs.fuse.receiving import Buffer, Receiving, Take

REQUEST = struct.Struct("=IIQQIIIHHQQIIQII")
HEADER = struct.Struct("=IIQQIIIHH")
ANSWER = struct.Struct("=IiQII")
DONE = struct.Struct("=IiQ")
ENTRY = struct.Struct("=IiQQQQQII88x")
"""With struct fuse_entry_out: inode, generation, seconds of entry and attributes, nanoseconds of both, attributes."""
LOOKUP, WRITE, RELEASE, FLUSH = 1, 16, 18, 25
HANDLE = 7
FOLDER, TASK = 3, 4242
Answers = list[Callable[[], None]]


def request(data: bytes, *, unique: int = 5, handle: int = HANDLE, offset: int = 0, opcode: int = WRITE) -> bytes:
    size = REQUEST.size + len(data)
    head = REQUEST.pack(size, opcode, unique, 2, 0, 0, 1, 0, 0, handle, offset, len(data), 0, 0, os.O_WRONLY, 0)
    return head + data


def lookup(name: bytes, *, unique: int = 5) -> bytes:
    return HEADER.pack(HEADER.size + len(name) + 1, LOOKUP, unique, FOLDER, 0, 0, TASK, 0, 0) + name + b"\0"


def release(handle: int = HANDLE, *, unique: int = 5) -> bytes:
    return HEADER.pack(HEADER.size + 24, RELEASE, unique, 2, 0, 0, 0, 0, 0) + struct.pack("=QIIQ", handle, 0, 0, 0)


@dataclass
class Kernel:
    """What comes from the device, and goes into it."""

    device: int
    receiving: Receiving
    taken: list[tuple[int, memoryview]] = field(default_factory=list)
    waiting: Answers = field(default_factory=list)
    answers_at_once: bool = True
    buffer: Buffer = field(default_factory=Buffer)
    requests: list[bytes] = field(default_factory=list)

    def take(self, offset: int, data: memoryview, answer: Callable[[], None]) -> bool:
        self.taken.append((offset, data))
        if self.answers_at_once:
            answer()
        else:
            self.waiting.append(answer)
        return True

    def enter(self, number: int = HANDLE, *, take: Take | None = None) -> None:
        self.receiving.enter(number, take=take or self.take, release=lambda: False)

    def read(self, _device: int, place: int, room: int) -> int:
        if not self.requests:
            ctypes.set_errno(errno.EAGAIN)
            return -1
        data = self.requests.pop(0)
        assert len(data) <= room
        ctypes.memmove(place, data, len(data))
        return len(data)

    def send(self, *requests: bytes) -> int:
        self.requests.extend(requests)
        return self.receiving.receive(0, ctypes.pointer(self.buffer))

    def received(self) -> bytes:
        assert self.buffer.flags == 0
        return ctypes.string_at(self.buffer.place, self.buffer.size)

    def answers(self) -> bytes:
        return os.pread(self.device, 1 << 16, 0)

    def answered(self) -> list[tuple[int, ...]]:
        return list(ANSWER.iter_unpack(self.answers()))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    device = os.memfd_create("answers")
    receiving = Receiving()
    assert receiving.trouble is None
    kernel = Kernel(device, receiving)
    monkeypatch.setattr(receiving, "_read", kernel.read)
    with receiving.changed(device):
        yield kernel
    os.close(device)


@pytest.mark.parametrize("size", [1, 4096, 100_000, (1 << 20) - 48, 1 << 20])
def test_what_is_written_is_taken_and_answered(kernel: Kernel, size: int) -> None:
    data = os.urandom(size)
    kernel.enter()
    assert kernel.send(request(data, unique=9, offset=12345)) == -errno.EINTR
    [(offset, taken)] = kernel.taken
    assert (offset, bytes(taken)) == (12345, data)
    assert kernel.answered() == [(ANSWER.size, 0, 9, size, 0)]


def test_what_was_taken_stays_as_it_is_while_more_comes(kernel: Kernel) -> None:
    kernel.enter()
    pieces = [bytes([number]) * 50_000 for number in range(20)]
    for number, piece in enumerate(pieces):
        assert kernel.send(request(piece, offset=number)) == -errno.EINTR
        kernel.send(request(b"", opcode=FLUSH))
    assert [taken for _, taken in kernel.taken] == pieces


def test_who_is_to_wait_is_answered_later(kernel: Kernel) -> None:
    kernel.answers_at_once = False
    kernel.enter()
    assert kernel.send(request(b"data", unique=77)) == -errno.EINTR
    assert kernel.answered() == []
    for answer in kernel.waiting:
        answer()
    assert kernel.answered() == [(ANSWER.size, 0, 77, 4, 0)]


def test_everything_else_is_handed_on_as_it_came(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(_offset: int, _data: memoryview, _answer: Callable[[], None]) -> bool:
        return False

    def fail(_offset: int, _data: memoryview, _answer: Callable[[], None]) -> bool:
        raise OSError("no room")

    kernel.enter(1, take=refuse)
    kernel.enter(2, take=fail)
    kernel.enter()
    kernel.receiving.leave(HANDLE)
    kernel.receiving.leave(HANDLE)
    requests = [
        request(b"refused", handle=1),
        request(b"failed", handle=2),
        request(os.urandom(1 << 20)),
        request(b"", opcode=FLUSH),
        struct.pack("=IIQQIIIHH", 40, 3, 1, 1, 0, 0, 1, 0, 0),
    ]
    with caplog.at_level(logging.INFO):
        for one in requests:
            assert kernel.send(one) == len(one)
            assert kernel.received() == one
    assert not kernel.answered()
    assert not kernel.taken
    assert not caplog.records


def test_who_lets_go_is_answered_at_once_unless_that_has_to_wait(kernel: Kernel) -> None:
    released: list[int] = []

    def let_go() -> bool:
        released.append(HANDLE)
        return True

    def fail() -> bool:
        raise OSError("not now")

    kernel.receiving.enter(HANDLE, take=None, release=let_go)
    kernel.receiving.enter(1, take=None, release=lambda: False)
    kernel.receiving.enter(2, take=None, release=fail)
    assert kernel.send(release(unique=8)) == -errno.EINTR
    assert (released, kernel.answers()) == ([HANDLE], DONE.pack(DONE.size, 0, 8))
    for other in (release(1), release(2), release(99), request(b"data")):
        assert kernel.send(other) == len(other)
        assert kernel.received() == other
    assert len(kernel.answers()) == DONE.size


@pytest.mark.parametrize(("timeout", "told"), [(0.25, (0, 250_000_000)), (2.0, (2, 0)), (0.0, (0, 0))])
def test_a_name_that_is_free_is_told_so_at_once(kernel: Kernel, timeout: float, told: tuple[int, int]) -> None:
    asked: list[tuple[int, bytes, int]] = []

    def absent(folder: int, name: bytes, task: int) -> float | None:
        asked.append((folder, name, task))
        return timeout if name == "frei-ä".encode() else None

    kernel.receiving.ask(absent)
    assert kernel.send(lookup("frei-ä".encode(), unique=11)) == -errno.EINTR
    seconds, nanoseconds = told
    assert ENTRY.unpack(kernel.answers()) == (ENTRY.size, 0, 11, 0, 0, seconds, 0, nanoseconds, 0)
    there = lookup(b"there")
    assert kernel.send(there) == len(there)
    assert kernel.received() == there
    assert asked == [(FOLDER, "frei-ä".encode(), TASK), (FOLDER, b"there", TASK)]
    assert len(kernel.answers()) == ENTRY.size


def test_names_are_looked_for_the_ordinary_way_where_nobody_else_is_asked(kernel: Kernel) -> None:
    asked = lookup(b"a")
    assert kernel.send(asked) == len(asked)
    assert not kernel.answers()


def test_many_are_answered_in_a_row_but_not_without_end(kernel: Kernel) -> None:
    kernel.enter()
    few = [request(b"x", unique=number) for number in range(3)]
    other = request(b"", opcode=FLUSH)
    assert kernel.send(*few, other) == len(other)
    assert kernel.received() == other
    assert [answer[2] for answer in kernel.answered()] == [0, 1, 2]
    many = [request(b"x", unique=number) for number in range(1000)]
    assert kernel.send(*many) == -errno.EINTR
    # The rest is left until others have had their turn.
    assert 900 < len(kernel.requests) < 1000
    kernel.requests.clear()
    large = request(bytes(1 << 20))
    assert kernel.send(large, large) == -errno.EINTR
    assert kernel.requests == [large]


def test_where_libfuse_can_t_be_changed_it_receives_everything(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def find(_library: object, name: str) -> None:
        raise LookupError(f"nobody calls {name}")

    monkeypatch.setattr(Call, "find", find)
    receiving = Receiving()
    receiving.enter(HANDLE, take=lambda _offset, _data, _answer: True, release=lambda: True)
    with receiving.changed(0), caplog.at_level(logging.INFO):
        receiving.tell()
    assert [record.message for record in caplog.records] == [
        "what is written is received by libfuse: nobody calls fuse_session_receive_buf"
    ]

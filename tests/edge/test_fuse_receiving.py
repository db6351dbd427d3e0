# SPDX-License-Identifier: Apache-2.0
"""Requests as the kernel sends them, by way of a file: which are taken, and that no other is lost."""

import ctypes
import errno
import logging
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from glancefs.fuse.calls import Call
from glancefs.fuse.receiving import Buffer, Receiving

REQUEST = struct.Struct("=IIQQIIIHHQQIIQII")
ANSWER = struct.Struct("=IiQII")
WRITE, FLUSH = 16, 25
HANDLE = 7
Answers = list[Callable[[], None]]


def request(data: bytes, *, unique: int = 5, handle: int = HANDLE, offset: int = 0, opcode: int = WRITE) -> bytes:
    size = REQUEST.size + len(data)
    head = REQUEST.pack(size, opcode, unique, 2, 0, 0, 1, 0, 0, handle, offset, len(data), 0, 0, os.O_WRONLY, 0)
    return head + data


@dataclass
class Kernel:
    """What comes from the device, and goes into it."""

    device: int
    receiving: Receiving
    taken: list[tuple[int, memoryview]] = field(default_factory=list)
    waiting: Answers = field(default_factory=list)
    answers_at_once: bool = True
    buffer: Buffer = field(default_factory=Buffer)
    sent: int = 0

    def take(self, offset: int, data: memoryview, answer: Callable[[], None]) -> bool:
        self.taken.append((offset, data))
        if self.answers_at_once:
            answer()
        else:
            self.waiting.append(answer)
        return True

    def send(self, data: bytes) -> int:
        self.sent = len(data)
        os.ftruncate(self.device, 0)
        os.pwrite(self.device, data, 0)
        os.lseek(self.device, 0, os.SEEK_SET)
        return self.receiving.receive(0, ctypes.pointer(self.buffer))

    def received(self) -> bytes:
        assert self.buffer.flags == 0
        return ctypes.string_at(self.buffer.place, self.buffer.size)

    def answered(self) -> list[tuple[int, ...]]:
        end = os.lseek(self.device, 0, os.SEEK_END)
        size = max(end - self.sent, 0)
        return list(ANSWER.iter_unpack(os.pread(self.device, size, self.sent)))


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    device = os.memfd_create("device")
    receiving = Receiving()
    assert receiving.trouble is None
    with receiving.changed(device):
        yield Kernel(device, receiving)
    os.close(device)


@pytest.mark.parametrize("size", [1, 4096, 100_000, (1 << 20) - 48, 1 << 20])
def test_what_is_written_is_taken_and_answered(kernel: Kernel, size: int) -> None:
    data = os.urandom(size)
    kernel.receiving.enter(HANDLE, kernel.take)
    assert kernel.send(request(data, unique=9, offset=12345)) == -errno.EINTR
    [(offset, taken)] = kernel.taken
    assert (offset, bytes(taken)) == (12345, data)
    assert kernel.answered() == [(ANSWER.size, 0, 9, size, 0)]


def test_what_was_taken_stays_as_it_is_while_more_comes(kernel: Kernel) -> None:
    kernel.receiving.enter(HANDLE, kernel.take)
    pieces = [bytes([number]) * 50_000 for number in range(20)]
    for number, piece in enumerate(pieces):
        assert kernel.send(request(piece, offset=number)) == -errno.EINTR
        kernel.send(request(b"", opcode=FLUSH))
    assert [taken for _, taken in kernel.taken] == pieces


def test_who_is_to_wait_is_answered_later(kernel: Kernel) -> None:
    kernel.answers_at_once = False
    kernel.receiving.enter(HANDLE, kernel.take)
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

    kernel.receiving.enter(1, refuse)
    kernel.receiving.enter(2, fail)
    kernel.receiving.enter(HANDLE, kernel.take)
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


def test_where_libfuse_can_t_be_changed_it_receives_everything(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def find(_library: object, name: str) -> None:
        raise LookupError(f"nobody calls {name}")

    monkeypatch.setattr(Call, "find", find)
    receiving = Receiving()
    receiving.enter(HANDLE, lambda _offset, _data, _answer: True)
    with receiving.changed(0), caplog.at_level(logging.INFO):
        receiving.tell()
    assert [record.message for record in caplog.records] == [
        "what is written is received by libfuse: nobody calls fuse_session_receive_buf"
    ]

# SPDX-License-Identifier: Apache-2.0
"""Files that are sent to a server while they are written: what is sent when, and that what is there in the end is them.

Threading: the server answers in threads of its own, and files are sent by others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from gateway.http.exchange import App
from gateway.http.sendfile import FileSlice
from glancefs.context import RequestContext
from glancefs.errors import Duplicate
from glancefs.model import Image, ImageType, NewImage
from glancefs.registries.base import ImageQuery
from glancefs.remote.ahead import Ahead
from glancefs.remote.images import RemoteImages
from glancefs.staging import StagedState, StagedUpload, Staging
from tests.support.mounting import eventually
from tests.support.proxies import Proxy, Trouble
from tests.support.use_cases import Far, held

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

ANN = RequestContext(user="ann")
PIECE: Final = 1 << 19
DATA: Final = os.urandom(7 * PIECE + 5000)
DATA_SIZE: Final = len(DATA)


@dataclass(slots=True)
class Listener:
    """Stands in front of the application, notes what is asked, and spoils it if it is told to."""

    app: App | None = None
    asked: list[tuple[str, int]] = field(default_factory=list)
    """The calls that bring data or concern them, with the sizes of their bodies."""
    flips: bool = False
    """Whether what is sent ahead comes with another bit."""
    answers: str = ""
    """What it answers, instead of the application, to what is sent ahead."""

    def around(self, app: App) -> App:
        """Take one's place."""
        self.app = app
        return self

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes | FileSlice]:
        name = environ["PATH_INFO"].removeprefix("/tree/v1/")
        if name.startswith("ahead/") or name in {"images/add", "images/upload"}:
            self.asked.append((name, int(environ.get("CONTENT_LENGTH") or 0)))
        if name in {"ahead/begin", "ahead/send"} and self.answers:
            problem = b'{"type": "urn:glancefs:error:ahead-lost"}' if self.answers.startswith("409") else b""
            start_response(self.answers, [("Content-Length", str(len(problem)))])
            return [problem]
        if name == "ahead/send" and self.flips:
            environ["wsgi.input"] = Flipping(environ["wsgi.input"])
        assert self.app is not None
        return self.app(environ, start_response)

    def names(self) -> list[str]:
        """What was asked, each call once where it was asked several times in a run."""
        names = [name for name, _ in self.asked]
        return [name for number, name in enumerate(names) if number == 0 or names[number - 1] != name]

    @property
    def sent(self) -> int:
        """How many bytes were sent ahead, about."""
        return sum(size for name, size in self.asked if name == "ahead/send")


class Flipping:
    """A body of which one bit is another one."""

    def __init__(self, body: object) -> None:
        self._body = body

    def __getattr__(self, name: str) -> object:
        return getattr(self._body, name)

    def readinto(self, buffer: memoryview) -> int:
        """Read, and spoil the beginning."""
        count: int = self._body.readinto(buffer)  # type: ignore[attr-defined]  # a body of the server
        if count:
            buffer[0] ^= 1
        return count


@dataclass(slots=True, kw_only=True)
class Writer:
    """What a mount has of a server to which ann writes."""

    place: Far
    images: RemoteImages
    staging: Staging
    ahead: Ahead
    listener: Listener

    def create(self) -> StagedUpload:
        """Begin a file."""
        return self.staging.create("file")

    def publish(self, staged: StagedUpload, **said: object) -> Image:
        """Make an image of it, and see that it is the file, however it got there."""
        new = NewImage(name="file", type=ImageType.RAW, **said)  # type: ignore[arg-type]  # fields of an image
        file = staged.seal()
        image = self.images.add(ANN, new, file)
        with self.place.core.images.open(ANN, image.id) as reader:
            data = b"".join(reader.iter())
        assert data == staged.read_at(0, staged.size)
        assert image.checksum == file.checksum
        staged.become(image)
        self.staging.forget(staged)
        return image

    def sent(self, size: int) -> None:
        """Wait until so much was sent ahead."""
        eventually(lambda: self.listener.sent >= size)


@contextmanager
def writing(
    folder: Path, *, through: Callable[[str], str] = lambda url: url, timeout: float = 60.0
) -> Iterator[Writer]:
    """Have a server, and somebody who writes to it."""
    listener = Listener()
    place = Far(folder / "data", wrap=listener.around, between=through, timeout=timeout)
    try:
        server = place.connect("ann")
        ahead = Ahead(transport=server.transport, timeout=timeout, piece=PIECE)
        staging = Staging(folder=folder / "staged", user="ann", is_passage=True, follow=ahead.follow)
        yield Writer(
            place=place,
            images=RemoteImages(server=server, ahead=ahead),
            staging=staging,
            ahead=ahead,
            listener=listener,
        )
        staging.close()
        ahead.close()
        eventually(lambda: held() == 0)
    finally:
        place.close()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    """Somebody who writes to a server of the test's own."""
    with writing(tmp_path) as writer:
        yield writer


def write(staged: StagedUpload, start: int = 0, stop: int = DATA_SIZE) -> None:
    """Write a part of the data in a run."""
    step = 1 << 17
    for offset in range(start, stop, step):
        staged.write_at(offset, memoryview(DATA)[offset : min(offset + step, stop)])


def test_a_file_is_at_the_server_before_it_is_closed(writer: Writer) -> None:
    staged = writer.create()
    write(staged)
    writer.sent(DATA_SIZE - PIECE)
    assert held() == 1
    image = writer.publish(staged)
    assert image.size == DATA_SIZE
    assert writer.listener.names() == ["ahead/begin", "ahead/send", "images/add"]
    assert writer.listener.asked[-1][1] < PIECE + 4096
    assert sum(size for _, size in writer.listener.asked) < DATA_SIZE + 20_000


def test_a_small_file_is_sent_when_it_is_closed(writer: Writer) -> None:
    staged = writer.create()
    write(staged, stop=PIECE - 1)
    writer.publish(staged)
    assert writer.listener.names() == ["images/add"]


def test_what_is_written_anew_is_sent_anew(writer: Writer) -> None:
    staged = writer.create()
    write(staged)
    writer.sent(PIECE)
    staged.write_at(10, b"another head")
    write(staged, stop=1000)
    staged.write_at(5, b"and another")
    writer.publish(staged)
    assert max(size for _, size in writer.listener.asked) > DATA_SIZE


def test_what_was_not_sent_yet_may_be_written_anew(writer: Writer) -> None:
    staged = writer.create()
    write(staged, stop=3 * PIECE)
    writer.sent(PIECE)
    staged.write_at(4 * PIECE, b"far behind")
    staged.write_at(4 * PIECE + 3, b"a hole before it")
    writer.publish(staged)
    assert writer.listener.names() == ["ahead/begin", "ahead/send", "images/add"]


@pytest.mark.parametrize("size", [0, 100, PIECE - 1])
def test_what_is_cut_off_after_it_was_sent_is_no_part_of_the_image(writer: Writer, size: int) -> None:
    staged = writer.create()
    write(staged)
    writer.sent(PIECE)
    staged.truncate(size)
    eventually(lambda: held() == 0)
    staged.write_at(size, b"the end")
    assert writer.publish(staged).size == size + 7


def test_a_file_may_be_stretched_first_and_written_then(writer: Writer) -> None:
    staged = writer.create()
    staged.truncate(2 * DATA_SIZE)
    write(staged)
    writer.sent(PIECE)
    assert writer.publish(staged).size == 2 * DATA_SIZE
    assert "ahead/send" in writer.listener.names()


def test_out_of_order_nothing_is_sent_that_may_change(writer: Writer) -> None:
    staged = writer.create()
    for number in range(0, 8, 2):
        write(staged, number * (DATA_SIZE // 8), (number + 1) * (DATA_SIZE // 8))
    for number in range(1, 8, 2):
        write(staged, number * (DATA_SIZE // 8), (number + 1) * (DATA_SIZE // 8))
    writer.publish(staged)
    assert sum(size for _, size in writer.listener.asked) < DATA_SIZE + PIECE


@pytest.mark.parametrize("how", ["discarded", "put aside", "closed"])
def test_nothing_stays_of_a_file_that_is_no_image(writer: Writer, how: str) -> None:
    staged = writer.create()
    write(staged)
    writer.sent(PIECE)
    if how == "discarded":
        staged.discard()
    elif how == "put aside":
        staged.know(state=StagedState.ABORTED)
    else:
        staged.close()
    eventually(lambda: held() == 0)
    assert "images/add" not in writer.listener.names()


def test_a_piece_that_arrives_spoilt_costs_the_time_alone(writer: Writer) -> None:
    writer.listener.flips = True
    staged = writer.create()
    write(staged)
    writer.sent(PIECE)
    writer.publish(staged)
    ends = [size for name, size in writer.listener.asked if name == "images/add"]
    assert len(ends) == 2
    assert ends[1] > DATA_SIZE


def test_an_old_server_is_not_asked_again(writer: Writer) -> None:
    writer.listener.answers = "404 Not Found"
    for _ in range(2):
        staged = writer.create()
        write(staged)
        eventually(lambda: writer.listener.asked)
        writer.publish(staged)
    assert writer.listener.names() == ["ahead/begin", "images/add"]


def test_a_process_that_has_nothing_of_it_gets_everything(writer: Writer) -> None:
    staged = writer.create()
    write(staged, stop=2 * PIECE)
    writer.sent(2 * PIECE)
    writer.listener.answers = "409 Conflict"
    write(staged, 2 * PIECE, DATA_SIZE)
    writer.sent(3 * PIECE)
    writer.publish(staged)
    assert max(size for _, size in writer.listener.asked) > DATA_SIZE


def test_a_refusal_is_told_as_it_is_without_the_rest(writer: Writer) -> None:
    staged = writer.create()
    write(staged)
    writer.sent(PIECE)
    image = writer.publish(staged, id="taken")
    again = writer.create()
    write(again)
    writer.sent(DATA_SIZE + PIECE)
    with pytest.raises(Duplicate):
        writer.publish(again, id=image.id)
    again.unseal()
    assert writer.publish(again).id != image.id


def test_only_a_few_files_are_sent_at_once(writer: Writer) -> None:
    files = [writer.create() for _ in range(6)]
    for staged in files:
        write(staged, stop=PIECE)
    eventually(lambda: [name for name, _ in writer.listener.asked].count("ahead/send") == 4)
    for staged in files:
        writer.publish(staged)
    assert held() == 0


PATIENCE_WITH: Final = {Trouble.LOSE_REQUEST: 30.0, Trouble.LOSE_ANSWER: 30.0, Trouble.HANG: 3.0}
"""Seconds: only what hangs has to be waited for, and everything else may take its time on a busy machine."""


@dataclass(slots=True)
class Network:
    """What lies between the writer and the server."""

    proxies: list[Proxy] = field(default_factory=list)

    def through(self, url: str) -> str:
        """Stand between."""
        self.proxies.append(Proxy(url))
        return self.proxies[-1].__enter__().url

    def fail(self, trouble: Trouble) -> None:
        """Let this happen to the next request."""
        self.proxies[0].next.append(trouble)


@pytest.fixture
def network() -> Iterator[Network]:
    """A network for one writer."""
    network = Network()
    yield network
    for proxy in network.proxies:
        proxy.__exit__(None, None, None)


@pytest.mark.parametrize("trouble", [Trouble.LOSE_REQUEST, Trouble.LOSE_ANSWER, Trouble.HANG])
def test_an_end_that_is_lost_makes_one_image(tmp_path: Path, network: Network, trouble: Trouble) -> None:
    with writing(tmp_path, through=network.through, timeout=PATIENCE_WITH[trouble]) as writer:
        staged = writer.create()
        write(staged)
        writer.sent(DATA_SIZE - PIECE)
        network.fail(trouble)
        writer.publish(staged)
        assert len(list(writer.place.core.images.find_all(ANN, ImageQuery(is_public=None)))) == 1


@pytest.mark.parametrize("trouble", [Trouble.LOSE_REQUEST, Trouble.LOSE_ANSWER, Trouble.HANG])
def test_a_piece_that_is_lost_costs_the_time_alone(tmp_path: Path, network: Network, trouble: Trouble) -> None:
    with writing(tmp_path, through=network.through, timeout=PATIENCE_WITH[trouble]) as writer:
        staged = writer.create()
        write(staged, stop=PIECE)
        writer.sent(PIECE)
        network.fail(trouble)
        write(staged, PIECE, DATA_SIZE)
        writer.publish(staged)
        assert "images/add" in writer.listener.names()

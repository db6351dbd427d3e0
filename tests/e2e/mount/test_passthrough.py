# SPDX-License-Identifier: Apache-2.0
"""Reading images by the kernel itself and by the daemon: nobody can tell the difference but by the clock."""

import mmap
import os
import random
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from glancefs.fuse.table import FILE_SYSTEM, mounted_at
from tests.support.mounting import LOCAL, Mount, Mounts, eventually
from tests.support.mounts import overlaid
from tests.support.processes import Processes

MIB = 1 << 20
DATA = random.Random(6).randbytes(3 * MIB + 12345)
OTHER = random.Random(7).randbytes(2 * MIB + 5)
DOOR = "the kernel reads images by itself"

pytestmark = pytest.mark.needs("passthrough")


@pytest.fixture(scope="module", params=["passthrough", "no_passthrough"])
def way(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A mount that passes images through, and one that does not."""
    folder = tmp_path_factory.mktemp(request.param)
    with Processes(folder) as processes:
        mounts = Mounts(processes, folder)
        mount = mounts.mount(options=[request.param])
        (mount / "image").write_bytes(DATA)
        eventually(lambda: not mount.statistics()["open_files"])
        eventually(lambda: (DOOR in mount.log()) == passes(mount))
        yield mount
        log = mount.log()
        mounts.end()
    assert ("ERROR" in log, "WARNING" in log) == (False, False)


def passes(mount: Mount) -> bool:
    return list(mount.options) != ["no_passthrough"]


def read(descriptor: int) -> bytes:
    return b"".join(iter(partial(os.read, descriptor, 100_000), b""))


def read_at_random(descriptor: int) -> bytes:
    places = list(range(0, len(DATA), 4096))
    random.Random(1).shuffle(places)
    pieces = {place: os.pread(descriptor, 4096, place) for place in places}
    return b"".join(pieces[place] for place in sorted(pieces))


def read_ahead(descriptor: int) -> bytes:
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return read(descriptor)


def read_mapped(descriptor: int) -> bytes:
    with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) as shared:
        with mmap.mmap(descriptor, 0, flags=mmap.MAP_PRIVATE) as private:
            private[0:1] = b"x"
            assert private[1:] == shared[1:]
        return shared[:]


def read_by_sendfile(descriptor: int) -> bytes:
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as reader, os.fdopen(theirs, "wb") as writer:
        pieces = []
        while size := os.sendfile(writer.fileno(), descriptor, None, 30_000):
            pieces.append(reader.read(size))
    return b"".join(pieces)


def read_past_the_cache(descriptor: int) -> bytes:
    direct = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_DIRECT)
    with mmap.mmap(-1, 4 * MIB) as room:
        size = os.preadv(direct, [room], 0)
        os.close(direct)
        return room[:size]


def read_between_holes(descriptor: int) -> bytes:
    assert os.lseek(descriptor, 5, os.SEEK_DATA) == 5
    assert os.lseek(descriptor, 5, os.SEEK_HOLE) == len(DATA)
    assert os.lseek(descriptor, 0, os.SEEK_END) == len(DATA)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return read(descriptor)


@pytest.mark.parametrize(
    "reading",
    [read, read_at_random, read_ahead, read_mapped, read_by_sendfile, read_past_the_cache, read_between_holes],
    ids=lambda reading: reading.__name__,
)
def test_the_bytes_are_the_image_s_however_they_are_read(way: Mount, reading: Callable[[int], bytes]) -> None:
    before = way.statistics()["passed_through"]
    descriptor = os.open(way / "image", os.O_RDONLY)
    assert reading(descriptor) == DATA
    os.close(descriptor)
    after = way.statistics()["passed_through"]
    assert (after > before) == passes(way)
    status = (way / "image").stat()
    assert (status.st_size, status.st_atime_ns) == (len(DATA), status.st_mtime_ns)


def test_the_kernel_reads_by_itself_unless_it_is_told_not_to(way: Mount) -> None:
    before = way.statistics()["by_request"].get("read", 0)
    os.posix_fadvise(descriptor := os.open(way / "image", os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)
    assert read(descriptor) == DATA
    os.close(descriptor)
    after = way.statistics()["by_request"]["read"]
    # Two of them read the statistics, which are a text of the daemon's.
    assert (after - before > 3) != passes(way)
    assert (DOOR in way.log()) == passes(way)


def test_nobody_asks_for_privileges_before_each_write(way: Mount) -> None:
    before = way.statistics()["by_request"].get("getxattr", 0)
    with (way / "pieces").open("wb", buffering=0) as writer:
        for _ in range(50):
            writer.write(bytes(4096))
    assert way.statistics()["by_request"].get("getxattr", 0) - before < 5


def test_the_table_of_mounts_shows_no_difference(way: Mount) -> None:
    mounted = mounted_at(way.point)
    assert mounted is not None
    assert (mounted.file_system, mounted.source) == (FILE_SYSTEM, str(way.data))
    (line,) = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {way.point} " in line]
    assert re.search(r" rw,nosuid,nodev,relatime .*rw,user_id=0,group_id=0,default_permissions$", line)


def test_who_has_an_image_open_goes_on_when_it_is_removed_or_replaced(way: Mount) -> None:
    for name in ("removed", "replaced", "deleted elsewhere"):
        (way / name).write_bytes(OTHER)
    eventually(lambda: not way.statistics()["open_files"])
    readers = [os.open(way / name, os.O_RDONLY) for name in ("removed", "replaced", "deleted elsewhere")]
    (way / "removed").unlink()
    (way / "replaced").write_bytes(b"new")
    assert (way / "replaced").read_bytes() == b"new"
    with way.core() as core:
        core.images.delete(LOCAL, way.image("deleted elsewhere").id)
    eventually(lambda: not (way / "deleted elsewhere").exists())
    assert [read(reader) for reader in readers] == [OTHER] * 3
    assert (way / "replaced").read_bytes() == b"new"
    for reader in readers:
        os.close(reader)


def test_what_is_open_since_it_was_written_keeps_to_requests_and_later_opens_do_not(way: Mount, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(OTHER)
    # A process of its own: one that writes a file and has it open for reading, too, has not closed it for good.
    script = 'exec 3<"$1"; echo open; read -r line; cmp - "$2" <&3'
    words = ["bash", "-c", script, "bash", str(way / "written"), str(tmp_path / "other")]
    with ExitStack() as running:
        writer = running.enter_context((way / "written").open("wb"))
        writer.write(OTHER)
        writer.flush()
        early = running.enter_context(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert early.stdout is not None
        assert early.stdout.readline() == b"open\n"
        writer.close()
        eventually(lambda: "written" in {image.name for image in way.images()})
        eventually(lambda: way.statistics()["open_files"] == 1)
        before = way.statistics()["passed_through"]
        late = running.enter_context((way / "written").open("rb"))
        assert read_mapped(late.fileno()) == OTHER
        assert early.communicate(b"go on\n", timeout=60)[0] == b""
        assert early.returncode == 0
        assert read(late.fileno()) == OTHER
    eventually(lambda: not way.statistics()["open_files"])
    assert (way / "written").read_bytes() == OTHER
    assert way.statistics()["passed_through"] - before == 2 * passes(way)


def test_who_reads_a_file_that_is_being_written_sees_what_was_written_so_far(way: Mount) -> None:
    path = way / "growing"
    with path.open("wb", buffering=0) as writer, path.open("rb", buffering=0) as reader:
        for turn in range(1, 40):
            # Never a whole page, so that the last one that was read is the first one that is written next.
            writer.write(bytes([turn]) * 1000)
            assert os.pread(reader.fileno(), 5000, (turn - 1) * 1000) == bytes([turn]) * 1000
        writer.seek(500)
        writer.write(b"again")
        assert os.pread(reader.fileno(), 5, 500) == b"again"


def test_a_file_that_is_being_written_can_be_mapped(way: Mount) -> None:
    with (way / ".mapped").open("wb", buffering=0) as writer, (way / ".mapped").open("rb") as reader:
        writer.write(DATA)
        with mmap.mmap(reader.fileno(), 0, prot=mmap.PROT_READ) as shared:
            assert shared[:] == DATA
    (way / ".mapped").unlink()


def test_large_pieces_are_handed_over_whole_and_from_the_writer_s_own_memory(way: Mount) -> None:
    before = way.statistics()["by_request"]["write"]
    with mmap.mmap(-1, 4 * MIB) as pieces, (way / "large").open("wb", buffering=0) as writer:
        pieces[: len(DATA)] = DATA
        for place in range(0, 4 * MIB, MIB):
            assert writer.write(memoryview(pieces)[place : place + MIB]) == MIB
        whole = pieces[:]
    assert way.statistics()["by_request"]["write"] - before == 4
    assert way.content("large") == whole
    assert "received by libfuse" not in way.log()


def test_a_hundred_open_close_and_read_while_images_are_replaced(way: Mount) -> None:
    versions = {number: random.Random(number).randbytes(100_000 + number) for number in range(8)}
    for place in range(4):
        (way / f"busy{place}").write_bytes(versions[place])
    failures: list[BaseException] = []

    def work(number: int) -> None:
        chance = random.Random(number)
        try:
            for turn in range(4):
                path = way / f"busy{chance.randrange(4)}"
                if number % 20 == 0:
                    (way / f".busy{number}").write_bytes(versions[turn * 2])
                    (way / f".busy{number}").rename(path)
                else:
                    assert path.read_bytes() in versions.values()
        except BaseException as error:  # noqa: BLE001 - told by the test below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    eventually(lambda: not way.statistics()["open_files"])
    assert way.statistics()["by_error"].get("EIO", 0) == 0


def test_who_reads_goes_on_when_the_daemon_is_killed_and_the_next_mount_is_as_before(mounts: Mounts) -> None:
    mounted = mounts.mount()
    (mounted / "image").write_bytes(DATA)
    eventually(lambda: not mounted.statistics()["open_files"])
    with (mounted / "image").open("rb") as reader:
        assert reader.read(10) == DATA[:10]
        mounted.process.kill()
        assert reader.read() == DATA[10:]
        again = mounts.mount(point=mounted.point)
        assert (again / "image").read_bytes() == DATA
        assert again.statistics()["passed_through"] == 1


def test_a_store_upon_another_file_system_is_read_by_the_daemon(mounts: Mounts, tmp_path: Path) -> None:
    with overlaid(tmp_path) as place:
        mounted = mounts.mount(data=place / "data")
        (mounted / "image").write_bytes(DATA)
        eventually(lambda: not mounted.statistics()["open_files"])
        for _ in range(2):
            assert (mounted / "image").read_bytes() == DATA
        assert mounted.statistics()["passed_through"] == 0
        assert "images are read through this process: the store's file system lies upon another one" in mounted.log()
        mounted.end()


def test_a_mapped_image_can_t_be_changed(way: Mount) -> None:
    script = "import mmap, sys; f = open(sys.argv[1], 'rb'); mmap.mmap(f.fileno(), 0, prot=mmap.PROT_WRITE)"
    said = subprocess.run(["python3", "-c", script, way / "image"], capture_output=True, text=True, check=False)
    assert "Permission denied" in said.stderr
    assert way.content("image") == DATA

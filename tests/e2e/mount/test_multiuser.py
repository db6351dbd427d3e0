# SPDX-License-Identifier: Apache-2.0
"""Several users of one machine on one mount: whose things are whose, and that nobody gets at another's.

The users are real ones for the kernel. What one of them must not get at is attacked by another in every way that does
not need root.
"""

from __future__ import annotations

import array
import ctypes
import errno
import io
import json
import mmap
import os
import select
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from glancefs.context import RequestContext
from glancefs.model import ImageType, NewImage
from tests.support.mounting import Mount, Mounts, eventually
from tests.support.people import Person
from tests.support.processes import Processes

pytestmark = pytest.mark.needs("root", "fuse")

ALICE, BOB, STRANGER = Person(60001), Person(60002), Person(60003)
TABLE = "# who is who\n60001 alice\n60002  bob  # the builder\n"
READ_XATTR = "user.glance.checksum"


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A mount on which everybody acts as themselves."""
    folder = tmp_path_factory.mktemp("multiuser")
    (folder / "users").write_text(TABLE)
    with Processes(folder) as processes:
        mounts = Mounts(processes, folder)
        mount = mounts.mount(options=[f"multiuser,users={folder}/users"])
        yield mount
        log = mount.log()
        mounts.end()
    assert "ERROR" not in log


def write(name: str, data: bytes = b"data", *, is_public: bool = False) -> None:
    Path(name).write_bytes(data)
    if is_public:
        os.setxattr(name, "user.glance.is_public", b"true")


def open_and_close(name: str, flags: int) -> None:
    os.close(os.open(name, flags))


def errno_of(work: Callable[[], object]) -> int:
    """The error with which work fails; 0 if it does not."""
    try:
        work()
    except OSError as error:
        return error.errno or -1
    return 0


def told(name: str) -> tuple[int, int]:
    """Owner and mode."""
    status = Path(name).stat()
    return status.st_uid, stat.S_IMODE(status.st_mode)


@pytest.mark.promise("With `-o multiuser` everybody acts as themselves: what a user makes is that user's image.")
@pytest.mark.promise("There a private image has mode 0600 and a public one 0644, and both are their owner's.")
def test_what_a_user_makes_is_theirs(mount: Mount) -> None:
    def make() -> list[tuple[int, int]]:
        write("theirs-private")
        write("theirs-public", is_public=True)
        descriptor = os.open("theirs-writing", os.O_CREAT | os.O_WRONLY)
        try:
            return [told(name) for name in ("theirs-private", "theirs-public", "theirs-writing")]
        finally:
            os.close(descriptor)

    assert ALICE.does(make, at=mount.point) == [(60001, 0o600), (60001, 0o644), (60001, 0o600)]
    assert {image.owner for image in mount.images() if image.name and image.name.startswith("theirs-")} == {"alice"}
    eventually(lambda: BOB.does(lambda: errno_of(lambda: told("theirs-public")), at=mount.point) == 0)
    assert BOB.does(lambda: told("theirs-public"), at=mount.point) == (60001, 0o644)
    assert BOB.does(lambda: Path("theirs-public").read_bytes(), at=mount.point) == b"data"


@pytest.mark.promise("There another user's private image does not exist for you, by whatever way: ENOENT.")
def test_what_is_private_does_not_exist_for_others(mount: Mount) -> None:
    def make() -> str:
        Path("secrets").mkdir()
        write("secrets/key")
        write("secret.raw", b"\x7fELF" + bytes(5000))
        return os.getxattr("secret.raw", "user.glance.id").decode()

    image = ALICE.does(make, at=mount.point)
    ways = [
        *("secret.raw", "./secret.raw", "secrets", "secrets/key", "secrets/../secret.raw", f"secret.raw~{image}"),
        *(f".glance/by-id/{image}", f".glance/json/{image}.json", ".glance/by-type/raw/secrets%2Fkey"),
    ]

    def attack() -> dict[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = {}
        for way in ways:
            attempts: dict[str, Callable[[], object]] = {
                "stat": partial(os.stat, way),
                "lstat": partial(os.lstat, way),
                "open": partial(open_and_close, way, os.O_RDONLY),
                "path": partial(open_and_close, way, os.O_PATH),
                "list": partial(os.listdir, way),
                "xattr": partial(os.getxattr, way, READ_XATTR),
                "xattrs": partial(os.listxattr, way),
                "link": partial(os.readlink, way),
                "exec": partial(os.execv, f"./{way}", [way]),
                "enter": partial(os.chdir, way),
                "remove": partial(os.unlink, way),
                "remove folder": partial(os.rmdir, way),
                "rename": partial(os.rename, way, "mine-now"),
                "hard link": partial(os.link, way, "mine-now"),
                "set": partial(os.setxattr, way, "user.glance.is_public", b"true"),
                "mode": partial(os.chmod, way, 0o644),
                "owner": partial(os.chown, way, 60002, 60002),
                "times": partial(os.utime, way),
                "cut": partial(os.truncate, way, 0),
                "watch": partial(watch, way),
            }
            found |= {(way, name): errno_of(attempt) for name, attempt in attempts.items()}
        return found

    # With nothing in the kernel's caches, with what alice has just looked at, and with what she holds open.
    for prime in (lambda: None, lambda: [list(os.walk(".")), Path("secret.raw").stat()]):
        ALICE.does(prime, at=mount.point)
        for who in (BOB, STRANGER):
            found = who.does(attack, at=mount.point)
            assert {key: number for key, number in found.items() if number != errno.ENOENT} == {}
            assert who.does(names, at=mount.point).isdisjoint({"secret.raw", "secrets", f"secret.raw~{image}"})
            assert image not in who.does(lambda: names(".glance/by-id"), at=mount.point)
    assert ALICE.does(lambda: Path("secrets/key").read_bytes(), at=mount.point) == b"data"


def names(folder: str = ".") -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def watch(path: str) -> None:
    """Ask inotify(7) to tell of a path."""
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = library.inotify_init1(os.O_CLOEXEC)
    try:
        if library.inotify_add_watch(descriptor, os.fsencode(path), 0xFFF) < 0:
            raise OSError(ctypes.get_errno(), path)
    finally:
        os.close(descriptor)


@pytest.mark.promise("There each user's own image comes first at a path, so two users may see two images at one.")
def test_at_one_path_each_sees_their_own(mount: Mount) -> None:
    def work(mine: bytes) -> bool:
        write("same", mine)
        for _ in range(200):
            if Path("same").read_bytes() != mine or Path("same").stat().st_uid != os.getuid():
                return False
            with Path("same").open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as mapped:
                if mapped[:] != mine:
                    return False
        return True

    both = [
        ALICE.begins(lambda: work(b"alice's"), at=mount.point),
        BOB.begins(lambda: work(b"bob's own"), at=mount.point),
    ]
    assert [doing.result() for doing in both] == [True, True]


def test_between_a_look_by_one_and_an_open_by_another_nothing_slips_through(mount: Mount) -> None:
    ALICE.does(lambda: write("raced"), at=mount.point)

    def look() -> None:
        for _ in range(200):
            assert Path("raced").stat().st_size == 4
            assert Path("raced").read_bytes() == b"data"
            names()

    def attack() -> set[int]:
        ways = (
            partial(os.stat, "raced"),
            partial(open_and_close, "raced", os.O_RDONLY),
            partial(os.listxattr, "raced"),
        )
        return {errno_of(way) for _ in range(500) for way in ways}

    looking, attacking = ALICE.begins(look, at=mount.point), BOB.begins(attack, at=mount.point)
    assert attacking.result() == {errno.ENOENT}
    looking.result()


def test_handles_of_files_open_nothing_for_users(mount: Mount) -> None:
    library = ctypes.CDLL(None, use_errno=True)

    def handle() -> bytes:
        write("by handle")
        found = ctypes.create_string_buffer((128).to_bytes(4, sys.byteorder), 8 + 128)
        where = ctypes.c_int()
        assert library.name_to_handle_at(-100, b"by handle", found, ctypes.byref(where), 0) == 0, ctypes.get_errno()
        return found.raw

    def attack(found: bytes) -> int:
        folder = os.open(".", os.O_RDONLY)
        descriptor = library.open_by_handle_at(folder, ctypes.create_string_buffer(found), os.O_RDONLY)
        return ctypes.get_errno() if descriptor < 0 else 0

    assert BOB.does(partial(attack, ALICE.does(handle, at=mount.point)), at=mount.point) == errno.EPERM


def test_what_was_absent_for_one_is_there_for_another(mount: Mount) -> None:
    assert BOB.does(lambda: errno_of(partial(os.stat, "later")), at=mount.point) == errno.ENOENT
    ALICE.does(lambda: write("later"), at=mount.point)
    assert ALICE.does(lambda: Path("later").read_bytes(), at=mount.point) == b"data"
    assert BOB.does(lambda: errno_of(partial(os.stat, "later")), at=mount.point) == errno.ENOENT
    # And bob may have one of his own there.
    BOB.does(lambda: write("later", b"bob's"), at=mount.point)
    assert ALICE.does(lambda: Path("later").read_bytes(), at=mount.point) == b"data"


@pytest.mark.promise("There changing, replacing or removing another user's public image is refused: EACCES or EPERM.")
def test_what_is_public_is_changed_by_its_owner_alone(mount: Mount) -> None:
    ALICE.does(lambda: write("open", is_public=True), at=mount.point)
    eventually(lambda: BOB.does(lambda: errno_of(partial(os.stat, "open")), at=mount.point) == 0)

    def attack() -> set[int]:
        write("bob's own")
        return {
            errno_of(partial(open_and_close, "open", os.O_WRONLY | os.O_TRUNC)),
            errno_of(partial(open_and_close, "open", os.O_RDWR)),
            errno_of(partial(os.truncate, "open", 0)),
            errno_of(partial(os.unlink, "open")),
            errno_of(partial(os.rename, "open", "taken")),
            errno_of(partial(os.setxattr, "open", "user.glance.is_public", b"false")),
            errno_of(partial(os.setxattr, "open", "user.glance.name", b"taken")),
            errno_of(partial(os.removexattr, "open", "user.glance.property.x")),
            errno_of(partial(os.chmod, "open", 0o640)),
            errno_of(partial(os.chown, "open", 60002, 60002)),
        }

    for who in (BOB,):
        assert who.does(attack, at=mount.point) <= {errno.EACCES, errno.EPERM}
    assert ALICE.does(lambda: Path("open").read_bytes(), at=mount.point) == b"data"


@pytest.mark.promise("Who is no user there sees what is public, and changes nothing: EACCES.")
def test_a_stranger_sees_what_is_public_and_changes_nothing(mount: Mount) -> None:
    ALICE.does(lambda: write("for all", is_public=True), at=mount.point)
    eventually(lambda: "for all" in STRANGER.does(names, at=mount.point))
    assert STRANGER.does(lambda: Path("for all").read_bytes(), at=mount.point) == b"data"
    attempts: list[Callable[[], object]] = [
        lambda: write("new"),
        lambda: write(".new"),
        partial(os.mkdir, "folder"),
        partial(os.rename, "for all", "taken"),
        partial(os.unlink, "for all"),
    ]
    assert STRANGER.does(lambda: {errno_of(attempt) for attempt in attempts}, at=mount.point) <= {
        errno.EACCES,
        errno.EPERM,
    }


@pytest.mark.promise("There root is the admin of this machine, who sees and changes everybody's images.")
def test_root_sees_and_changes_everything(mount: Mount) -> None:
    ALICE.does(lambda: write("alice's raw"), at=mount.point)
    eventually((mount / "alice's raw").exists)
    assert (mount / "alice's raw").read_bytes() == b"data"
    assert (mount / "alice's raw").stat().st_uid == 60001
    (mount / "alice's raw").unlink()
    eventually(lambda: ALICE.does(lambda: errno_of(partial(os.stat, "alice's raw")), at=mount.point) == errno.ENOENT)
    (mount / "root's").write_bytes(b"data")
    assert mount.image("root's").owner == "local"
    assert BOB.does(lambda: errno_of(partial(os.stat, "root's")), at=mount.point) == errno.ENOENT


@pytest.mark.promise("There a file that is open stays open for whoever is handed its descriptor, and for nobody else.")
def test_a_descriptor_can_be_handed_on_and_not_more(mount: Mount) -> None:
    ours, theirs = socket.socketpair()

    def give() -> None:
        write("handed", b"on")
        descriptor = os.open("handed", os.O_RDONLY)
        folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        rights = array.array("i", [descriptor, folder])
        ours.sendmsg([b"!"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

    def take() -> dict[str, object]:
        _, ancillary, _, _ = theirs.recvmsg(1, socket.CMSG_SPACE(8))
        descriptor, folder = array.array("i", ancillary[0][2])
        return {
            "read": os.pread(descriptor, 10, 0),
            "size": os.fstat(descriptor).st_size,
            "owner": os.fstat(descriptor).st_uid,
            "again": errno_of(partial(os.open, f"/proc/self/fd/{descriptor}", os.O_RDONLY)),
            "beside": errno_of(partial(os.open, "handed", os.O_RDONLY, dir_fd=folder)),
            "in it": "handed" in names(f"/proc/self/fd/{folder}"),
            "attributes": errno_of(lambda: os.getxattr(descriptor, READ_XATTR)) in {errno.EACCES, errno.ESTALE},
        }

    with ours, theirs:
        giving = ALICE.begins(give, at=mount.point)
        taken = BOB.does(take, at=mount.point)
        giving.result()
    assert taken == {
        "read": b"on",
        "size": 2,
        "owner": 60001,
        "again": errno.EACCES,
        "beside": errno.ENOENT,
        "in it": False,
        "attributes": True,
    }


@pytest.mark.promise(
    "There names of what others use in a folder that you see too can be heard with inotify(7); of a folder that holds "
    "private images of another user alone, nothing can."
)
def test_what_inotify_tells_and_what_not(mount: Mount) -> None:
    ALICE.does(partial(os.mkdir, "only-hers"), at=mount.point)
    ALICE.does(partial(write, "only-hers/key"), at=mount.point)
    library = ctypes.CDLL(None, use_errno=True)

    def listen() -> bytes:
        descriptor = library.inotify_init1(os.O_CLOEXEC)
        assert library.inotify_add_watch(descriptor, b".", 0xFFF) >= 0
        assert library.inotify_add_watch(descriptor, b"only-hers", 0xFFF) < 0
        write("listening")
        heard = b""
        while b"done" not in heard and select.select([descriptor], [], [], 20)[0]:
            heard += os.read(descriptor, 65536)
        return heard

    hearing = BOB.begins(listen, at=mount.point)
    eventually(lambda: any(image.name == "listening" for image in mount.images()))
    ALICE.does(Path("only-hers/key").read_bytes, at=mount.point)
    ALICE.does(partial(write, "done"), at=mount.point)
    heard = hearing.result()
    assert b"done" in heard
    assert b"key" not in heard


def test_others_files_to_be_are_nobodys_business(mount: Mount) -> None:
    def begin() -> None:
        descriptor = os.open(".build.raw", os.O_CREAT | os.O_WRONLY)
        os.write(descriptor, b"half")
        os.close(descriptor)

    ALICE.does(begin, at=mount.point)
    for person in (BOB, STRANGER):
        assert person.does(lambda: errno_of(partial(os.stat, ".build.raw")), at=mount.point) == errno.ENOENT
        assert ".build.raw" not in person.does(names, at=mount.point)
        assert person.does(lambda: names(".glance/pending"), at=mount.point) == set()
    assert ALICE.does(lambda: Path(".build.raw").read_bytes(), at=mount.point) == b"half"
    ALICE.does(partial(os.rename, ".build.raw", "build.raw"), at=mount.point)
    assert mount.image("build.raw").owner == "alice"


def test_who_loses_sight_of_an_image_loses_it_in_the_kernel_too(mount: Mount) -> None:
    ALICE.does(lambda: write("shown", is_public=True), at=mount.point)
    eventually(lambda: BOB.does(lambda: errno_of(partial(os.stat, "shown")), at=mount.point) == 0)
    ALICE.does(partial(os.setxattr, "shown", "user.glance.is_public", b"false"), at=mount.point)
    eventually(lambda: BOB.does(lambda: errno_of(partial(os.stat, "shown")), at=mount.point) == errno.ENOENT)
    assert BOB.does(lambda: errno_of(partial(os.open, "shown", os.O_RDONLY)), at=mount.point) == errno.ENOENT
    assert ALICE.does(lambda: told("shown"), at=mount.point) == (60001, 0o600)


def test_what_comes_through_other_doors_belongs_to_whom_it_belongs(mount: Mount) -> None:
    with mount.core() as core:
        for owner in ("alice", "carol"):
            new = NewImage(name=f"by {owner}", type=ImageType.RAW, is_public=owner == "carol")
            core.images.add(RequestContext(user=owner), new, io.BytesIO(b"data"))
    eventually(lambda: ALICE.does(lambda: names() >= {"by alice", "by carol"}, at=mount.point))
    assert ALICE.does(lambda: (told("by alice"), told("by carol")), at=mount.point) == ((60001, 0o600), (65534, 0o644))
    assert "by alice" not in BOB.does(names, at=mount.point)


def test_everything_that_was_looked_up_is_forgotten_once_the_kernel_has(mount: Mount) -> None:
    def make() -> None:
        for number in range(20):
            write(f"many-{os.getuid()}-{number}", is_public=True)
        for name in names():
            Path(name).stat()

    def inodes() -> int:
        return int(json.loads(Path(".glance/stats").read_bytes())["inodes"])

    for person in (ALICE, BOB):
        person.does(make, at=mount.point)
    for person in (ALICE, BOB):
        person.does(lambda: [Path(name).stat() for name in names()], at=mount.point)
        assert person.does(inodes, at=mount.point) > 40
    Path("/proc/sys/vm/drop_caches").write_text("2")
    for person in (ALICE, BOB):
        eventually(lambda person=person: person.does(inodes, at=mount.point) < 40)  # type: ignore[misc]  # mypy infers no default
        assert person.does(lambda: len([name for name in names() if "many-" in name]), at=mount.point) == 40

# SPDX-License-Identifier: Apache-2.0
"""The page of promises and refusals, sentence by sentence, and that none is without its test."""

import ast
import errno
import io
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from glancefs.context import RequestContext
from glancefs.model import ImageChanges, ImageStatus, ImageType, NewImage
from tests.support.capabilities import ROOT
from tests.support.mounting import LOCAL, Mount, Mounts, eventually
from tests.support.mounts import mounted as file_system

PAGE = ROOT / "docs" / "reference" / "semantics.md"
MIB = 1 << 20


def sentences() -> list[str]:
    return [line[2:] for line in PAGE.read_text().splitlines() if line.startswith("- ")]


def quoted() -> Iterator[str]:
    for path in Path(__file__).parent.glob("test_*.py"):
        tree = ast.parse(path.read_text())
        named = {
            target.id: ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.promise":
                (said,) = node.args
                yield named[said.id] if isinstance(said, ast.Name) else ast.literal_eval(said)


def test_every_sentence_of_the_page_is_quoted_by_a_test_and_every_quote_is_on_the_page() -> None:
    assert set(quoted()) == set(sentences())


def must_be_refused(number: int, work: Callable[[], object]) -> None:
    with pytest.raises(OSError, match=re.escape(os.strerror(number))) as error:
        work()
    assert error.value.errno == number


# ---- what is where


@pytest.mark.promise("Every image that you may see is a file whose path is its name: a slash in a name makes a folder.")
def test_paths_are_names(mounted: Mount) -> None:
    with mounted.core() as core:
        core.images.add(LOCAL, NewImage(name="a/b c/ü.raw", type=ImageType.RAW), io.BytesIO(b"data"))
    eventually((mounted / "a/b c/ü.raw").exists)
    assert (mounted / "a/b c").is_dir()


@pytest.mark.promise(
    "Of images with the same name, your own comes before other people's, and the older before the newer; "
    "the others are beside it as `NAME~ID`."
)
def test_namesakes(mounted: Mount) -> None:
    with mounted.core() as core:
        ids: list[str] = []
        for owner in ("bob", "local", "local"):
            context = RequestContext(user=owner, is_admin=owner == "local")
            new = NewImage(name="same", type=ImageType.RAW, is_public=True)
            ids.append(core.images.add(context, new, io.BytesIO(owner.encode() + str(len(ids)).encode())).id)
    eventually(lambda: len(list(mounted.point.iterdir())) == 3)
    assert (mounted / "same").read_bytes() == b"local1"
    assert (mounted / f"same~{ids[0]}").read_bytes() == b"bob0"
    assert (mounted / f"same~{ids[2]}").read_bytes() == b"local2"


@pytest.mark.promise(
    "An identifier that leaves no room for that is replaced by its digest, as `NAME~~DIGEST`: every image has a path."
)
def test_namesakes_with_long_identifiers(mounted: Mount) -> None:
    with mounted.core() as core:
        for image_id in ("first", "x" * 254, "y" * 255):
            new = NewImage(name="same", type=ImageType.RAW, id=image_id)
            core.images.add(LOCAL, new, io.BytesIO(image_id.encode()))
    eventually(lambda: len(list(mounted.point.iterdir())) == 3)
    digested = re.compile(r"same~~[0-9a-f]{32}")
    (name,) = [path.name for path in mounted.point.iterdir() if digested.fullmatch(path.name)]
    assert (mounted / name).read_bytes() == b"y" * 255
    assert (mounted / f"~{'x' * 254}").read_bytes() == b"x" * 254
    assert str((mounted / ".glance" / "by-id" / ("y" * 255)).readlink()) == f"../../{name}"
    mounted.run("cp", mounted / name, mounted.data / "copy")
    mounted.run("mv", name, "other")
    assert mounted.image("other").id == "y" * 255


@pytest.mark.promise("Folders that were made by hand are there for every mount, and empty ones stay.")
def test_folders(mounts: Mounts) -> None:
    here, there = mounts.mount(), mounts.mount()
    (here / "a").mkdir()
    (here / "a" / "b").mkdir()
    eventually((there / "a" / "b").is_dir)
    here.end()
    assert (there / "a" / "b").is_dir()


@pytest.mark.promise(
    "`.glance` in the root is the mount's own: it is not listed, and nothing can be made, renamed or removed in it "
    "but what is in `.glance/pending`."
)
def test_the_mount_s_own_folder(mounted: Mount) -> None:
    assert list(mounted.point.iterdir()) == []
    assert {"by-id", "by-type", "json", "pending", "stats", "errors"} <= {
        path.name for path in (mounted / ".glance").iterdir()
    }
    must_be_refused(errno.EPERM, lambda: (mounted / ".glance/mine").write_bytes(b""))
    must_be_refused(errno.EPERM, (mounted / ".glance/mine").mkdir)
    must_be_refused(errno.EPERM, (mounted / ".glance/stats").unlink)
    must_be_refused(errno.EPERM, lambda: (mounted / ".glance/stats").rename(mounted / "stats"))
    must_be_refused(errno.EPERM, (mounted / ".glance").rmdir)


@pytest.mark.promise(
    "`.glance/by-id` and `.glance/by-type` hold symbolic links to the files, so a copy of the root copies each "
    "image once."
)
def test_links(mounted: Mount, tmp_path: Path) -> None:
    (mounted / "d").mkdir()
    (mounted / "d/a").write_bytes(b"data")
    image = mounted.image("d/a")
    assert (mounted / f".glance/by-id/{image.id}").resolve() == mounted / "d/a"
    assert (mounted / ".glance/by-type/raw/d").exists() or (mounted / ".glance/by-type/raw").is_dir()
    assert (mounted / f".glance/by-id/{image.id}").read_bytes() == b"data"
    mounted.run("cp", "-r", f"{mounted.point}/.", tmp_path / "copy")
    assert [path.name for path in (tmp_path / "copy").rglob("*")] == ["d", "a"]


@pytest.mark.promise(
    "An image appears in listings with its size, and with the blocks that it really takes on the disk."
)
def test_sizes_and_blocks(mounted: Mount) -> None:
    mounted.shell("truncate -s 100M .work && printf x | dd of=.work bs=1 seek=50M conv=notrunc && mv .work a")
    assert mounted.run("ls", "-s", "--block-size=1M", "a").out.split()[0] in {"0", "1"}
    with os.scandir(mounted.point) as entries:
        (entry,) = entries
        assert entry.stat().st_size == 100 * MIB
        assert entry.stat().st_blocks * 512 < MIB


@pytest.mark.promise("A queued image is a file of its declared size that reads as zeros.")
def test_queued_images(mounted: Mount) -> None:
    with mounted.core() as core:
        core.images.create(LOCAL, NewImage(name="a", type=ImageType.RAW, size=3 * MIB))
    eventually((mounted / "a").exists)
    assert (mounted / "a").read_bytes() == bytes(3 * MIB)


# ---- when a file becomes an image


@pytest.mark.promise(
    "A file that was opened for writing alone is an available image when its last `close` returns; "
    "what kept it from becoming one is that `close`'s error."
)
def test_close_tells(mounted: Mount) -> None:
    (mounted / "good").write_bytes(b"data")
    assert mounted.image("good").status is ImageStatus.AVAILABLE
    descriptor = os.open(mounted / "bad", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"data")
    with _refusing(mounted.data / "registry.sqlite"):
        must_be_refused(errno.EIO, lambda: os.close(descriptor))
    assert "bad" in (mounted / ".glance/errors").read_text()


@pytest.mark.promise("A file whose name begins with a dot is no image until it is renamed to a name without one.")
def test_dot_files(mounted: Mount) -> None:
    (mounted / ".a").write_bytes(b"data")
    assert mounted.images() == []
    assert (mounted / ".a").read_bytes() == b"data"
    (mounted / ".a").rename(mounted / "a")
    assert mounted.image("a").status is ImageStatus.AVAILABLE


@pytest.mark.promise(
    "A file into which nothing was written is a queued image; what is written into it later becomes its data."
)
def test_empty_files(mounted: Mount) -> None:
    mounted.run("touch", "a")
    image = mounted.image("a")
    assert image.status is ImageStatus.QUEUED
    mounted.shell("echo data >>a")
    assert mounted.image("a").id == image.id
    assert mounted.content("a") == b"data\n"


@pytest.mark.promise(
    "Several writers, one after the other or at once, make one image: it is complete when the last of them closes."
)
def test_several_writers(mounted: Mount) -> None:
    first = os.open(mounted / "a", os.O_WRONLY | os.O_CREAT)
    second = os.open(mounted / "a", os.O_WRONLY)
    os.pwrite(first, b"one", 0)
    os.close(first)
    os.pwrite(second, b"two", 3)
    assert mounted.images() == []
    os.close(second)
    assert mounted.content("a") == b"onetwo"


@pytest.mark.promise(
    "`setfattr -n user.glance.status -v available` makes an image of a queued or pending file as it is."
)
def test_publishing_by_attribute(mounted: Mount) -> None:
    mounted.run("truncate", "-s", "5", "zeros")
    mounted.run("setfattr", "-n", "user.glance.status", "-v", "available", "zeros")
    assert mounted.content("zeros") == bytes(5)
    mounted.run("timeout", "--signal=KILL", "0.4", "cp", "/dev/zero", "a", expect=None)
    eventually((mounted / ".glance/pending/a").exists)
    mounted.run("setfattr", "-n", "user.glance.status", "-v", "available", ".glance/pending/a")
    assert mounted.image("a").status is ImageStatus.AVAILABLE


@pytest.mark.promise("`fsync` makes durable what was written, and publishes nothing.")
def test_fsync(mounted: Mount) -> None:
    with (mounted / "a").open("wb") as file:
        file.write(b"data")
        file.flush()
        os.fsync(file.fileno())
        assert mounted.images() == []
        file.write(b" and more")
    assert mounted.content("a") == b"data and more"


@pytest.mark.promise("Holes stay holes.")
def test_holes(mounted: Mount) -> None:
    with (mounted / "a").open("wb") as file:
        file.write(b"start")
        file.seek(200 * MIB)
        file.write(b"end")
    status = (mounted / "a").stat()
    assert (status.st_size, status.st_blocks * 512 < MIB) == (200 * MIB + 3, True)


@pytest.mark.promise("A file in `.glance/pending` becomes an image when it is moved out of it.")
def test_pending(mounted: Mount) -> None:
    mounted.run("timeout", "--signal=KILL", "0.4", "cp", "/dev/zero", "a", expect=None)
    eventually((mounted / ".glance/pending/a").exists)
    (mounted / ".glance/pending/a").rename(mounted / "b")
    assert mounted.image("b").status is ImageStatus.AVAILABLE
    assert list((mounted / ".glance/pending").iterdir()) == []


@pytest.mark.promise("What is still being written when the mount ends is in `.glance/pending` of the next one.")
def test_unfinished(mounts: Mounts) -> None:
    mounted = mounts.mount()
    (mounted / ".a").write_bytes(b"data")
    mounted.end()
    again = mounts.mount()
    assert (again / ".glance/pending/.a").read_bytes() == b"data"


# ---- data never change


@pytest.mark.promise(
    "Writing an existing path anew builds a new image, which takes the old one's place in one step when it is "
    "complete; until then everybody sees the old one."
)
def test_replacing(mounts: Mounts) -> None:
    here, there = mounts.mount(), mounts.mount()
    (here / "a").write_bytes(b"old")
    old = here.image("a")
    eventually((there / "a").exists)
    with (here / "a").open("wb") as file:
        file.write(b"newer")
        file.flush()
        assert here.run("cat", "a").out == there.run("cat", "a").out == "old"
        assert here.image("a") == old
    assert here.run("cat", "a").out == "newer"
    eventually(lambda: there.run("cat", "a").out == "newer")
    assert here.image("a").id != old.id


@pytest.mark.promise("Type, visibility and properties are carried over to the image that takes another's place.")
def test_carrying_over(mounted: Mount) -> None:
    (mounted / "a").write_bytes(b"old")
    with mounted.core() as core:
        changes = ImageChanges(type=ImageType.RAMDISK, is_public=True, properties={"distro": "debian"})
        core.images.update(LOCAL, mounted.image("a").id, changes)
    (mounted / "a").write_bytes(b"new")
    image = mounted.image("a")
    assert (image.type, image.is_public, dict(image.properties)) == (ImageType.RAMDISK, True, {"distro": "debian"})


@pytest.mark.promise("Renaming an image copies nothing; renamed onto another one, it takes its place.")
def test_renaming(mounted: Mount) -> None:
    (mounted / "a").write_bytes(b"a")
    (mounted / "b").write_bytes(b"b")
    a = mounted.image("a")
    (mounted / "a").rename(mounted / "b")
    (left,) = mounted.images()
    assert (left.id, left.location) == (a.id, a.location)


@pytest.mark.promise(
    "Who wants to build an image in place, with programs that write it here and there for hours, does so under a "
    "name with a dot in front, and renames it when it is done."
)
def test_building_in_place(mounted: Mount) -> None:
    mounted.shell(
        "truncate -s 8M .build && for i in 5 3 1; do printf block | dd of=.build bs=1M seek=$i conv=notrunc; done"
    )
    assert mounted.images() == []
    mounted.run("mv", ".build", "built")
    data = mounted.content("built")
    assert (len(data), data[3 * MIB : 3 * MIB + 5]) == (8 * MIB, b"block")


# ---- attributes and times


@pytest.mark.promise(
    "`user.glance.FIELD` and `user.glance.property.KEY` are the image's fields and properties, "
    "for `getfattr` and `setfattr`."
)
def test_attributes(mounted: Mount) -> None:
    (mounted / "a").write_bytes(b"data")
    os.setxattr(mounted / "a", "user.glance.property.distro", b"debian")
    os.setxattr(mounted / "a", "user.glance.type", b"machine")
    image = mounted.image("a")
    assert (image.type, image.properties["distro"]) == (ImageType.MACHINE, "debian")
    assert os.getxattr(mounted / "a", "user.glance.id") == image.id.encode()
    assert "user.glance.property.distro" in os.listxattr(mounted / "a")
    must_be_refused(errno.ENODATA, lambda: os.getxattr(mounted / "a", "user.glance.property.none"))


@pytest.mark.promise("Fields that are computed can't be set to another value: EPERM.")
def test_computed_attributes(mounted: Mount) -> None:
    with mounted.core() as core:
        core.images.add(LOCAL, NewImage(name="a", type=ImageType.RAW), io.BytesIO(b"data"))
    eventually((mounted / "a").exists)
    for name in ("id", "size", "checksum", "owner", "created_at"):
        must_be_refused(errno.EPERM, partial(os.setxattr, mounted / "a", f"user.glance.{name}", b"1234"))
        value = os.getxattr(mounted / "a", f"user.glance.{name}")
        os.setxattr(mounted / "a", f"user.glance.{name}", value)


@pytest.mark.promise("`chmod` and `chown` succeed and change nothing.")
def test_modes(mounted: Mount) -> None:
    (mounted / "a").write_bytes(b"data")
    before = (mounted / "a").stat()
    mounted.shell("chmod 4777 a && chown 1:1 a")
    after = (mounted / "a").stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert len(mounted.images()) == 1


# ---- refusals


@pytest.mark.promise("Device files, pipes and sockets are refused: EPERM.")
def test_special_files(mounted: Mount) -> None:
    must_be_refused(errno.EPERM, lambda: os.mkfifo(mounted / "pipe"))
    must_be_refused(errno.EPERM, lambda: os.mknod(mounted / "null", 0o20666, os.makedev(1, 3)))


@pytest.mark.promise("A name of more than 255 bytes is refused: ENAMETOOLONG.")
def test_long_names(mounted: Mount) -> None:
    (mounted / ("n" * 255)).write_bytes(b"data")
    must_be_refused(errno.ENAMETOOLONG, lambda: (mounted / ("n" * 256)).write_bytes(b"data"))
    assert (mounted / ("n" * 255)).read_bytes() == b"data"


@pytest.mark.promise("A name that is no UTF-8, or holds control characters, is refused: EINVAL.")
@pytest.mark.parametrize("name", [b"\xff", b"a\nb", b"\x7f"])
def test_strange_names(mounted: Mount, name: bytes) -> None:
    path = os.fsencode(mounted.point) + b"/" + name
    must_be_refused(errno.EINVAL, lambda: os.close(os.open(path, os.O_WRONLY | os.O_CREAT)))
    must_be_refused(errno.EINVAL, lambda: os.mkdir(path))  # noqa: PTH102 - the name is no text


@pytest.mark.promise("Removing a folder that holds something is refused: ENOTEMPTY.")
def test_full_folders(mounted: Mount) -> None:
    (mounted / "d").mkdir()
    (mounted / "d/.staged").write_bytes(b"data")
    must_be_refused(errno.ENOTEMPTY, (mounted / "d").rmdir)
    (mounted / "d/.staged").unlink()
    (mounted / "d/image").write_bytes(b"data")
    must_be_refused(errno.ENOTEMPTY, (mounted / "d").rmdir)
    (mounted / "e").mkdir()
    must_be_refused(errno.ENOTEMPTY, lambda: (mounted / "e").rename(mounted / "d"))


@pytest.mark.promise("Making what exists with O_EXCL, or a folder where there is one, is refused: EEXIST.")
def test_what_exists(mounted: Mount) -> None:
    (mounted / "a").write_bytes(b"data")
    (mounted / "d").mkdir()
    must_be_refused(errno.EEXIST, lambda: (mounted / "a").open("xb"))
    must_be_refused(errno.EEXIST, (mounted / "d").mkdir)
    must_be_refused(errno.EEXIST, (mounted / "a").mkdir)


@pytest.mark.promise("Removing and replacing a protected image are refused: EPERM.")
def test_protected_images(mounted: Mount) -> None:
    (mounted / "a").write_bytes(b"data")
    os.setxattr(mounted / "a", "user.glance.protected", b"true")
    (mounted / "b").write_bytes(b"other")
    must_be_refused(errno.EPERM, (mounted / "a").unlink)
    must_be_refused(errno.EPERM, lambda: (mounted / "a").write_bytes(b"new"))
    must_be_refused(errno.EPERM, lambda: (mounted / "b").rename(mounted / "a"))
    assert mounted.content("a") == b"data"


@pytest.mark.promise("Changing or removing another user's image is refused: EPERM.")
def test_other_people_s_images(mounts: Mounts) -> None:
    mounts.mount(options=["public"]).shell("echo data >a")
    alices = mounts.mount(options=["user=alice"])
    must_be_refused(errno.EPERM, (alices / "a").unlink)
    must_be_refused(errno.EPERM, lambda: (alices / "a").rename(alices / "b"))
    must_be_refused(errno.EPERM, lambda: (alices / "a").write_bytes(b"new"))
    must_be_refused(errno.EPERM, lambda: os.setxattr(alices / "a", "user.glance.type", b"kernel"))


@pytest.mark.needs("root")
@pytest.mark.promise("Where the store has no room, the program is told by `write` or by `close`: ENOSPC.")
@pytest.mark.parametrize("writer", ["cp /dev/zero a", "dd if=/dev/zero of=a bs=1M", "cat /dev/zero >a"])
def test_a_full_store(mounts: Mounts, tmp_path: Path, writer: str) -> None:
    with file_system(tmp_path, kind="tmpfs", size=16 * MIB) as place:
        mounted = mounts.mount(data=place / "data")
        said = mounted.shell(writer, expect=1)
        assert "No space left on device" in said.err
        assert [image for image in mounted.images() if image.status is ImageStatus.AVAILABLE] == []
        mounted.shell("rm -f a .glance/pending/*; echo small >b")
        assert mounted.content("b") == b"small\n"
        mounted.end()


@pytest.mark.promise(
    "Where data are lost, opening or reading them fails with EIO, and the log and `.glance/errors` say why."
)
def test_lost_data(mounted: Mount) -> None:
    (mounted / "a").write_bytes(b"data" * 1000)
    mounted.shell("echo 3 >/proc/sys/vm/drop_caches || true")
    location = mounted.image("a").location
    assert location is not None
    (lost,) = (mounted.data / "images").rglob(location.key)
    lost.unlink()
    must_be_refused(errno.EIO, (mounted / "a").read_bytes)
    assert "not in their store" in (mounted / ".glance/errors").read_text()
    assert "not in their store" in mounted.log()
    mounted.shell("head -c 3000000 /dev/urandom >b")
    location = mounted.image("b").location
    assert location is not None
    (shortened,) = (mounted.data / "images").rglob(location.key)
    os.truncate(shortened, 1_000_000)
    # Past what the kernel has of it since it was written.
    descriptor = os.open(mounted / "b", os.O_RDONLY | os.O_DIRECT)
    must_be_refused(errno.EIO, lambda: os.pread(descriptor, 500_000, 800_000))
    os.close(descriptor)
    assert "bytes too early" in (mounted / ".glance/errors").read_text()


@pytest.mark.promise("Exchanging two files in one step is refused: EINVAL.")
def test_exchanging(mounted: Mount) -> None:
    mounted.shell("echo a >a; echo b >b")
    script = (
        "import ctypes, os; c = ctypes.CDLL(None, use_errno=True); "
        "print(c.renameat2(-100, b'a', -100, b'b', 2), ctypes.get_errno())"
    )
    assert mounted.run("python3", "-c", script).out.split() == ["-1", str(errno.EINVAL)]


@contextmanager
def _refusing(database: Path) -> Iterator[None]:
    """Have a database refuse every image that is new."""
    refusing = "CREATE TRIGGER refusing BEFORE INSERT ON images BEGIN SELECT RAISE(ABORT, 'refused'); END"
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute(refusing)
        yield
        connection.execute("DROP TRIGGER refusing")

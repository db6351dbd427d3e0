# SPDX-License-Identifier: Apache-2.0
"""The tools that everybody uses, on a real mount: what they say, and what became of the images."""

import hashlib
import os
from pathlib import Path

import pytest

from glancefs.model import ImageStatus, ImageType
from tests.support.mounting import Mount, eventually

MIB = 1 << 20


@pytest.fixture
def some(tmp_path: Path) -> Path:
    """A file of 3 MiB and a bit of random bytes, beside the mount."""
    path = tmp_path / "some.raw"
    path.write_bytes(os.urandom(3 * MIB + 12345))
    return path


def test_cp_adds_an_image_that_is_available_when_it_returns(mounted: Mount, some: Path) -> None:
    mounted.run("cp", some, "a.raw")
    image = mounted.image("a.raw")
    assert image.status is ImageStatus.AVAILABLE
    assert image.checksum == "sha256:" + hashlib.sha256(some.read_bytes()).hexdigest()
    assert mounted.content("a.raw") == some.read_bytes()
    assert (mounted / "a.raw").read_bytes() == some.read_bytes()


@pytest.mark.parametrize("flags", ["-a", "-p", "--preserve=xattr", "--sparse=always", "--no-clobber"])
def test_cp_with_its_flags_adds_the_same_image_in_silence(mounted: Mount, some: Path, flags: str) -> None:
    said = mounted.run("cp", flags, some, "a.raw")
    assert said.err == ""
    assert mounted.content("a.raw") == some.read_bytes()


def test_cp_keeps_the_time_it_is_asked_to_keep(mounted: Mount, some: Path) -> None:
    os.utime(some, ns=(10**18 + 123456789, 10**18 + 123456789))
    mounted.run("cp", "-p", some, "a.raw")
    assert (mounted / "a.raw").stat().st_mtime_ns == 10**18 + 123456789
    assert mounted.image("a.raw").properties["mtime"].startswith("1000000000")


@pytest.mark.parametrize("flags", [[], ["-f"], ["--remove-destination"]])
def test_cp_over_an_image_puts_a_new_one_in_its_place(mounted: Mount, some: Path, flags: list[str]) -> None:
    (mounted / "a.raw").write_bytes(b"old")
    old = mounted.image("a.raw")
    mounted.run("cp", *flags, some, "a.raw")
    new = mounted.image("a.raw")
    assert new.id != old.id
    assert mounted.content("a.raw") == some.read_bytes()


def test_mv_into_the_mount_adds_and_mv_out_of_it_deletes(mounted: Mount, some: Path, tmp_path: Path) -> None:
    data = some.read_bytes()
    mounted.run("mv", some, "a.raw")
    assert mounted.content("a.raw") == data
    assert not some.exists()
    mounted.run("mv", "a.raw", tmp_path / "back.raw")
    assert mounted.images() == []
    assert (tmp_path / "back.raw").read_bytes() == data


def test_mv_within_the_mount_renames_and_copies_nothing(mounted: Mount, some: Path) -> None:
    mounted.run("cp", some, "a.raw")
    before = mounted.image("a.raw")
    mounted.shell("mkdir -p x/y && mv a.raw x/y/b.raw")
    after = mounted.image("x/y/b.raw")
    assert (after.id, after.location) == (before.id, before.location)
    assert (mounted / "x/y/b.raw").read_bytes() == some.read_bytes()


def test_mv_onto_an_image_takes_its_place(mounted: Mount, some: Path) -> None:
    (mounted / "old").write_bytes(b"old")
    mounted.run("cp", some, "new")
    new = mounted.image("new")
    mounted.run("mv", "new", "old")
    assert [(image.id, image.name) for image in mounted.images()] == [(new.id, "old")]
    assert (mounted / "old").read_bytes() == some.read_bytes()


def test_mv_of_a_folder_moves_all_that_is_below_it(mounted: Mount) -> None:
    mounted.shell("mkdir -p a/b && echo one >a/one && echo two >a/b/two && mv a c")
    assert sorted(image.name for image in mounted.images()) == ["c/b/two", "c/one"]
    assert (mounted / "c/b/two").read_text() == "two\n"
    assert not (mounted / "a").exists()


def test_mv_without_clobbering_leaves_what_is_there(mounted: Mount) -> None:
    mounted.shell("echo one >one; echo two >two; mv -n one two")
    assert (mounted / "two").read_text() == "two\n"
    assert (mounted / "one").read_text() == "one\n"


@pytest.mark.promise("Hard links and symbolic links are refused: EPERM.")
@pytest.mark.parametrize("flags", [[], ["-s"]])
def test_ln_is_refused(mounted: Mount, flags: list[str]) -> None:
    (mounted / "a").write_bytes(b"a")
    said = mounted.run("ln", *flags, "a", "b", expect=1)
    assert "Operation not permitted" in said.err
    assert not (mounted / "b").is_symlink()


def test_rm_deletes(mounted: Mount) -> None:
    mounted.shell("echo one >one; rm one")
    assert mounted.images() == []
    assert "No such file" in mounted.run("cat", "one", expect=1).err


def test_rm_r_deletes_a_whole_tree(mounted: Mount) -> None:
    mounted.shell("mkdir -p a/b/c; for i in $(seq 40); do echo $i >a/b/$i; done; echo x >a/b/c/x; rm -r a")
    assert mounted.images() == []
    assert list(mounted.point.iterdir()) == []


def test_folders_are_made_and_removed_when_they_are_empty(mounted: Mount) -> None:
    mounted.shell("mkdir -p a/b/c && touch a/b/c/file")
    assert "not empty" in mounted.run("rmdir", "a/b/c", expect=1).err
    mounted.shell("rm a/b/c/file && rmdir a/b/c a/b a")
    assert list(mounted.point.iterdir()) == []


def test_touch_makes_a_queued_image(mounted: Mount) -> None:
    mounted.run("touch", "a")
    eventually(mounted.images)
    assert mounted.image("a").status is ImageStatus.QUEUED
    assert (mounted / "a").stat().st_size == 0


def test_touch_of_an_image_sets_its_time(mounted: Mount) -> None:
    (mounted / "a").write_bytes(b"data")
    mounted.run("touch", "-d", "2001-09-09T01:46:40Z", "a")
    assert (mounted / "a").stat().st_mtime == 10**9
    assert mounted.content("a") == b"data"


def test_cat_into_a_file_adds_it_when_the_last_close_comes(mounted: Mount, some: Path) -> None:
    mounted.shell('cat "$1" >a.raw', some)
    assert mounted.content("a.raw") == some.read_bytes()


def test_several_writers_one_after_the_other_make_one_image(mounted: Mount) -> None:
    mounted.shell("(echo one; cat /etc/hostname; /bin/echo two) >a")
    assert mounted.image("a").status is ImageStatus.AVAILABLE
    assert mounted.content("a") == b"one\n" + Path("/etc/hostname").read_bytes() + b"two\n"


def test_a_background_writer_is_waited_for(mounted: Mount) -> None:
    mounted.shell("exec 3>a; (sleep 0.5; echo late >&3) & exec 3>&-; wait")
    assert mounted.content("a") == b"late\n"


def test_a_run_of_appends_by_one_shell_makes_one_image(mounted: Mount) -> None:
    mounted.shell("exec 3>>a; echo one >&3; echo two >&3; exec 3>&-")
    assert mounted.content("a") == b"one\ntwo\n"


@pytest.mark.promise("Writing into an image, appending to it and truncating it are refused: EPERM.")
@pytest.mark.parametrize(
    "script", ["echo more >>a", "truncate -s 1 a", "dd if=/dev/zero of=a conv=notrunc bs=1 count=1"]
)
def test_data_of_an_image_are_not_changed(mounted: Mount, script: str) -> None:
    (mounted / "a").write_bytes(b"data")
    said = mounted.shell(script, expect=1)
    assert "Operation not permitted" in said.err
    assert mounted.content("a") == b"data"


@pytest.mark.parametrize("size", ["512", "4k", "10240", "1M", "3M"])
def test_dd_in_blocks_of_any_size(mounted: Mount, some: Path, size: str) -> None:
    mounted.run("dd", f"if={some}", "of=a.raw", f"bs={size}", "conv=fsync")
    assert mounted.content("a.raw") == some.read_bytes()


def test_dd_with_seek_leaves_a_hole(mounted: Mount) -> None:
    mounted.run("dd", "if=/dev/urandom", "of=a.raw", "bs=1M", "seek=64", "count=1")
    eventually(mounted.images)
    image = mounted.image("a.raw")
    assert image.size == 65 * MIB
    eventually(lambda: mounted.image("a.raw").status is ImageStatus.AVAILABLE)
    assert (mounted / "a.raw").stat().st_blocks * 512 < 2 * MIB


def test_dd_sparse_keeps_holes(mounted: Mount, tmp_path: Path) -> None:
    with (tmp_path / "holes").open("wb") as file:
        file.write(b"x" * 4096)
        file.truncate(32 * MIB)
    mounted.run("dd", f"if={tmp_path / 'holes'}", "of=a.raw", "bs=1M", "conv=sparse")
    eventually(lambda: mounted.image("a.raw").status is ImageStatus.AVAILABLE)
    assert mounted.image("a.raw").size == 32 * MIB
    assert int(mounted.run("du", "-k", "a.raw").out.split()[0]) < 2048


def test_dd_without_truncating_goes_on_where_it_is_told(mounted: Mount) -> None:
    mounted.shell(
        "dd if=/dev/zero of=.work bs=1k count=4 && printf xyz | dd of=.work bs=1 seek=5 conv=notrunc && mv .work a.raw"
    )
    assert mounted.content("a.raw") == bytes(5) + b"xyz" + bytes(4096 - 8)


def test_tar_out_and_in_again(mounted: Mount, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub" / "deep").mkdir(parents=True)
    for name in ("a", "sub/b", "sub/deep/c"):
        (tree / name).write_bytes(os.urandom(100_000))
    mounted.shell('tar -C "$1" -cf - . | tar -xf -', tree)
    assert sorted(image.name for image in mounted.images()) == ["a", "sub/b", "sub/deep/c"]
    mounted.run("tar", "-cf", tmp_path / "out.tar", "a", "sub")
    (tmp_path / "again").mkdir()
    mounted.run("tar", "-C", tmp_path / "again", "-xf", tmp_path / "out.tar")
    assert mounted.run("diff", "-r", tree, tmp_path / "again").out == ""


def test_truncate_makes_a_queued_image_of_its_size(mounted: Mount) -> None:
    mounted.run("truncate", "-s", "10G", "big")
    eventually(mounted.images)
    image = mounted.image("big")
    assert (image.status, image.size) == (ImageStatus.QUEUED, 10 << 30)
    assert (mounted / "big").stat().st_size == 10 << 30
    assert mounted.run("head", "-c", "5", "big").stdout == bytes(5)


def test_install_copies_and_sets_modes_in_vain(mounted: Mount, some: Path) -> None:
    mounted.run("install", "-m", "600", some, "a.raw")
    assert mounted.content("a.raw") == some.read_bytes()
    assert (mounted / "a.raw").stat().st_mode & 0o777 == 0o644


def test_find_sees_every_file_once(mounted: Mount) -> None:
    mounted.shell("mkdir -p a/b c; echo 1 >a/1; echo 2 >a/b/2; echo 3 >c/3; echo 4 >4")
    assert sorted(mounted.run("find", ".", "-type", "f").out.split()) == ["./4", "./a/1", "./a/b/2", "./c/3"]
    assert mounted.run("find", ".", "-name", "2", "-size", "-1k").out == ""


def test_df_tells_the_room_of_the_store(mounted: Mount) -> None:
    there = os.statvfs(mounted.data)
    here = os.statvfs(mounted.point)
    total = there.f_blocks * there.f_frsize
    assert here.f_blocks * here.f_frsize == pytest.approx(total, rel=0.01)
    assert here.f_bavail * here.f_frsize == pytest.approx(there.f_bavail * there.f_frsize, rel=0.05)
    assert "glancefs" in mounted.run("df", "-T", ".").out


def test_stat_md5sum_and_grep(mounted: Mount, some: Path) -> None:
    mounted.shell('mkdir d; cp "$1" d/a.raw; echo needle >d/b', some)
    assert mounted.run("stat", "-c", "%s %F %h", "d/a.raw").out == f"{some.stat().st_size} regular file 1\n"
    assert (
        mounted.run("md5sum", "d/a.raw").out.split()[0]
        == hashlib.md5(some.read_bytes(), usedforsecurity=False).hexdigest()
    )
    assert mounted.run("grep", "-r", "needle", ".").out == "./d/b:needle\n"


def test_ls_l_shows_sizes(mounted: Mount) -> None:
    mounted.shell("echo one >a; mkdir d")
    lines = mounted.run("ls", "-l", "--time-style=+%s").out.splitlines()
    assert lines[1].split()[0] == "-rw-r--r--"
    assert lines[1].split()[4] == "4"
    assert lines[2].startswith("drwxr-xr-x")


@pytest.mark.needs("vim")
def test_vim_saves_a_new_file(mounted: Mount) -> None:
    mounted.run("vim.tiny", "-es", "-u", "NONE", "-c", "set noswapfile", "-c", "normal ihello", "-c", "wq", "note.txt")
    eventually(mounted.images)
    assert mounted.content("note.txt") == b"hello\n"


def test_a_program_maps_an_image_into_its_memory(mounted: Mount, some: Path) -> None:
    mounted.run("cp", some, "a.raw")
    script = (
        "import mmap, sys, hashlib; f = open('a.raw', 'rb'); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); "
        "print(hashlib.sha256(m).hexdigest())"
    )
    assert mounted.run("python3", "-c", script).out.strip() == hashlib.sha256(some.read_bytes()).hexdigest()


def test_sendfile_out_of_the_mount_and_copy_file_range_within_it(mounted: Mount, some: Path, tmp_path: Path) -> None:
    mounted.run("cp", some, "a.raw")
    # Between file systems of different kinds Linux refuses copy_file_range(2), whatever they are.
    script = (
        "import os, sys; f = os.open('a.raw', os.O_RDONLY); n = os.fstat(f).st_size\n"
        "a, b = (os.open(path, os.O_WRONLY | os.O_CREAT) for path in (sys.argv[1], 'b.raw'))\n"
        "o = 0\nwhile o < n: o += os.sendfile(a, f, o, n - o)\n"
        "o = 0\nwhile o < n: o += os.copy_file_range(f, b, n - o, offset_src=o)\n"
    )
    mounted.run("python3", "-c", script, tmp_path / "sent")
    assert (tmp_path / "sent").read_bytes() == some.read_bytes()
    assert mounted.content("b.raw") == some.read_bytes()


@pytest.mark.needs("getfattr")
def test_getfattr_shows_and_setfattr_changes_metadata(mounted: Mount) -> None:
    (mounted / "a").write_bytes(b"data")
    image = mounted.image("a")
    said = mounted.run("getfattr", "-d", "a").out
    for line in (f'user.glance.id="{image.id}"', 'user.glance.status="available"', 'user.glance.type="raw"'):
        assert line in said
    mounted.run("setfattr", "-n", "user.glance.property.distro", "-v", "debian", "a")
    mounted.run("setfattr", "-n", "user.glance.type", "-v", "machine", "a")
    mounted.run("setfattr", "-n", "user.glance.is_public", "-v", "true", "a")
    changed = mounted.image("a")
    assert (changed.properties["distro"], changed.type, changed.is_public) == ("debian", ImageType.MACHINE, True)
    mounted.run("setfattr", "-x", "user.glance.property.distro", "a")
    assert "distro" not in mounted.image("a").properties


@pytest.mark.promise("Extended attributes outside `user.glance.` are refused: EOPNOTSUPP.")
def test_foreign_attributes_are_refused(mounted: Mount) -> None:
    (mounted / "a").write_bytes(b"data")
    for name in ("user.other", "trusted.x"):
        assert "not supported" in mounted.run("setfattr", "-n", name, "-v", "1", "a", expect=1).err


def test_an_image_renamed_by_attribute_is_at_its_new_path(mounted: Mount) -> None:
    (mounted / "a").write_bytes(b"data")
    mounted.run("setfattr", "-n", "user.glance.name", "-v", "folder/b", "a")
    assert mounted.image("folder/b").size == 4
    eventually(lambda: not (mounted / "a").exists())
    assert (mounted / "folder/b").read_bytes() == b"data"


def test_reading_goes_on_while_the_image_is_replaced(mounted: Mount, some: Path) -> None:
    mounted.run("cp", some, "a.raw")
    with (mounted / "a.raw").open("rb") as reader:
        assert reader.read(10) == some.read_bytes()[:10]
        mounted.shell("echo new >a.raw")
        assert mounted.content("a.raw") == b"new\n"
        os.posix_fadvise(reader.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        reader.seek(0)
        assert reader.read() == some.read_bytes()
    assert (mounted / "a.raw").read_bytes() == b"new\n"


def test_until_the_new_image_is_complete_others_see_the_old_one(mounted: Mount) -> None:
    (mounted / "a").write_bytes(b"old")
    with (mounted / "a").open("wb") as writer:
        writer.write(b"newer")
        writer.flush()
        assert mounted.run("cat", "a").stdout == b"old"
        assert mounted.content("a") == b"old"
    assert mounted.run("cat", "a").stdout == b"newer"
    assert mounted.content("a") == b"newer"


def test_an_image_carries_its_metadata_over_to_its_replacement(mounted: Mount) -> None:
    (mounted / "a").write_bytes(b"old")
    mounted.run("setfattr", "-n", "user.glance.type", "-v", "kernel", "a")
    mounted.run("setfattr", "-n", "user.glance.property.distro", "-v", "debian", "a")
    mounted.shell("echo new >a")
    image = mounted.image("a")
    assert (image.type, image.properties["distro"], image.size) == (ImageType.KERNEL, "debian", 4)


def test_reading_goes_on_while_the_image_is_removed(mounted: Mount, some: Path) -> None:
    mounted.run("cp", some, "a.raw")
    with (mounted / "a.raw").open("rb") as reader:
        mounted.run("rm", "a.raw")
        assert reader.read() == some.read_bytes()
    assert mounted.images() == []

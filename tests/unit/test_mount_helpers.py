# SPDX-License-Identifier: Apache-2.0
"""The words that mount(8) and umount(8) say, and the statuses that they hear.

Threading: none.
"""

from __future__ import annotations

import pytest

from glancefs.fuse.options import known_options, read_options
from mount_helpers import mount, umount
from mount_helpers.arguments import (
    DONE,
    FAILED,
    INTERRUPTED,
    UsageError,
    read_mount_words,
    read_umount_words,
    status_for_mount,
)


def test_options_come_behind_the_operands_or_before_them() -> None:
    said = read_mount_words(["/srv/a b", "/mnt", "-s", "-f", "-n", "-v", "-N", "7", "-o", "rw,x-a", "-t", "glancefs"])
    assert (said.operands, said.options, said.namespace) == (("/srv/a b", "/mnt"), ("rw,x-a",), "7")
    assert said.flags == frozenset("sfnv")
    assert read_mount_words(
        ["-v", "-o", "ro", "-w", "https://images.example/", "/mnt", "-o", "uid=1", "-r"]
    ).options == (*("ro", "rw", "uid=1", "ro"),)


def test_a_source_may_look_like_an_option() -> None:
    assert read_mount_words(["-o", "ro", "--", "-s", "/mnt"]).operands == ("-s", "/mnt")


@pytest.mark.parametrize(
    "words", [[], ["one"], ["a", "b", "c"], ["-x", "a", "b"], ["a", "b", "-o"], ["a", "b", "--all"]]
)
def test_words_that_mount_doesn_t_say_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError):
        read_mount_words(words)
    assert mount.main(words) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_umount_says_one_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert read_umount_words(["/mnt", "-l", "-n", "-f", "-r", "-v"]).flags == frozenset("lnfrv")
    assert umount.main([]) == 1
    assert umount.main(["-h"]) == umount.main(["-V"]) == mount.main(["-h"]) == mount.main(["-V"]) == 0
    assert capsys.readouterr().err == "umount.glancefs: one FOLDER is needed, not 0 words.\n"


def test_what_can_t_be_entered_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert mount.main(["a", "b", "-N", "/nowhere"]) == umount.main(["b", "-N", "/nowhere"]) == 2
    assert "mount.glancefs: /nowhere: No such file or directory.\n" in capsys.readouterr().err


@pytest.mark.parametrize(("status", "heard"), [(0, DONE), (1, FAILED), (2, FAILED), (5, FAILED), (130, INTERRUPTED)])
def test_statuses_are_those_of_mount(status: int, heard: int) -> None:
    assert status_for_mount(status) == heard


def test_options_that_there_are_not_can_be_left_out() -> None:
    texts = ['ro,allow_othr,log="/a,b",user,x-systemd.automount', "uid=5,max_read=7"]
    assert list(known_options(texts)) == ["ro", "log=/a\\,b", "user", "x-systemd.automount", "uid=5"]
    assert read_options(known_options(texts)).log == read_options(['log="/a,b"']).log

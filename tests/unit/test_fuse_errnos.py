# SPDX-License-Identifier: Apache-2.0
"""Every error has an errno, and the errnos are those that programs expect."""

import errno

import pytest

from glancefs import errors
from glancefs.fuse.errnos import ERRNOS, errno_of


def example(kind: type[errors.GlancefsError]) -> errors.GlancefsError:
    return kind.__new__(kind)


@pytest.mark.parametrize("kind", [kind for kind in errors.every_error() if kind is not errors.GlancefsError])
def test_every_error_has_an_errno(kind: type[errors.GlancefsError]) -> None:
    assert errno_of(example(kind)) in errno.errorcode


def test_no_errno_says_that_an_operation_is_unknown() -> None:
    # The kernel would switch the operation off for good.
    assert errno.ENOSYS not in ERRNOS.values()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (errors.ImmutableImage, errno.EPERM),
        (errors.ProtectedImage, errno.EPERM),
        (errors.PathTooLong, errno.ENAMETOOLONG),
        (errors.InvalidPath, errno.EINVAL),
        (errors.ImageNotFound, errno.ENOENT),
        (errors.StaleImage, errno.EBUSY),
        (errors.Locked, errno.EBUSY),
        (errors.StoreFull, errno.ENOSPC),
        (errors.RegistryUnavailable, errno.EIO),
        (errors.FolderNotEmpty, errno.ENOTEMPTY),
        (errors.AttributesUnsupported, errno.EOPNOTSUPP),
    ],
)
def test_programs_are_told_what_they_expect(kind: type[errors.GlancefsError], expected: int) -> None:
    assert errno_of(example(kind)) == expected


def test_an_error_of_the_system_keeps_its_number() -> None:
    assert errno_of(OSError(errno.EDQUOT, "quota")) == errno.EDQUOT


def test_what_nobody_foresaw_has_none() -> None:
    assert errno_of(KeyError("surprise")) is None

# SPDX-License-Identifier: Apache-2.0
"""What programs are told when something goes wrong: the tree of errors as errno(3), in one table.

Answers for the translation alone. Does not decide what is wrong, and logs nothing: `glancefs.fuse.guard` does.

Threading: a constant table and pure functions.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from glancefs import errors

ERRNOS: Final[Mapping[type[errors.GlancefsError], int]] = MappingProxyType(
    {
        errors.InvalidRequest: errno.EINVAL,
        errors.PathTooLong: errno.ENAMETOOLONG,
        errors.UploadTooLarge: errno.EFBIG,
        errors.AttributesUnsupported: errno.EOPNOTSUPP,
        errors.NotAuthenticated: errno.EACCES,
        errors.Forbidden: errno.EPERM,
        errors.NotFound: errno.ENOENT,
        errors.AttributeNotFound: errno.ENODATA,
        errors.Conflict: errno.EBUSY,
        errors.Duplicate: errno.EEXIST,
        errors.ImmutableImage: errno.EPERM,
        errors.PathTaken: errno.EEXIST,
        errors.NotAFolder: errno.ENOTDIR,
        errors.IsAFolder: errno.EISDIR,
        errors.FolderNotEmpty: errno.ENOTEMPTY,
        errors.HeadersTooLarge: errno.E2BIG,
        errors.StoreFull: errno.ENOSPC,
        errors.DataMissing: errno.EIO,
        errors.Unavailable: errno.EIO,
        errors.ConfigError: errno.EIO,
    }
)
"""Each class speaks for those below it that are not named themselves."""

QUIET: Final = frozenset(
    {
        *(errno.ENOENT, errno.ENODATA, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EPERM),
        *(errno.EACCES, errno.EINVAL, errno.ENAMETOOLONG, errno.EOPNOTSUPP, errno.EROFS, errno.EBADF, errno.ESTALE),
        *(errno.EBUSY, errno.EFBIG),
    }
)
"""What programs meet every day and is nobody's fault: no line in the log for these."""


def errno_of(error: BaseException) -> int | None:
    """Give the errno for an error; None for one that nobody foresaw."""
    if isinstance(error, OSError):
        return error.errno or errno.EIO
    if isinstance(error, errors.GlancefsError):
        return next((ERRNOS[kind] for kind in type(error).__mro__ if kind in ERRNOS), None)
    return None

# SPDX-License-Identifier: Apache-2.0
"""The guard around every request of the kernel: whatever goes wrong, an answer goes out and the mount lives on.

An exception other than FUSEError would end the main loop of pyfuse3, and with it the mount for everybody; an operation
that answers ENOSYS is switched off by the kernel for good. So each handler is wrapped: errors of the tree and of the
system become their errno, everything else a line in the log and EIO.

Answers for that, and for counting requests. Knows no operation.

Threading: belongs to the loop's thread.
"""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import trio
from pyfuse3 import FUSEError

from glancefs.errors import Locked
from glancefs.fuse.errnos import QUIET, errno_of
from glancefs.fuse.statistics import Statistics

_log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


class Guarded(Protocol):
    """What has guarded handlers."""

    statistics: Statistics

    def report(self, request: str, about: object, error: BaseException) -> None:
        """Tell people why a request failed; ``about`` is the first argument of the request."""
        ...


G = TypeVar("G", bound=Guarded)


def guarded(
    handler: Callable[Concatenate[G, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[G, P], Coroutine[Any, Any, R]]:
    """Wrap a handler."""
    name = handler.__name__

    @functools.wraps(handler)
    async def answer(self: G, *args: P.args, **kwargs: P.kwargs) -> R:
        self.statistics.requests[name] += 1
        try:
            return await handler(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - the guard of the mount: nothing may pass it but a FUSEError
            raise _refusal(self, name, args[0] if args else None, error) from None

    return answer  # type: ignore[return-value] # mypy takes a bound first argument for another one


def _refusal(self: Guarded, name: str, about: object, error: Exception) -> FUSEError:
    if isinstance(error, FUSEError):
        number = error.errno
    elif isinstance(error, trio.TooSlowError):
        number = errno.EIO
        self.report(name, about, TimeoutError("The store or the registry did not answer in time."))
    else:
        known = errno_of(error)
        number = errno.EIO if known is None else known
        if known is None:
            _log.error("%s failed as nobody foresaw", name, exc_info=error)
        # Who locked it is nowhere else to be seen from a mount.
        if number not in QUIET or isinstance(error, Locked):
            self.report(name, about, error)
    self.statistics.errors[errno.errorcode.get(number, str(number))] += 1
    return FUSEError(number)

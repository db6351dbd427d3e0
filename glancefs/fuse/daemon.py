# SPDX-License-Identifier: Apache-2.0
"""Running a mount in the foreground or the background: forks, the pipe that says it is ready, systemd, the log.

Answers for what the one who started a mount hears: nothing and success once the mount answers, or the reason why not.
Does not know what a mount is.

Threading: `in_background` forks, so it is called before there are threads.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from glancefs.errors import ConfigError, GlancefsError, error_named

_READY: Final = b"ready\n"
_SYSLOG: Final = Path("/dev/log")

Serve = Callable[[Callable[[], None]], None]
"""Serves until the end, and calls what it is given once it is ready."""


def in_background(serve: Serve, *, patience: float) -> None:
    """Serve in a process of its own; return once it is ready.

    Raises what kept it from becoming ready, and ConfigError when it is not after ``patience`` seconds or has died.
    """
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        _become_daemon(serve, theirs)
    os.close(theirs)
    try:
        os.waitpid(child, 0)
        said = _heard(ours, patience)
    finally:
        os.close(ours)
    if said == _READY:
        return
    code, _, message = said.decode(errors="replace").partition(" ")
    raise (error_named(code) or ConfigError)(message.strip() or "The mount has died without a word.")


def _heard(pipe: int, patience: float) -> bytes:
    """Read what the daemon says, to its end or to its readiness."""
    deadline = time.monotonic() + patience
    said = b""
    while said != _READY:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([pipe], [], [], left)[0]:
            message = f"The mount is not ready after {patience:g} seconds; its log may tell why."
            raise ConfigError(message)
        piece = os.read(pipe, 4096)
        if not piece:
            break
        said += piece
    return said


def _become_daemon(serve: Serve, pipe: int) -> NoReturn:
    """Be nobody's child, and once it serves leave the caller's session and terminal; never returns to the caller."""
    status = 1
    try:
        if os.fork():
            os._exit(0)
        os.chdir("/")
        serve(lambda: _tell_ready(pipe))
        status = 0
    except GlancefsError as error:
        _tell_failure(pipe, f"{error.code} {error}")
    except BaseException as error:
        logging.getLogger(__name__).exception("the mount has ended")
        _tell_failure(pipe, f"config-error {type(error).__name__}: {error}")
    finally:
        logging.shutdown()
        os._exit(status)


def _tell_ready(pipe: int) -> None:
    # Not before: what systemd's automount waits for, only processes of the group that it has started may reach.
    os.setsid()
    try:
        os.write(pipe, _READY)
    except BrokenPipeError:
        # Whoever asked for the mount was interrupted, and does not want it any more.
        os.kill(os.getpid(), signal.SIGTERM)
    os.close(pipe)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)


def _tell_failure(pipe: int, text: str) -> None:
    # Once it was ready, nobody listens any more, and the log has it.
    with contextlib.suppress(OSError):
        os.write(pipe, text.encode(errors="replace"))


def tell_systemd(address: str | None, state: str) -> None:
    """Tell systemd a state such as ``READY=1`` (sd_notify(3)); without an address, nobody."""
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify, contextlib.suppress(OSError):
        notify.connect("\0" + address[1:] if address.startswith("@") else address)
        notify.sendall(state.encode())


def log_to(file: Path | None, *, level: str, is_foreground: bool) -> None:
    """Send the log to a file, to standard error, or for a background process to the system's log if there is one.

    Raises ConfigError for a file that can't be written.
    """
    handler: logging.Handler
    if file is not None:
        try:
            handler = logging.FileHandler(file, encoding="utf-8")
        except OSError as error:
            message = f"The log can't be written to {file}: {error.strerror}."
            raise ConfigError(message) from None
    elif is_foreground or not _SYSLOG.exists():
        handler = logging.StreamHandler()
    else:
        handler = logging.handlers.SysLogHandler(str(_SYSLOG), facility=logging.handlers.SysLogHandler.LOG_DAEMON)
        handler.ident = "glancefs: "
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level.upper())

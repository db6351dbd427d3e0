# SPDX-License-Identifier: Apache-2.0
"""A server of the gateway as a process of its own, with an application that knows nothing of images.

`python -m tests.support.doorway LISTEN WORKERS SHUTDOWN_TIMEOUT` prints `ready URL`, and what became of each upload.

Threading: a process for tests; the application is called by the server's threads.
"""

import logging
import os
import sys
import threading
from collections.abc import Iterable
from typing import Any

from gateway.server import Server
from glancefs.errors import ConfigError, UploadTruncated


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Tell the process, its switch interval or where the thread may run, take an upload, answer late, or die."""
    path = environ["PATH_INFO"]
    if path == "/upload":
        try:
            return take(environ, start_response)
        except UploadTruncated:
            say("truncated")
            raise
    if path == "/late":
        threading.Event().wait(1)
    if path == "/die":
        os._exit(7)
    start_response("200 OK", [])
    if path == "/cores":
        return [repr(sorted(os.sched_getaffinity(0))).encode()]
    return [str(sys.getswitchinterval() if path == "/switch-interval" else os.getpid()).encode()]


def take(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Read the body to its end."""
    total = 0
    buffer = bytearray(1 << 20)
    say("begun")
    while count := environ["wsgi.input"].readinto(buffer):
        total += count
    say(f"took {total}")
    start_response("201 Created", [])
    return [str(total).encode()]


def say(text: str) -> None:
    """Print a line whole, whatever other threads print."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def factory() -> Any:
    """Make the application; it says when, and where."""
    say(f"made in {os.getpid()}")
    return application


def broken_factory() -> Any:
    """Fail as an application does whose configuration is wrong."""
    raise ConfigError("The flux is missing.")


def main() -> int:
    """Serve as the arguments say."""
    listen, workers, timeout, *rest = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    server = Server(
        app_factory=broken_factory if rest else factory,
        listen=listen,
        workers=int(workers),
        shutdown_timeout=float(timeout),
        ready=lambda url: say(f"ready {url}"),
        on_exit=lambda _app: say(f"exit of {os.getpid()}"),
    )
    try:
        return server.run()
    except ConfigError as error:
        say(f"refused: {error}")
        return 2


if __name__ == "__main__":
    sys.exit(main())

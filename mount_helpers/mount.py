# SPDX-License-Identifier: Apache-2.0
"""``mount.glancefs``: what mount(8) calls for ``mount -t glancefs``, fstab(5) and systemd.mount(5).

Answers for handing what mount(8) says on to ``glancefs mount``, and for ending as mount(8) documents. How images are
mounted, and which options there are, `glancefs.cli.mount` and `glancefs.fuse.options` know.

PATH and HOME may be unset here, and the caller may be a plain user whom an fstab line with ``user`` lets mount.

Threading: used by the main thread; the mount itself becomes a process of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from glancefs import __version__
from glancefs.errors import ConfigError
from mount_helpers import namespace
from mount_helpers.arguments import (
    DONE,
    MISUSED,
    MOUNT_USAGE,
    UNABLE,
    UsageError,
    Words,
    read_mount_words,
    status_for_mount,
)

_NAME = "mount.glancefs"


def main(arguments: Sequence[str] | None = None) -> int:
    """Mount as told by these arguments, by default the process's own; gives mount(8)'s exit status."""
    try:
        words = read_mount_words(sys.argv[1:] if arguments is None else arguments)
        if words.flags & {"h", "V"}:
            sys.stdout.write(f"{MOUNT_USAGE if 'h' in words.flags else f'{_NAME} {__version__}'}\n")
            return DONE
        options = _options(words)
    except (UsageError, ConfigError) as error:
        return _tell(str(error), MISUSED)
    except ImportError as error:
        return _tell(f"the mount needs {error.name}, which is not installed.", UNABLE)
    if words.namespace is not None:
        try:
            namespace.enter(words.namespace)
        except OSError as error:
            return _tell(f"{error.filename}: {error.strerror}.", UNABLE)
    return _mount(words, options)


def _options(words: Words) -> list[str]:
    """Give the options to mount with. Raises ConfigError for one that there is not, or with a wrong value."""
    from glancefs.fuse.options import known_options, read_options  # noqa: PLC0415 - usage is told also without FUSE

    said = list(known_options(words.options) if "s" in words.flags else words.options)
    if any("remount" in option.split(",") for option in words.options):
        raise ConfigError("a mount of images can't be changed while it lasts; unmount it and mount it anew.")
    read_options(said)
    return said


def _mount(words: Words, options: Sequence[str]) -> int:
    from glancefs.cli import main as glancefs  # noqa: PLC0415 - usage is told at once

    source, folder = words.operands
    said = [word for option in options for word in ("-o", option)]
    check = ["--check"] if "f" in words.flags else []
    status = status_for_mount(glancefs(["mount", *check, *said, "--", source, folder]))
    if "v" in words.flags and status == DONE:
        sys.stdout.write(f"{_NAME}: {source} {'can be mounted' if check else 'is mounted'} on {folder}.\n")
    return status


def _tell(sentence: str, status: int) -> int:
    sys.stderr.write(f"{_NAME}: {sentence}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())

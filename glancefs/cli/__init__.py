# SPDX-License-Identifier: Apache-2.0
"""The glancefs command.

Threading: the command line is read by the main thread.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``glancefs`` with these arguments, by default the process's own; gives the exit status."""
    from glancefs.cli.root import run

    return run(sys.argv[1:] if arguments is None else arguments)


def glance_api() -> int:
    """Run ``glance-api``, which is ``glancefs serve`` (seed: ``bin/glance-api``)."""
    return main(["serve", *sys.argv[1:]])


def glance_registry() -> int:
    """Run ``glance-registry``, which is ``glancefs registry``: what the first Glance called it."""
    return main(["registry", *sys.argv[1:]])

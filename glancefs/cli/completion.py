# SPDX-License-Identifier: Apache-2.0
"""``glancefs completion``: what makes a shell complete our commands.

Answers for printing the script; the completing itself click does.

Threading: used by the main thread.
"""

from __future__ import annotations

import sys

import click

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(*, shell: str) -> None:
    """Print the completion script for a shell.

    For bash: `glancefs completion bash > ~/.local/share/bash-completion/completions/glancefs`.
    """
    sys.stdout.write(script_for(shell) + "\n")


def script_for(shell: str) -> str:
    """Give the script for one of `SHELLS`. Raises UsageError where click has none."""
    from click.shell_completion import get_completion_class

    from glancefs.cli.root import root

    kind = get_completion_class(shell)
    if kind is None:
        message = f"There is no completion for {shell}."
        raise click.UsageError(message)
    return kind(root, {}, "glancefs", "_GLANCEFS_COMPLETE").source()

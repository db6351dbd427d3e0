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
@click.pass_context
def completion(context: click.Context, *, shell: str) -> None:
    """Print the completion script for a shell.

    For bash: `glancefs completion bash > ~/.local/share/bash-completion/completions/glancefs`.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        message = f"There is no completion for {shell}."
        raise click.UsageError(message)
    root = context.find_root().command
    sys.stdout.write(kind(root, {}, "glancefs", "_GLANCEFS_COMPLETE").source() + "\n")

# SPDX-License-Identifier: Apache-2.0
"""``glancefs config``: what the configuration is, and why.

Answers for showing it; secrets are hidden where it is read.

Threading: used by the main thread.
"""

from __future__ import annotations

import click

from glancefs.cli.said import Said, pass_said, shared_options
from glancefs.cli.text import Column

_COLUMNS = (Column(title="OPTION"), Column(title="VALUE", is_name=True), Column(title="FROM", is_name=True))


@click.group("config")
def configuration() -> None:
    """Look at the configuration."""


@configuration.command("show")
@shared_options("config", "data", "json", "debug")
@pass_said
def show_configuration(said: Said) -> None:
    """Show every option, its value and where that came from."""
    from glancefs.config import describe

    settings = list(describe(said.load()))
    output = said.output()
    if said.json:
        output.json({setting.option.key: {"value": setting.text, "from": setting.origin} for setting in settings})
    else:
        output.table(_COLUMNS, [[setting.option.key, setting.text, setting.origin] for setting in settings])

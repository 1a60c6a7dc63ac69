"""``dream3d dataset``: from 3D models to the shards that the priors are trained on."""

from __future__ import annotations

import typer

from dream3d.cli.dataset_contents import images, info
from dream3d.cli.group import OneLineGroup

dataset = typer.Typer(
    cls=OneLineGroup, invoke_without_command=True, rich_markup_mode=None, pretty_exceptions_enable=False
)


@dataset.callback()
def root(context: typer.Context) -> None:
    """Make, draw and look through the data that priors are trained on."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


dataset.command()(info)
dataset.command()(images)

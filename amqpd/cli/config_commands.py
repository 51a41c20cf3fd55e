"""`amqpd config`: check a file, show what is in force and why, print every setting."""

import os
from collections.abc import Mapping
from pathlib import Path

import click

from amqpd.cli.errors import check_policies, told_configuration_errors
from amqpd.config import report
from amqpd.config.sources import load, load_file

Given = tuple[Path | None, Mapping[str, str | tuple[str, ...]]]
"""The --config and the flags given before `config`, as `amqpd.cli.main` leaves them."""


@click.group()
def config() -> None:
    """Check, show and explain the configuration."""


@config.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def check(given: Given, file: Path) -> None:
    """Check a configuration file.

    Status 0 if it is fine, 2 if not. The environment is not looked at.
    """
    if given[0] or given[1]:
        raise click.UsageError("config check looks at FILE only and takes no other option")
    with told_configuration_errors():
        loaded = load_file(file)
        check_policies(loaded.config)
    count = report.changed(loaded.config)
    click.echo(f"{file} is fine: {count} setting{'' if count == 1 else 's'} changed")


@config.command()
@click.option("--config", "file", type=click.Path(path_type=Path), metavar="FILE",
              help="Configuration file, as for the broker.")  # fmt: skip
@click.option("--passwords", is_flag=True, help="Show passwords too.")
@click.pass_obj
def show(given: Given, file: Path | None, passwords: bool) -> None:
    """Show the settings in force, and where they come from.

    An origin is the default, FILE:LINE, an environment variable or a flag. The output is itself a
    configuration file.

    Flags of the broker go before the command: amqpd --port 5673 config show
    """
    config_file, flags = given
    with told_configuration_errors():
        loaded = load(file or config_file, environ=os.environ, flags=flags)
    click.echo(report.in_force(loaded, secrets=passwords), nl=False)


@config.command()
def example() -> None:
    """Print every setting with its default, as a file."""
    click.echo(report.example(), nl=False)

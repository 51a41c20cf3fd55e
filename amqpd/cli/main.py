"""The command `amqpd`: alone it runs the broker, with a command it does something else.

Only what is asked for is imported: the commands, and the broker itself, when they run.
"""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from amqpd.cli.errors import check_policies, told_configuration_errors
from amqpd.version import VERSION

COMMANDS: Final = {
    "bench": "amqpd.cli.bench",
    "config": "amqpd.cli.config_commands",
    "store": "amqpd.cli.store_commands",
}
"""Each command, and the module that has it under its own name."""

TAKES: Final = {
    "config": ("--bind", "--port", "--data-dir", "--memory", "--log-level", "--log-format"),
    "store": ("--data-dir",),
}
"""Commands that look at the configuration, and which flags of the broker they take."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are named (or listed by --help)."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now; None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name]), cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{COMMANDS[cmd_name]}.{cmd_name} is not a command")
        return command


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE",
              help="Configuration file. Without it: $AMQPD_CONFIG, else the first that exists of "
              "~/.config/amqpd/amqpd.toml and /etc/amqpd/amqpd.toml.")  # fmt: skip
@click.option("--bind", multiple=True, metavar="ADDRESS",
              help="Listen on HOST, HOST:PORT, [IPv6]:PORT or unix:PATH; may be repeated. "
              "Default 127.0.0.1.")  # fmt: skip
@click.option("--port", metavar="PORT", help="TCP port; 0 is any free one. Default 5672.")
@click.option("--data-dir", metavar="DIR",
              help="Directory of the data. Default ~/.local/state/amqpd; on macOS "
              "~/Library/Application Support/amqpd.")  # fmt: skip
@click.option("--memory", is_flag=True,
              help="Keep nothing on disk: all is gone when the broker stops.")  # fmt: skip
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error. Default info.")
@click.option("--log-format", metavar="FORMAT", help="text or json. Default text.")
@click.version_option(VERSION, prog_name="amqpd", message="%(prog)s %(version)s")
@click.pass_context
def main(
    ctx: click.Context,
    config_file: Path | None,
    bind: tuple[str, ...],
    port: str | None,
    data_dir: str | None,
    memory: bool,
    log_level: str | None,
    log_format: str | None,
) -> None:
    """A RabbitMQ-compatible message broker. Without a command it runs until it is told to stop.

    Every setting can be given in the configuration file and as an environment variable
    (AMQPD_LISTEN__PORT=5673). A flag beats the environment, the environment beats the file.
    """
    texts = {
        "--bind": bind or None,
        "--port": port,
        "--data-dir": data_dir,
        "--memory": "true" if memory else None,
        "--log-level": log_level,
        "--log-format": log_format,
    }
    flags = {name: text for name, text in texts.items() if text is not None}
    if ctx.invoked_subcommand is None:
        ctx.exit(_serve(config_file, flags))
    if ctx.invoked_subcommand in TAKES:
        ctx.obj = config_file, flags
        given = [name for name in flags if name not in TAKES[ctx.invoked_subcommand]]
    else:
        given = ["--config"] if config_file else [*flags]
    if given:
        takes = " and ".join(("--config", *TAKES.get(ctx.invoked_subcommand, ())))
        only = f"only {takes}" if ctx.invoked_subcommand in TAKES else "none"
        raise click.UsageError(
            f"{given[0]} is for the broker; {ctx.invoked_subcommand} takes {only}"
        )


def _serve(config_file: Path | None, flags: Mapping[str, str | tuple[str, ...]]) -> int:
    """Run the broker until it stops; its exit status."""
    from amqpd.config.sources import load

    with told_configuration_errors():
        loaded = load(config_file, environ=os.environ, flags=flags)
        check_policies(loaded.config)

    from amqpd.server.logs import configure_logs
    from amqpd.server.run import serve

    configure_logs(loaded.config.log)
    return serve(loaded.config, loaded.sources)

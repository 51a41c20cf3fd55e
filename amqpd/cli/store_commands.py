"""`amqpd store`: check what a broker keeps on disk, and get it out."""

import errno
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import click

from amqpd.cli.errors import told_configuration_errors
from amqpd.config.sources import load
from amqpd.storage.check import Check
from amqpd.storage.directory import find_directory
from amqpd.storage.errors import StorageError
from amqpd.storage.export import Export, Selection
from amqpd.storage.told import some

Given = tuple[Path | None, Mapping[str, str | tuple[str, ...]]]
"""The --config and the flags given before `store`, as `amqpd.cli.main` leaves them."""

NOT_ALL: Final = 1
WRONG_USE: Final = 2


@click.group()
def store() -> None:
    """Check and export what a broker keeps on disk.

    Both only read, and may be used while the broker runs. DIR is the data directory; without it,
    the one that the broker would use: amqpd --config FILE store check
    """


@store.command()
@click.argument("directory", metavar="[DIR]", required=False)
@click.pass_obj
def check(given: Given, directory: str | None) -> None:
    """Check that all is as the broker wrote it.

    Status 0 if it is, 1 if something is damaged, 2 if there is nothing to check. On a large file it
    takes minutes; while the broker runs, its WAL grows meanwhile.
    """
    with _told_storage_errors():
        file = _find(given, directory)
        click.echo(f"checking {file}")
        found = Check(file, click.echo)
        found.run()
    if found.damaged:
        raise click.exceptions.Exit(NOT_ALL)


@store.command()
@click.argument("directory", metavar="[DIR]", required=False)
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE",
              help="Write to a new file instead of standard output.")  # fmt: skip
@click.option("--vhost", metavar="NAME", help="Only what is in this virtual host.")
@click.option("--queue", metavar="NAME", help="Only the messages of this queue.")
@click.option("--definitions-only", is_flag=True, help="No messages.")
@click.option("--no-payload", is_flag=True, help="Messages without their bodies.")
@click.pass_obj
def export(
    given: Given,
    directory: str | None,
    output: Path | None,
    vhost: str | None,
    queue: str | None,
    definitions_only: bool,
    no_payload: bool,
) -> None:
    """Print exchanges, queues, bindings and messages as lines of JSON.

    The first line is the definitions, as RabbitMQ can import them; then comes a line for each
    message, queue by queue and in order. Of a damaged file, all is printed that can be read.

    Status 0 if that is everything, 1 if something was left out, which is told on standard error, 2
    if there is nothing to export. While the broker runs, it is not all of one moment: a message
    that comes or goes meanwhile may be there or not.
    """
    selection = Selection(vhost, queue, definitions_only, not no_payload)
    with _told_storage_errors():
        file = _find(given, directory)
        exported = Export(file, selection, lambda text: click.echo(f"amqpd: {text}", err=True))
        with _opened(output) as stream:
            for line in exported.lines():
                stream.write(line)
            stream.flush()
    words = f"{some(exported.messages, 'message')} exported"
    if exported.damaged.count:
        words += f", {some(exported.damaged.count, 'thing')} damaged"
    if exported.left_out.count:
        words += f", {some(exported.left_out.count, 'thing')} left out"
    click.echo(words, err=True)
    if exported.left_out.count:
        raise click.exceptions.Exit(NOT_ALL)


def _find(given: Given, directory: str | None) -> Path:
    """The file in the directory that is named, or in that of the configuration."""
    config_file, flags = given
    if directory is not None:
        if config_file or flags:
            raise click.UsageError("DIR and --config or --data-dir: one of them is enough")
        return find_directory(directory, os.environ).file
    with told_configuration_errors():
        config = load(config_file, environ=os.environ, flags=flags).config
    return find_directory(config.storage.data_dir, os.environ).file


@contextmanager
def _opened(output: Path | None) -> Iterator[BinaryIO]:
    """Where the lines go; a file is new, for it would be a pity about some old ones."""
    try:
        if output is None:
            yield sys.stdout.buffer
            return
        with output.open("xb") as stream:
            yield stream
    except FileExistsError as error:
        raise click.UsageError(f"--output: {output} exists already") from error
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise  # who reads it has read enough
        click.echo(f"amqpd: cannot write {output or 'standard output'}: {error.strerror}", err=True)
        raise click.exceptions.Exit(NOT_ALL) from error


@contextmanager
def _told_storage_errors() -> Iterator[None]:
    """Turn a StorageError of the body into a line and exit status 2."""
    try:
        yield
    except StorageError as error:
        click.echo(f"amqpd: {error}", err=True)
        raise click.exceptions.Exit(WRONG_USE) from error

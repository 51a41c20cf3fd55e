"""The one line on standard output that says the broker is ready, for people and for scripts."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from amqpd.server.logs import wants_colour
from amqpd.version import VERSION


def ready_line(
    addresses: Sequence[str],
    *,
    kept: str,
    config_file: Path | None,
    pid: int,
    colour: bool = False,
) -> str:
    """The line, without its end.

    Args:
        addresses: URIs as clients may use them, in order.
        kept: where durable things are kept.
    """
    head = f"amqpd {VERSION} ready:"
    links = " ".join(addresses)
    tail = f"({kept}, config {config_file or 'none'}, pid {pid})"
    if colour:
        return f"\x1b[1;32m{head}\x1b[0m \x1b[1m{links}\x1b[0m \x1b[2m{tail}\x1b[0m"
    return f"{head} {links} {tail}"


def print_ready(
    addresses: Sequence[str],
    *,
    kept: str,
    config_file: Path | None,
    stream: TextIO | None = None,
) -> None:
    """Write the line to `stream` (standard output) at once; a closed stream is not an error."""
    stream = sys.stdout if stream is None else stream
    if stream is None:
        return
    line = ready_line(
        addresses,
        kept=kept,
        config_file=config_file,
        pid=os.getpid(),
        colour=wants_colour(stream, os.environ),
    )
    try:
        print(line, file=stream, flush=True)
    except (OSError, ValueError):
        return  # nobody reads it; the broker serves all the same

"""The command line of `amqpd bench`; what it needs is imported when it runs."""

import re
from typing import Any

import click

DEFAULT_URI = "amqp://guest:guest@127.0.0.1:5672/"
UNITS = {"": 1, "k": 1024, "m": 1024**2}
SIZE_BYTES_MAX = 512 * 1024**2


def to_bytes(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """A number of bytes: 100, 64k, 4M."""
    match = re.fullmatch(r"(\d{1,9})([km]?)", value, re.IGNORECASE)
    size = int(match[1]) * UNITS[match[2].lower()] if match else -1
    if not 0 <= size <= SIZE_BYTES_MAX:
        raise click.BadParameter(f"{value!r} is not a size such as 100, 64k or 4M (at most 512M)")
    return size


def to_arguments(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, Any]:
    """Queue arguments KEY=VALUE; whole numbers, true and false are sent as such."""
    arguments: dict[str, Any] = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{value!r} is not of the form KEY=VALUE")
        if text in ("true", "false"):
            arguments[key] = text == "true"
        else:
            arguments[key] = int(text) if re.fullmatch(r"-?\d{1,18}", text) else text
    return arguments


COUNT = click.IntRange(min=0)
POSITIVE = click.IntRange(min=1)
SECONDS = click.FloatRange(min=0)


@click.command(context_settings={"show_default": True})
@click.argument("uri", default=DEFAULT_URI)
@click.option("-x", "--producers", type=COUNT, default=1, help="Publishing connections.")
@click.option("-y", "--consumers", type=COUNT, default=1, help="Consuming connections.")
@click.option("--queues", type=POSITIVE, default=1, help="Queues, shared out to the connections.")
@click.option("-u", "--queue", default="", help="Name of the queue, or its start if several.")
@click.option("-s", "--size", default="100", callback=to_bytes, help="Message body: 100, 64k, 4M.")
@click.option("-q", "--prefetch", type=click.IntRange(0, 65535), default=500, help="0: no limit.")
@click.option("-a", "--auto-ack", is_flag=True, help="Consume without acks.")
@click.option("-A", "--multi-ack-every", type=POSITIVE, default=1, help="One ack for so many.")
@click.option("-c", "--confirm", type=COUNT, default=0, help="Confirm window; 0: no confirms.")
@click.option("-p", "--persistent", is_flag=True, help="Publish with delivery mode 2.")
@click.option("--durable", is_flag=True, help="Declare durable queues and a durable exchange.")
@click.option("--mandatory", is_flag=True, help="Count unroutable messages that come back.")
@click.option("-e", "--exchange", help="Publish to this exchange, declared unless amq.*.")
@click.option("-t", "--exchange-type", help="direct, fanout, topic, ...")
@click.option("-k", "--routing-key", "routing_keys", multiple=True, help="Repeat to take turns.")
@click.option("--binding-key", "binding_keys", multiple=True, help="Binds every queue; repeatable.")
@click.option(
    "--queue-arg",
    "queue_arguments",
    multiple=True,
    callback=to_arguments,
    help="x-max-length=1000, ...",
)
@click.option("-r", "--rate", type=SECONDS, default=0.0, help="Messages/s in all; 0: no limit.")
@click.option("-C", "--count", type=COUNT, default=0, help="Messages in all, instead of a time.")
@click.option("-z", "--duration", type=SECONDS, default=10.0, help="Seconds to measure.")
@click.option("--warm-up", type=SECONDS, default=1.0, help="Seconds before, not measured.")
@click.option("--predeclared", is_flag=True, help="Neither declare nor delete anything.")
@click.option("--keep", is_flag=True, help="Leave queues and exchange behind.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def bench(uri: str, as_json: bool, **options: Any) -> None:
    """Load a broker and measure it: any that speaks AMQP 0-9-1.

    URI is amqp://user:password@host:port/vhost. Without options: one producer, one consumer, one
    queue, 100 bytes, one ack a message, as fast as it goes.

    With --rate every message is one write and its latency is taken; otherwise writes hold up to
    64 KiB and the latency of the first message of each is taken. Several queues are shared out to
    producers and consumers; with --routing-key all producers use that key.

    Exit status: 0, 1 if the run failed, 2 for wrong usage, 130 if it was interrupted.
    """
    from amqpd.cli.bench.errors import BenchError
    from amqpd.cli.bench.main import run

    try:
        interrupted = run(uri, as_json, options)
    except BenchError as error:
        click.echo(f"amqpd bench: {error}", err=True)
        raise click.exceptions.Exit(1) from error
    if interrupted:
        raise click.exceptions.Exit(130)

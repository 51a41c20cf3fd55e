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
    """Arguments KEY=VALUE; whole numbers, true and false are sent as such."""
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


@click.command(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "show_default": True,
    }
)
@click.argument("uri", default=DEFAULT_URI)
@click.option(
    "-x", "--producers", type=COUNT, default=1, metavar="N", help="Publishing connections."
)
@click.option(
    "-y", "--consumers", type=COUNT, default=1, metavar="N", help="Consuming connections."
)
@click.option(
    "--queues", type=POSITIVE, default=1, metavar="N", help="Queues, shared out to the connections."
)
@click.option(
    "-u",
    "--queue",
    default="",
    metavar="NAME",
    show_default="a made-up one",
    help="Name of the queue; of several, its beginning.",
)
@click.option(
    "-s",
    "--size",
    default="100",
    callback=to_bytes,
    metavar="BYTES",
    help="Message body: 100, 64k, 4M.",
)
@click.option(
    "-q",
    "--prefetch",
    type=click.IntRange(0, 65535),
    default=500,
    metavar="N",
    help="Unacked messages for each consumer; 0: no limit.",
)
@click.option("-a", "--auto-ack", is_flag=True, help="Consume without acks.")
@click.option(
    "-A", "--multi-ack-every", type=POSITIVE, default=1, metavar="N", help="One ack for N messages."
)
@click.option(
    "-c",
    "--confirm",
    type=COUNT,
    default=0,
    metavar="WINDOW",
    help="Unconfirmed messages for each producer; 0: no confirms.",
)
@click.option("-p", "--persistent", is_flag=True, help="Publish with delivery mode 2.")
@click.option("--durable", is_flag=True, help="Declare queues and exchange durable.")
@click.option("--mandatory", is_flag=True, help="Have unroutable messages returned; count them.")
@click.option(
    "-e",
    "--exchange",
    metavar="NAME",
    show_default="the default exchange",
    help="Publish to this exchange. Declared unless its name begins with amq.",
)
@click.option(
    "-t",
    "--exchange-type",
    metavar="TYPE",
    show_default="direct",
    help="Type of the exchange to declare: direct, fanout, topic, headers.",
)
@click.option(
    "-k",
    "--routing-key",
    "routing_keys",
    multiple=True,
    metavar="KEY",
    show_default="the queue's name",
    help="Of all messages; several take turns.",
)
@click.option(
    "--binding-key",
    "binding_keys",
    multiple=True,
    metavar="KEY",
    show_default="the routing keys",
    help="Binds every queue to the exchange; may be repeated.",
)
@click.option(
    "--queue-arg",
    "queue_arguments",
    multiple=True,
    callback=to_arguments,
    metavar="KEY=VALUE",
    help="Argument of the queues, as x-max-length=1000.",
)
@click.option(
    "--consumer-arg",
    "consumer_arguments",
    multiple=True,
    callback=to_arguments,
    metavar="KEY=VALUE",
    help="Argument of the consumers, as x-stream-offset=first.",
)
@click.option(
    "-r",
    "--rate",
    type=SECONDS,
    default=0.0,
    metavar="N",
    show_default="no limit",
    help="Messages a second, of all producers together.",
)
@click.option(
    "-C",
    "--count",
    type=COUNT,
    default=0,
    metavar="N",
    show_default="no limit",
    help="Messages of all producers together, instead of a duration.",
)
@click.option(
    "-z", "--duration", type=SECONDS, default=10.0, metavar="SECONDS", help="How long to measure."
)
@click.option(
    "--warm-up",
    type=SECONDS,
    default=1.0,
    metavar="SECONDS",
    help="How long to run before measuring; not with --count.",
)
@click.option("--predeclared", is_flag=True, help="Neither declare nor delete anything.")
@click.option("--keep", is_flag=True, help="Leave queues and exchange behind.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")  # fmt: skip
def bench(uri: str, as_json: bool, **options: Any) -> None:
    """Measure any broker that speaks AMQP 0-9-1 under load.

    URI is amqp://user:password@host:port/vhost. Without options: one producer, one consumer, one
    queue, 100 bytes, one ack a message, as fast as it goes.

    Latency end to end is from the write of a message to the read that completed it, confirm latency
    from the write to the confirm. With --rate every message is a write of its own and is timed;
    without, writes hold up to 64 KiB, one message of each is timed, and what is measured is mostly
    how long messages wait in line.

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

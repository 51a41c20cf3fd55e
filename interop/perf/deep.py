"""Deep durable queues: what they cost to fill, to keep over a kill -9, and to drain."""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from brokers import Amqpd, Broker, RabbitMQ
from cases import DURABLE, Figure
from load import bench
from processes import PeakMemory, ProcessSession, peak_bytes
from rich.console import Console
from table import Values, as_table, reached

from amqpd.cli.bench.errors import BenchError
from amqpd.cli.bench.frames import CHANNEL
from amqpd.cli.bench.link import Link
from amqpd.cli.bench.uri import parse
from amqpd.wire.methods import Queue

QUEUE = "perf-deep"
WINDOW = 5_000
PREFETCH = 500
KEPT_OF_SHORT = 0.6
BOOT_S_MAX = 1.0
QUIET_S = 10.0
# A broker that is slower than this is not waited for.
LEAST_MESSAGES_PER_S = 4_000
BLOCK_BYTES = 512  # what st_blocks counts
MIB = 2**20


@dataclass(frozen=True)
class DeepQueue:
    """One queue to fill and to drain.

    Attributes:
        size: of a body, as `amqpd bench` takes it.
        killed: the broker is killed when the queue is full, and boots on what it has on disk.
    """

    name: str
    messages: int
    size: str
    peak_mib_max: float
    killed: bool = False


QUEUES = {
    queue.name: queue
    for queue in (
        DeepQueue("100k", 100_000, "100", 150, killed=True),
        DeepQueue("1m", 1_000_000, "100", 150, killed=True),
        DeepQueue("10m", 10_000_000, "100", 200),
        DeepQueue("200k", 200_000, "10k", 200),
    )
}


def figures_of(queue: DeepQueue) -> list[Figure]:
    """The rows of one queue, in the order of what happens to it."""

    def row(what: str, unit: str, goal: float | None = None, *, small: bool = False) -> Figure:
        return Figure(f"{queue.name}: {what}", "", unit, goal, small, absolute=True)

    peak = queue.peak_mib_max
    booting = [
        row("boot", "s", BOOT_S_MAX, small=True),
        row("boot, peak", "MiB", peak, small=True),
    ]
    return [
        row("short queue", "msg/s"),
        row("short queue, peak", "MiB"),
        row("fill", "msg/s"),
        row("fill, share", "of short", KEPT_OF_SHORT),
        row("fill, peak", "MiB", peak, small=True),
        row("filled, on disk", "MiB"),
        *(booting if queue.killed else []),
        row("filled, wrong count", "msg", 0, small=True),
        row("drain", "msg/s"),
        row("drain, share", "of short", KEPT_OF_SHORT),
        row("drain, peak", "MiB", peak, small=True),
        row("drained, wrong count", "msg", 0, small=True),
        row("drained, on disk", "MiB"),
        row("10 s later, on disk", "MiB"),
    ]


class Measurement:
    """One queue on one broker that has just been started.

    Attributes:
        values: figure name: value, of all that was measured before something went wrong.
    """

    def __init__(self, queue: DeepQueue, broker: Broker, say: Callable[[str], None]) -> None:
        self.values: dict[str, float] = {}
        self._queue = queue
        self._broker = broker
        self._say = say
        self._short_rate = 0.0

    def run(self, short_s: float) -> None:
        """All of it, from the short queue to the empty deep one.

        Raises:
            RuntimeError, BenchError: the broker does not go on.
        """
        self._short(short_s)
        self._fill()
        if self._queue.killed:
            self._kill_and_boot()
        ready = self._count()
        if ready:
            self._drain(ready)

    def _short(self, short_s: float) -> None:
        """The rate that the deep queue is held to: messages that are consumed as they come."""
        options = f"--confirm {WINDOW} --duration {short_s} --warm-up 1"
        rate = self._load("short queue", options, short_s + 60)["delivered"]["messages_per_s"]
        self._note("short queue", rate)
        self._short_rate = rate

    def _fill(self) -> None:
        queue = self._queue
        options = f"--queue {QUEUE} --keep --consumers 0 --confirm {WINDOW}"
        figures = self._load_deep("fill", options, queue.messages)
        rate = figures["confirmed"]["messages_per_s"]
        self._note("fill", rate)
        self._note("fill, share", rate / self._short_rate)

    def _kill_and_boot(self) -> None:
        """Right after the last confirm, which is when a promise is easiest to break."""
        self._say("kill -9, boot")
        self._broker.kill()
        self._note_disk("filled, on disk")
        self._broker.boot()
        self._note("boot", self._broker.start_s)
        self._note("boot, peak", sum(map(peak_bytes, self._processes.pids())) / MIB)

    def _count(self) -> int:
        """How many messages the broker says that it has."""
        if not self._queue.killed:
            self._note_disk("filled, on disk")
        try:
            ready = ready_messages(self._broker.uri)
        except BenchError as error:
            self._say(f"no queue: {error}")
            ready = 0
        self._note("filled, wrong count", abs(self._queue.messages - ready))
        return ready

    def _drain(self, ready: int) -> None:
        options = f"--queue {QUEUE} --keep --producers 0 --prefetch {PREFETCH}"
        figures = self._load_deep("drain", options, ready)
        rate = figures["delivered"]["messages_per_s"]
        self._note("drain", rate)
        self._note("drain, share", rate / self._short_rate)
        left = ready_messages(self._broker.uri)
        self._note("drained, wrong count", abs(figures["total"]["delivered"] - ready) + left)
        self._note_disk("drained, on disk")
        self._say("quiet")
        time.sleep(QUIET_S)
        self._note_disk("10 s later, on disk")

    def _load_deep(self, what: str, options: str, count: int) -> dict[str, Any]:
        return self._load(what, f"{options} --count {count}", 60 + count / LEAST_MESSAGES_PER_S)

    def _load(self, what: str, options: str, within_s: float) -> dict[str, Any]:
        """The figures of a run, whose peak is noted as that of `what`."""
        self._say(what)
        common = f"{DURABLE} --size {self._queue.size}"
        with PeakMemory(self._processes) as peak:
            figures = bench(self._broker.uri, f"{common} {options}", within_s)
        self._note(f"{what}, peak", peak.bytes / MIB)
        return figures

    @property
    def _processes(self) -> ProcessSession:
        assert self._broker.processes is not None
        return self._broker.processes

    def _note(self, what: str, value: float) -> None:
        self.values[f"{self._queue.name}: {what}"] = value

    def _note_disk(self, what: str) -> None:
        self._note(what, on_disk_bytes(self._broker.data_directory) / MIB)


def ready_messages(uri: str) -> int:
    """The messages of the deep queue that wait for a consumer.

    Raises:
        BenchError: there is no such queue.
    """
    link = Link.connect(parse(uri), "perf count")
    declared = link.call(CHANNEL, Queue.Declare(queue=QUEUE, passive=True), Queue.DeclareOk)
    link.close()
    assert declared is not None
    return declared.message_count or 0


def on_disk_bytes(directory: Path) -> int:
    """What a directory takes on the disk; 0 if there is none."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with suppress(FileNotFoundError):  # the broker deletes files as it likes
                total += os.lstat(os.path.join(folder, name)).st_blocks * BLOCK_BYTES
    return total


def measure(queue: DeepQueue, broker: Broker, short_s: float, console: Console) -> dict[str, float]:
    """What could be measured; why the rest could not is printed."""

    def say(text: str) -> None:
        console.print(f"{queue.name}, {broker.name}: {text}", markup=False, soft_wrap=True)

    measurement = Measurement(queue, broker, say)
    try:
        broker.start()
        measurement.run(short_s)
    except (RuntimeError, OSError, BenchError) as error:
        say(f"failed: {error}")
    finally:
        broker.stop()
    return measurement.values


def all_reached(figures: Sequence[Figure], values: Values) -> bool:
    """Whether amqpd reaches every goal; one that could not be measured is not reached."""
    return all(
        figure.goal is None or reached(figure, values.get(figure.name, {}), None)
        for figure in figures
    )


def to_queues(ctx: click.Context, param: click.Parameter, value: str) -> list[DeepQueue]:
    """The queues of a comma-separated list."""
    for name in value.split(","):
        if name not in QUEUES:
            raise click.BadParameter(f"no queue {name!r}; there are: {', '.join(QUEUES)}")
    return [QUEUES[name] for name in value.split(",")]


@click.command(context_settings={"show_default": True})
@click.option("--queues", callback=to_queues, default="1m,200k", metavar="A,B", help="Which.")
@click.option("--rabbitmq", is_flag=True, help="Fill and drain RabbitMQ as well.")
@click.option("--duration", type=float, default=5.0, help="Seconds of the short queue.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write values there.")
def main(queues: list[DeepQueue], rabbitmq: bool, duration: float, json_file: Path | None) -> None:
    """Fill and drain deep durable queues. Exit status 1 if amqpd misses a goal."""
    console = Console(stderr=True, highlight=False)
    values: Values = {}
    names = ["amqpd", "rabbitmq"] if rabbitmq else ["amqpd"]
    for queue in queues:
        for name in names:
            broker = Amqpd(name) if name == "amqpd" else RabbitMQ(name)
            for figure, value in measure(queue, broker, duration, console).items():
                values.setdefault(figure, {})[name] = [value]
    figures = [figure for queue in queues for figure in figures_of(queue)]
    baseline = "rabbitmq" if rabbitmq else None
    Console(width=None if sys.stdout.isatty() else 140).print(
        as_table(figures, values, names, baseline)
    )
    if json_file:
        json_file.write_text(json.dumps(values, indent=2) + "\n")
    sys.exit(not all_reached(figures, values))


if __name__ == "__main__":
    main()

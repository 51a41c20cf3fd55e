"""Messages that wait for a time: a million that expire into a dead letter exchange at once, and a
million delayed ones, each due at another time."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from select import select
from threading import Event, Thread

import click
from brokers import Amqpd, Broker, RabbitMQ
from cases import Figure
from deep import MIB, all_reached
from processes import PeakMemory
from rich.console import Console
from table import Values, as_table

from amqpd.cli.bench.errors import BenchError
from amqpd.cli.bench.frames import CHANNEL
from amqpd.cli.bench.link import Link
from amqpd.cli.bench.uri import parse
from amqpd.testing.client import publish_bytes
from amqpd.wire import frames
from amqpd.wire.constants import FRAME_BODY
from amqpd.wire.methods import Basic, Exchange, Queue

BATCH = 1000
SYNC = 50
DUE = b"d" * 20  # what stands for the time at which a message is due, and for its delay
DELAY_MS = 0x7ABCDEF1
PATIENCE_S = 300
PUBLISH_PER_S_LEAST = 12_000
DELAYED_PER_S = 5_000
LATE_S = 0.05  # a delayed message may be so much too late
BODY = b"x" * 100

EXPIRY = (
    Figure("expiry: into the dead letter queue", unit="msg/s", goal=3.0),
    Figure("expiry: longest wait for an answer", "", "ms", 20, small_is_good=True, absolute=True),
)
DELAYS = (
    Figure("delays: publishing", unit="msg/s"),
    Figure("delays: memory, all pending", "", "MiB", 200, small_is_good=True, absolute=True),
    Figure("delays: lateness p50", "", "ms", small_is_good=True),
    Figure("delays: lateness p99", "", "ms", small_is_good=True),
    Figure("delays: lateness, worst", "", "ms", 50, small_is_good=True, absolute=True),
    Figure("delays: wrong count", "", "msg", 0, small_is_good=True, absolute=True),
)


def count_of(link: Link, queue: str) -> int:
    told = link.call(CHANNEL, Queue.Declare(queue=queue, passive=True), Queue.DeclareOk)
    assert told is not None
    return told.message_count or 0


class Pings:
    """How long the broker takes to answer a client that asks little, at the longest."""

    def __init__(self, uri: str) -> None:
        self.worst_s = 0.0
        self._link = Link.connect(parse(uri), "perf ping")
        self._link.sock.settimeout(PATIENCE_S)
        self._over = Event()
        self._thread = Thread(target=self._run)

    def __enter__(self) -> "Pings":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self._link.close()

    def _run(self) -> None:
        while not self._over.wait(0.002):
            start = time.perf_counter()
            self._link.call(CHANNEL, Basic.Qos(prefetch_count=1), Basic.QosOk)
            self.worst_s = max(self.worst_s, time.perf_counter() - start)


def expire(broker: Broker, messages: int, say: Callable[[str], None]) -> dict[str, float]:
    """Publishes messages that all expire at one moment, and watches where they go."""
    link = Link.connect(parse(broker.uri), "perf expiry")
    link.sock.settimeout(PATIENCE_S)  # RabbitMQ does not answer while it expires messages
    link.call(CHANNEL, Queue.Declare(queue="dead"), Queue.DeclareOk)
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    link.call(CHANNEL, Queue.Declare(queue="q", arguments=arguments), Queue.DeclareOk)
    say("publishing what expires")
    end = time.monotonic() + messages / PUBLISH_PER_S_LEAST
    for _ in range(messages // BATCH):
        left_ms = max(1, round((end - time.monotonic()) * 1000))
        link.send(publish_bytes(BODY, routing_key="q", expiration=str(left_ms)) * BATCH)
    while count_of(link, "q") < messages and time.monotonic() < end:
        time.sleep(0.1)
    say("expiring")
    time.sleep(max(0.0, end - time.monotonic() - 0.5))
    with Pings(broker.uri) as pings:
        while (come := count_of(link, "dead")) < messages:
            if time.monotonic() - end > PATIENCE_S:
                raise RuntimeError(f"{come} of {messages} have come after {PATIENCE_S} s")
            time.sleep(0.01)
        rate = messages / (time.monotonic() - end)
    link.close()
    return {EXPIRY[0].name: rate, EXPIRY[1].name: pings.worst_s * 1000}


def delay(broker: Broker, messages: int, say: Callable[[str], None]) -> dict[str, float]:
    """Publishes messages that become due one after another, and reads them as they come."""
    link = Link.connect(parse(broker.uri), "perf delays")
    arguments = {"x-delayed-type": "fanout"}
    exchange = Exchange.Declare(
        exchange="late", exchange_type="x-delayed-message", durable=True, arguments=arguments
    )
    link.call(CHANNEL, exchange, Exchange.DeclareOk)
    link.call(CHANNEL, Queue.Declare(queue="q", durable=True), Queue.DeclareOk)
    link.call(CHANNEL, Queue.Bind(queue="q", exchange="late"), Queue.BindOk)
    say("publishing what waits")
    assert broker.processes is not None
    values: dict[str, float] = {}
    with PeakMemory(broker.processes) as peak:
        start = time.monotonic()
        base = start + 10 + messages / DELAYED_PER_S
        delayed = publish_bytes(
            DUE + BODY, exchange="late", headers={"x-delay": DELAY_MS}, delivery_mode=2
        )
        for first in range(0, messages, SYNC):
            data = b""
            for number in range(first, min(first + SYNC, messages)):
                due = base + number / DELAYED_PER_S
                delay_ms = int((due - time.monotonic()) * 1000)
                data += delayed.replace(DUE, b"%020.6f" % due).replace(
                    DELAY_MS.to_bytes(4, "big"), delay_ms.to_bytes(4, "big")
                )
            link.send(data)
            count_of(link, "q")  # a delay begins when the broker has the message
        values[DELAYS[0].name] = messages / (time.monotonic() - start)
        say("waiting, reading")
        late = receive_all(broker.uri, messages, base)
    values[DELAYS[1].name] = peak.bytes / MIB
    link.close()
    late.sort()
    values[DELAYS[2].name] = late[len(late) // 2] * 1000
    values[DELAYS[3].name] = late[len(late) * 99 // 100] * 1000
    values[DELAYS[4].name] = max(late[-1], -late[0]) * 1000
    values[DELAYS[5].name] = abs(messages - len(late))
    return values


def receive_all(uri: str, messages: int, base: float) -> list[float]:
    """By how much each message came too late, in seconds."""
    late: list[float] = []
    link = Link.connect(parse(uri), "perf reader")
    link.call(CHANNEL, Basic.Consume(queue="q", no_ack=True), Basic.ConsumeOk)
    data = link.start()
    end = base + messages / DELAYED_PER_S + 30
    while len(late) < messages and time.monotonic() < end:
        if select([link.sock], [], [], 0.1)[0]:
            data += link.sock.recv(262_144)
        now, offset = time.monotonic(), 0
        while (frame := frames.cut(data, offset, 0)) is not None:
            offset = frame.end
            if frame.type == FRAME_BODY:
                late.append(now - float(data[frame.start : offset - 1 - len(BODY)]))
        data = data[offset:]
    link.sock.setblocking(True)
    link.close()
    return late


CASES = {"expiry": (expire, EXPIRY), "delays": (delay, DELAYS)}


@click.command(context_settings={"show_default": True})
@click.option("--cases", default="expiry,delays", metavar="A,B", help="Which.")
@click.option("--messages", default=1_000_000, help="How many.")
@click.option("--rabbitmq", is_flag=True, help="RabbitMQ too; it has no delays without a plugin.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write values there.")
def main(cases: str, messages: int, rabbitmq: bool, json_file: Path | None) -> None:
    """Messages that expire and messages that are delayed. Exit status 1 if a goal is missed."""
    console = Console(stderr=True, highlight=False)
    values: Values = {}
    figures: list[Figure] = []
    for case in cases.split(","):
        measure, its_figures = CASES[case]
        figures += its_figures
        brokers: list[Broker] = [Amqpd("amqpd")]
        if rabbitmq and case == "expiry":
            brokers.append(RabbitMQ("rabbitmq"))
        for broker in brokers:
            say = _sayer(console, case, broker.name)
            try:
                broker.start()
                for name, value in measure(broker, messages, say).items():
                    values.setdefault(name, {})[broker.name] = [value]
            except (RuntimeError, OSError, BenchError) as error:
                say(f"failed: {error}")
            finally:
                broker.stop()
    names = ["amqpd", "rabbitmq"] if rabbitmq else ["amqpd"]
    baseline = "rabbitmq" if rabbitmq else None
    Console(width=None if sys.stdout.isatty() else 140).print(
        as_table(figures, values, names, baseline)
    )
    if json_file:
        json_file.write_text(json.dumps(values, indent=2) + "\n")
    sys.exit(not all_reached([each for each in figures if each.absolute], values))


def _sayer(console: Console, case: str, name: str) -> Callable[[str], None]:
    return lambda text: console.print(f"{case}, {name}: {text}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()

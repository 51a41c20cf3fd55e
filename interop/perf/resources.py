"""What a broker costs beside messages: to start, to keep idle connections, to declare queues.

Each round starts the broker afresh, because memory that was used once is seldom given back.
"""

import time
from collections.abc import Callable
from statistics import median

import pika
from brokers import Broker
from cases import (
    CONNECTION,
    CROWDED,
    CROWDED_CPU,
    DECLARE,
    DURABLE_DECLARE,
    IDLE_MEMORY,
    PIPELINED_DECLARE,
    START,
)
from load import bench
from processes import ProcessSession

from amqpd.cli.bench.frames import CHANNEL
from amqpd.cli.bench.link import Link
from amqpd.cli.bench.uri import parse
from amqpd.wire.methods import Queue, encode_method

CONNECTIONS = 1_000
QUEUES = 10_000
SETTLE_S = 2.0
PIPELINE_S_MAX = 120.0
LOAD_PAIRS = 5
LOAD = "--duration 2 --warm-up 0.5"


def measure(broker: Broker) -> dict[str, float]:
    """Starts brokers like this one, measures, stops them; figure name: value."""
    values = measure_crowded(broker.fresh(), broker.fresh())
    values |= {DURABLE_DECLARE.name: time_on(broker.fresh(), declare_durable)}
    values |= {PIPELINED_DECLARE.name: time_on(broker.fresh(), declare_pipelined)}
    return values


def measure_crowded(crowded: Broker, empty: Broker) -> dict[str, float]:
    """Everything about one that gets connections and transient queues."""
    try:
        crowded.start()
        values = {START.name: crowded.start_s} | footprint(crowded)
        links = idle_connections(crowded)
        values[DECLARE.name] = declare_transient(crowded.uri)
        crowded.pause()
        empty.start()
        empty.pause()
        values |= compare(crowded, empty)
        close(links)
        return values
    finally:
        crowded.stop()
        empty.stop()


def time_on(broker: Broker, declare: Callable[[str], float]) -> float:
    """What `declare` says of a broker that has just been started."""
    try:
        broker.start()
        return declare(broker.uri)
    finally:
        broker.stop()


def footprint(broker: Broker) -> dict[str, float]:
    """Memory of the broker as it has started, and what idle connections add to it."""
    processes = processes_of(broker)
    time.sleep(SETTLE_S)
    idle_bytes = processes.memory_bytes()
    links = idle_connections(broker)
    time.sleep(SETTLE_S)
    added_bytes = processes.memory_bytes() - idle_bytes
    close(links)
    return {
        IDLE_MEMORY.name: idle_bytes / 2**20,
        CONNECTION.name: added_bytes / CONNECTIONS / 2**10,
    }


def compare(crowded: Broker, empty: Broker) -> dict[str, float]:
    """`transient-ack` on both by turns, so that what else the machine does meets both alike."""
    rates: dict[Broker, list[float]] = {crowded: [], empty: []}
    costs_s: dict[Broker, list[float]] = {crowded: [], empty: []}
    for number in range(2 * LOAD_PAIRS):
        broker = (crowded, empty)[number % 2]
        processes = processes_of(broker)
        broker.resume()
        before_s = processes.cpu_s()
        figures = bench(broker.uri, LOAD)
        costs_s[broker].append((processes.cpu_s() - before_s) / figures["total"]["delivered"])
        rates[broker].append(figures["delivered"]["messages_per_s"])
        broker.pause()
    crowded.resume()
    return {
        CROWDED.name: median(rates[crowded]) / median(rates[empty]),
        CROWDED_CPU.name: median(costs_s[crowded]) / median(costs_s[empty]),
    }


def processes_of(broker: Broker) -> ProcessSession:
    """The processes of a broker that was started here."""
    assert broker.processes is not None
    return broker.processes


def idle_connections(broker: Broker) -> list[Link]:
    """1,000 connections with one channel each."""
    return [Link.connect(parse(broker.uri), f"idle {number}") for number in range(CONNECTIONS)]


def close(links: list[Link]) -> None:
    """Closes connections without ceremony."""
    for link in links:
        link.sock.close()


def declare_transient(uri: str) -> float:
    """Declares 10,000 transient queues one after another; how long it took, in seconds."""
    return declare_in_turn(uri, durable=False)


def declare_durable(uri: str) -> float:
    """The same with durable ones."""
    return declare_in_turn(uri, durable=True)


def declare_in_turn(uri: str, *, durable: bool) -> float:
    """Each declaration waits for the answer to the one before."""
    connection = pika.BlockingConnection(pika.URLParameters(uri + "%2F"))
    channel = connection.channel()
    begun = time.monotonic()
    for number in range(QUEUES):
        channel.queue_declare(f"crowd-{number:05}", durable=durable)
    took_s = time.monotonic() - begun
    connection.close()
    return took_s


def declare_pipelined(uri: str) -> float:
    """10,000 durable queues with nowait, the last one without: its answer stands for all."""
    *before, last = (Queue.Declare(queue=f"crowd-{n:05}", durable=True) for n in range(QUEUES))
    for method in before:
        method.nowait = True
    data = b"".join(encode_method(CHANNEL, method) for method in before)
    link = Link.connect(parse(uri), "pipelined declares")
    link.sock.settimeout(PIPELINE_S_MAX)
    begun = time.monotonic()
    link.send(data)
    # Durable as well, so that a promise is waited for and not only a turn on the channel.
    link.call(CHANNEL, last, Queue.DeclareOk)
    took_s = time.monotonic() - begun
    link.close()
    return took_s

"""What a broker costs beside messages: to start, to keep idle connections, to declare queues.

Each round starts the broker afresh, because memory that was used once is seldom given back.
"""

import statistics
import time

import pika
from brokers import Broker
from cases import CONNECTION, CROWDED, CROWDED_CPU, DECLARE, IDLE_MEMORY, START
from load import bench
from processes import ProcessSession

from amqpd.cli.bench.link import Link
from amqpd.cli.bench.uri import parse

CONNECTIONS = 1_000
QUEUES = 10_000
SETTLE_S = 2.0
LOAD_RUNS = 3
LOAD = "--duration 3 --warm-up 1"


def measure(broker: Broker) -> dict[str, float]:
    """Starts the broker, measures, stops it; figure name: value."""
    broker.start()
    try:
        return {START.name: broker.start_s} | _running(broker)
    finally:
        broker.stop()


def _running(broker: Broker) -> dict[str, float]:
    processes = broker.processes
    assert processes is not None
    time.sleep(SETTLE_S)
    idle_bytes = processes.memory_bytes()
    links = idle_connections(broker)
    time.sleep(SETTLE_S)
    with_connections_bytes = processes.memory_bytes()
    close(links)
    time.sleep(SETTLE_S)
    empty_rate, empty_cpu_s = load(broker.uri, processes)
    links = idle_connections(broker)
    declare_s = declare_queues(broker.uri)
    crowded_rate, crowded_cpu_s = load(broker.uri, processes)
    close(links)
    return {
        IDLE_MEMORY.name: idle_bytes / 2**20,
        CONNECTION.name: (with_connections_bytes - idle_bytes) / CONNECTIONS / 2**10,
        DECLARE.name: declare_s,
        CROWDED.name: crowded_rate / empty_rate,
        CROWDED_CPU.name: crowded_cpu_s / empty_cpu_s,
    }


def idle_connections(broker: Broker) -> list[Link]:
    """1,000 connections with one channel each."""
    return [Link.connect(parse(broker.uri), f"idle {number}") for number in range(CONNECTIONS)]


def close(links: list[Link]) -> None:
    """Closes connections without ceremony."""
    for link in links:
        link.sock.close()


def load(uri: str, processes: ProcessSession) -> tuple[float, float]:
    """`transient-ack`: messages per second, and the broker's processor seconds per message.

    Each is the median of a few runs.
    """
    rates, costs_s = [], []
    for _ in range(LOAD_RUNS):
        before_s = processes.cpu_s()
        figures = bench(uri, LOAD)
        rates.append(figures["delivered"]["messages_per_s"])
        costs_s.append((processes.cpu_s() - before_s) / figures["total"]["delivered"])
    return statistics.median(rates), statistics.median(costs_s)


def declare_queues(uri: str) -> float:
    """Declares 10,000 transient queues one after another; returns how long it took, in seconds."""
    connection = pika.BlockingConnection(pika.URLParameters(uri + "%2F"))
    channel = connection.channel()
    begun = time.monotonic()
    for number in range(QUEUES):
        channel.queue_declare(f"crowd-{number:05}")
    took_s = time.monotonic() - begun
    connection.close()
    return took_s

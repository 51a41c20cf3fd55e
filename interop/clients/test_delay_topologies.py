"""Delay topologies that .NET frameworks declare, by hand: exchanges, queues and bindings as they
have them, so that applications on them find what they expect."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

Name = Callable[[str], str]
LEVELS = 28
WITHIN_S = 15.0


@pytest.fixture
def channel(uri: str) -> Iterator[BlockingChannel]:
    with pika.BlockingConnection(pika.URLParameters(uri)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        yield channel


def next_of(channel: BlockingChannel, queue: str) -> tuple[Any, Any, bytes]:
    """The next message of a queue, when it comes."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        found = channel.basic_get(queue, auto_ack=True)
        if found[0] is not None:
            return found
        channel.connection.process_data_events(0.01)
    raise TimeoutError(f"nothing came into {queue}")


# --- NServiceBus: a level for each bit of the delay -----------------------------------------------


def declare_levels(channel: BlockingChannel, name: Name) -> None:
    """28 levels: a message that has the bit of a level in its routing key waits 2**level seconds
    there, and goes on to the next level; the last one leads to the delivery exchange."""
    for level in reversed(range(LEVELS)):
        here = name(f"delay-level-{level:02}")
        following = name(f"delay-level-{level - 1:02}") if level else name("delay-delivery")
        channel.exchange_declare(here, "topic", durable=True)
        channel.queue_declare(
            here,
            durable=True,
            arguments={
                "x-queue-type": "quorum",
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
                "x-message-ttl": 1000 * 2**level,
                "x-dead-letter-exchange": following,
            },
        )
    channel.exchange_declare(name("delay-delivery"), "topic", durable=True)
    for level in range(LEVELS):
        here = name(f"delay-level-{level:02}")
        following = name(f"delay-level-{level - 1:02}") if level else name("delay-delivery")
        before = "*." * (LEVELS - 1 - level)
        channel.queue_bind(here, here, f"{before}1.#")
        channel.exchange_bind(following, here, f"{before}0.#")


def bits(seconds: int) -> str:
    return ".".join(format(seconds, f"0{LEVELS}b"))


def test_a_delay_is_the_sum_of_its_levels(channel: BlockingChannel, name: Name) -> None:
    declare_levels(channel, name)
    endpoint = name("endpoint")
    channel.exchange_declare(endpoint, "fanout", durable=True)
    channel.queue_declare(endpoint, durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_bind(endpoint, endpoint)
    channel.exchange_bind(endpoint, name("delay-delivery"), f"#.{endpoint}")
    begun = time.monotonic()
    for seconds in (3, 0, 1):
        channel.basic_publish(
            name(f"delay-level-{LEVELS - 1:02}"),
            f"{bits(seconds)}.{endpoint}",
            str(seconds).encode(),
            pika.BasicProperties(delivery_mode=2),
            mandatory=True,
        )
    for seconds in (0, 1, 3):
        _, properties, body = next_of(channel, endpoint)
        assert int(body) == seconds
        assert time.monotonic() - begun >= seconds - 0.01
        deaths = (properties.headers or {}).get("x-death", [])
        assert len(deaths) == format(seconds, "b").count("1")


# --- MassTransit: a delayed exchange in front of the endpoint's ----------------------------------


def test_a_scheduled_message_comes_through_the_delayed_exchange(
    channel: BlockingChannel, name: Name
) -> None:
    message, endpoint, delay = name("Contracts:Order"), name("order-service"), name("order_delay")
    channel.exchange_declare(message, "fanout", durable=True)
    channel.exchange_declare(endpoint, "fanout", durable=True)
    channel.exchange_bind(endpoint, message)
    channel.queue_declare(endpoint, durable=True, arguments={"x-consumer-timeout": 60_000})
    channel.queue_bind(endpoint, endpoint)
    for suffix in ("_error", "_skipped"):
        channel.exchange_declare(name(f"order-service{suffix}"), "fanout", durable=True)
        channel.queue_declare(name(f"order-service{suffix}"), durable=True)
        channel.queue_bind(name(f"order-service{suffix}"), name(f"order-service{suffix}"))
    channel.exchange_declare(
        delay, "x-delayed-message", durable=True, arguments={"x-delayed-type": "fanout"}
    )
    channel.exchange_bind(endpoint, delay)
    begun = time.monotonic()
    properties = pika.BasicProperties(delivery_mode=2, headers={"x-delay": 700})
    channel.basic_publish(delay, "", b"later", properties)
    channel.basic_publish(message, "", b"now", pika.BasicProperties(delivery_mode=2))
    assert next_of(channel, endpoint)[2] == b"now"
    assert next_of(channel, endpoint)[2] == b"later"
    assert time.monotonic() - begun >= 0.69
    channel.basic_publish(name("order-service_error"), "", b"failed")
    assert next_of(channel, name("order-service_error"))[2] == b"failed"

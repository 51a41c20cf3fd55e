"""What a message costs: Python-level calls, counted while 1,000 messages pass.

Calls may grow with reads, queues and commits; with messages they may not.
"""

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from amqpd.testing.client import Client, publish_bytes
from amqpd.testing.harness import Harness
from amqpd.wire.methods import Basic, Confirm, Queue, encode_method

MESSAGES = 1000
CALLS_PER_MESSAGE_MAX = 0.05


def calls_of(action: Callable[[], Any]) -> int:
    """How many Python functions are entered while the action runs."""
    count = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    gc.disable()  # whoever wants to know of collections is called then
    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


def clients(count: int, **declare: Any) -> list[Client]:
    """Clients of one broker that has a queue `q`, to which each has published before."""
    harness = Harness()
    made = [Client(harness) for _ in range(count)]
    made[0].ask(Queue.Declare(queue="q", **declare))
    for client in made:
        client.publish(b"12345", routing_key="q")
    made[0].ask(Queue.Purge(queue="q"))
    return made


def publishes(**properties: Any) -> bytes:
    return b"".join(
        publish_bytes(b"%05d" % number, routing_key="q", **properties) for number in range(MESSAGES)
    )


def assert_cheap(calls: int, steps: int = 1) -> None:
    """Not more calls than `steps` (publish, expiry, confirm, deliver, ack) may have."""
    limit = MESSAGES * CALLS_PER_MESSAGE_MAX * steps
    assert calls <= limit, f"{calls} calls for {MESSAGES} messages"


def test_a_publish_into_a_queue_costs_no_call() -> None:
    (client,) = clients(1)
    data = publishes()
    assert_cheap(calls_of(lambda: client.send(data)))
    assert client.ask(Queue.Declare(queue="q", passive=True)).method.message_count == MESSAGES


def test_a_confirmed_persistent_publish_into_a_durable_queue_costs_no_call() -> None:
    (client,) = clients(1, durable=True)
    client.ask(Confirm.Select())
    data = publishes(delivery_mode=2)
    assert_cheap(calls_of(lambda: client.send(data)), steps=2)
    (told,) = client.heard()
    assert (told.method.delivery_tag, told.method.multiple) == (MESSAGES, True)


def test_a_publish_with_an_expiration_costs_no_call() -> None:
    (client,) = clients(1)
    data = publishes(expiration="60000")
    assert_cheap(calls_of(lambda: client.send(data)), steps=2)
    client.harness.wait(60)
    assert client.ask(Queue.Declare(queue="q", passive=True)).method.message_count == 0


def test_publishes_to_other_queues_cost_a_few_calls_for_each_change() -> None:
    (client,) = clients(1)
    names = ["q", "q2", "q3", "q4"]
    for name in names:
        client.ask(Queue.Declare(queue=name))
    for name in names:
        client.publish(b"12345", routing_key=name)
    runs = 100
    data = b"".join(
        publish_bytes(b"%05d" % number, routing_key=names[run % 4])
        for run in range(runs)
        for number in range(10)
    )
    calls = calls_of(lambda: client.send(data))
    assert calls <= MESSAGES * CALLS_PER_MESSAGE_MAX + 4 * runs, f"{calls} calls"


@pytest.mark.parametrize("no_ack", [True, False], ids=["auto-ack", "ack"])
def test_a_delivery_costs_no_call(no_ack: bool) -> None:
    publisher, consumer = clients(2)
    publisher.send(publishes())
    data = encode_method(1, Basic.Consume(queue="q", no_ack=no_ack, consumer_tag="c"))
    empty = encode_method(1, Basic.Consume(queue="empty", no_ack=no_ack))
    consumer.ask(Queue.Declare(queue="empty"))
    consuming = calls_of(lambda: consumer.send(empty))  # decoding and the rest
    assert_cheap(calls_of(lambda: consumer.send(data)) - consuming)
    assert len(consumer.bodies()) == MESSAGES


@pytest.mark.parametrize("no_ack", [True, False], ids=["auto-ack", "ack"])
def test_a_message_that_passes_through_at_once_costs_no_call(no_ack: bool) -> None:
    publisher, consumer = clients(2)
    consumer.ask(Basic.Consume(queue="q", no_ack=no_ack))
    data = publishes()
    assert_cheap(calls_of(lambda: publisher.send(data)), steps=2)
    assert len(consumer.bodies()) == MESSAGES


def test_deliveries_dealt_to_eight_consumers_cost_no_call() -> None:
    publisher, *consumers = clients(9)
    for consumer in consumers:
        consumer.ask(Basic.Consume(queue="q", no_ack=True))
    data = publishes()
    calls = calls_of(lambda: publisher.send(data))
    assert calls <= MESSAGES * 0.2, f"{calls} calls"
    assert [len(consumer.bodies()) for consumer in consumers] == [MESSAGES // 8] * 8


def test_a_single_ack_costs_no_call() -> None:
    publisher, consumer = clients(2)
    consumer.ask(Basic.Consume(queue="q"))
    publisher.send(publishes())
    tags = [
        told.method.delivery_tag
        for told in consumer.heard()
        if isinstance(told.method, Basic.Deliver)
    ]
    data = b"".join(encode_method(1, Basic.Ack(delivery_tag=tag)) for tag in tags)
    assert len(tags) == MESSAGES
    assert_cheap(calls_of(lambda: consumer.send(data)))
    assert consumer.session.channels[1].unacked.by_tag == {}


def test_a_single_ack_of_a_persistent_message_costs_no_call() -> None:
    publisher, consumer = clients(2, durable=True)
    consumer.ask(Basic.Consume(queue="q"))
    publisher.send(publishes(delivery_mode=2))
    tags = [told.method.delivery_tag for told in consumer.heard() if told.body]
    data = b"".join(encode_method(1, Basic.Ack(delivery_tag=tag)) for tag in tags)
    assert_cheap(calls_of(lambda: consumer.send(data)))
    publisher.harness.commit()
    assert publisher.harness.store.messages == {1: {}}

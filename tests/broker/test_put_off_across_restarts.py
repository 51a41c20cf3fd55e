"""What queues put off is there after a crash: letters that are kept, and delayed retries."""

from typing import Any

import pytest

from amqpd.testing.client import Client
from amqpd.testing.harness import Harness
from amqpd.wire.methods import Basic, Queue

KEEPS = {
    "x-queue-type": "quorum",
    "x-overflow": "reject-publish",
    "x-dead-letter-strategy": "at-least-once",
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": "dead",
}


def restarted(harness: Harness) -> Harness:
    harness.wait(1)
    return Harness(store=harness.store, epoch=harness.core.broker.epoch + harness.now)


def get(harness: Harness, queue: str, *, no_ack: bool = True) -> Any:
    return Client(harness).ask(Basic.Get(queue=queue, no_ack=no_ack))


def test_letters_that_have_not_arrived_arrive_after_a_crash() -> None:
    harness = Harness()
    client = Client(harness)
    client.ask(Queue.Declare(queue="q", durable=True, arguments=KEEPS))
    for body in (b"1", b"2"):
        client.publish(body, routing_key="q")
        told = client.ask(Basic.Get(queue="q"))
        client.tell(Basic.Reject(delivery_tag=told.method.delivery_tag, requeue=False))
    again = restarted(harness)
    assert isinstance(get(again, "q").method, Basic.GetEmpty)
    Client(again).ask(Queue.Declare(queue="dead", durable=True))
    again.wait(6)
    first, second = get(again, "dead"), get(again, "dead")
    assert [first.body, second.body] == [b"1", b"2"]
    assert first.properties.headers["x-death"][0]["reason"] == "rejected"


def test_letters_that_have_not_arrived_go_with_their_queue() -> None:
    harness = Harness()
    client = Client(harness)
    client.ask(Queue.Declare(queue="q", durable=True, arguments=KEEPS | {"x-message-ttl": 0}))
    client.publish(b"1", routing_key="q")
    client.ask(Queue.Delete(queue="q"))
    harness.wait(1)
    assert not any(harness.store.messages.values())
    assert restarted(harness).core.broker.lines == {}


@pytest.mark.parametrize("crashes", [False, True])
def test_a_delayed_retry_knows_after_a_crash_how_often_it_was_tried(crashes: bool) -> None:
    harness = Harness()
    arguments = {"x-queue-type": "quorum", "x-delayed-retry-type": "all", "x-delivery-limit": 3}
    Client(harness).ask(Queue.Declare(queue="q", durable=True, arguments=arguments))
    Client(harness).publish(b"1", routing_key="q")
    for times in range(4):
        client = Client(harness)
        told = client.ask(Basic.Get(queue="q"))
        assert (told.properties.headers or {}).get("x-delivery-count", 0) == times
        client.tell(Basic.Reject(delivery_tag=told.method.delivery_tag, requeue=True))
        if crashes:
            harness = restarted(harness)
        harness.wait(times + 1)
    harness.wait(10)
    assert isinstance(get(harness, "q").method, Basic.GetEmpty), "it has reached its limit"

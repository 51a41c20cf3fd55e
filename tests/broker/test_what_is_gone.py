"""What is deleted or has left is not held on to, and does not hold others up."""

from typing import Any

from amqpd.broker.policies import policy
from amqpd.testing.client import Client
from amqpd.testing.harness import Harness
from amqpd.wire.methods import Basic, Queue


def bodies(client: Client) -> list[bytes]:
    return [each.body for each in client.heard() if isinstance(each.method, Basic.Deliver)]


def consume(harness: Harness, prefetch: int, arguments: dict[str, Any]) -> Client:
    client = Client(harness)
    client.ask(Basic.Qos(prefetch_count=prefetch))
    client.tell(Basic.Consume(queue="q", consumer_tag="c", arguments=arguments))
    return client


def test_no_timer_is_left_of_a_queue_that_was_deleted() -> None:
    harness = Harness()
    client = Client(harness)
    before = harness.core.broker.deadlines.next()
    arguments = {"x-message-ttl": 86_400_000, "x-expires": 86_400_000}
    client.ask(Queue.Declare(queue="q", arguments=arguments))
    client.publish(b"a", routing_key="q")
    client.ask(Queue.Delete(queue="q"))
    assert harness.core.broker.deadlines.next() == before


def test_no_timer_is_left_of_a_slow_consumer_that_has_gone() -> None:
    harness = Harness()
    client = Client(harness)
    before = harness.core.broker.deadlines.next()
    client.ask(Queue.Declare(queue="q"))
    for body in (b"1", b"2"):
        client.publish(body, routing_key="q")
    consumer = consume(harness, 1000, {"x-max-rate": 0.0001})
    assert bodies(consumer) == [b"1"]
    consumer.ask(Basic.Cancel(consumer_tag="c"))
    consumer.link.close()
    assert harness.core.broker.deadlines.next() == before


def test_an_active_consumer_goes_on_when_the_one_that_it_gave_way_to_has_gone() -> None:
    harness = Harness()
    client = Client(harness)
    arguments = {"x-queue-type": "quorum", "x-single-active-consumer": True}
    client.ask(Queue.Declare(queue="q", durable=True, arguments=arguments))
    client.publish(b"1", routing_key="q")
    first = consume(harness, 10, {})
    assert bodies(first) == [b"1"]
    second = consume(harness, 10, {"x-priority": 5})
    client.publish(b"2", routing_key="q")
    assert bodies(first) == []
    second.ask(Basic.Cancel(consumer_tag="c"))
    assert bodies(first) == [b"2"]


def test_a_message_that_was_unacknowledged_when_a_ttl_came_expires_by_the_time_it_has() -> None:
    harness = Harness()
    client = Client(harness)
    client.ask(Queue.Declare(queue="q"))
    client.publish(b"1", routing_key="q")
    tag = client.ask(Basic.Get(queue="q")).method.delivery_tag
    vhost = harness.core.broker.vhosts["/"]
    vhost.set_policy(policy("p", "q", {"message-ttl": 1000}))
    client.publish(b"2", routing_key="q")
    client.tell(Basic.Reject(delivery_tag=tag, requeue=True))
    harness.wait(10)
    assert bodies(consume(harness, 10, {})) == [b"1"]  # what came before the TTL has none

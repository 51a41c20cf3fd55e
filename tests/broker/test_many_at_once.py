"""Many messages that leave a queue by themselves at one moment: none of them is delivered, and what
becomes of them does not pile up in memory while the disk is slow."""

from typing import Any

import pytest

from amqpd.broker.policies import policy
from amqpd.broker.queues.losses import STEP_MESSAGES
from amqpd.config import Config
from amqpd.config.settings import Limits
from amqpd.testing.client import Client, publish_bytes
from amqpd.testing.harness import Harness
from amqpd.wire.methods import Basic, Exchange, Queue, encode_method

COUNT = 3000
LIMIT = 65_536
BODY = b"x" * 1000
NARROW = Config(limits=Limits(uncommitted_bytes_max=LIMIT))
DEAD = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}


def fill(client: Client, count: int = COUNT, body: bytes = b"", **properties: Any) -> None:
    for _ in range(count // 100):
        client.send(publish_bytes(body, routing_key="q", **properties) * 100)


def count_of(client: Client, queue: str) -> int:
    return int(client.ask(Queue.Declare(queue=queue, passive=True)).method.message_count)


def test_basic_get_answers_nothing_that_has_expired_however_much_that_is() -> None:
    harness = Harness()
    client = Client(harness)
    client.ask(Queue.Declare(queue="q", arguments={"x-message-ttl": 1000}))
    fill(client)
    harness.now += 2  # the client is faster than the timer
    assert isinstance(client.ask(Basic.Get(queue="q")).method, Basic.GetEmpty)


def test_a_ttl_that_becomes_shorter_holds_behind_messages_that_live_longer() -> None:
    harness = Harness()
    client = Client(harness)
    client.ask(Queue.Declare(queue="q", arguments={"x-message-ttl": 10_000}))
    client.publish(b"long", routing_key="q")
    made = policy("p", "q", {"message-ttl": 1000})
    harness.core.broker.vhosts["/"].set_policy(made)
    client.publish(b"short", routing_key="q")
    harness.wait(2)
    client.tell(Basic.Consume(queue="q", no_ack=True))
    told = [each.body for each in client.heard() if isinstance(each.method, Basic.Deliver)]
    assert told == [b"long"]


@pytest.mark.parametrize("consumers", [1, 2])
def test_consumers_get_what_comes_behind_more_expired_messages_than_one_turn_drops(
    consumers: int,
) -> None:
    harness = Harness()
    client = Client(harness)
    client.ask(Queue.Declare(queue="q"))
    client.publish(b"before", routing_key="q")
    fill(client, body=b"over", expiration="1000")
    client.publish(b"behind", routing_key="q")
    harness.wait(2)
    for _ in range(consumers):
        client.tell(Basic.Consume(queue="q", no_ack=True))
    harness.wait(1)
    for _ in range(2):
        client.publish(b"new", routing_key="q")
    told = [each.body for each in client.heard() if isinstance(each.method, Basic.Deliver)]
    assert told == [b"before", b"behind", b"new", b"new"]


@pytest.mark.parametrize("arguments", [{"x-message-ttl": 1000}, {"x-max-length": 3000}])
def test_dead_letters_wait_for_a_slow_disk(arguments: dict[str, Any]) -> None:
    harness = Harness(NARROW)
    client = Client(harness)
    client.ask(Queue.Declare(queue="dead", durable=True))
    client.ask(Queue.Declare(queue="q", durable=True, arguments={**arguments, **DEAD}))
    fill(client, body=BODY, delivery_mode=2)
    harness.commits = False
    made = policy("p", "^q$", {"max-length": 0})
    harness.core.broker.vhosts["/"].set_policy(made)
    harness.core.tick(harness.now)
    harness.wait(2)
    one_step = STEP_MESSAGES * (len(BODY) + 205)
    assert harness.core.broker.journal.uncommitted_bytes <= LIMIT + one_step
    harness.commits = True
    harness.commit()
    harness.wait(10)
    assert (count_of(client, "q"), count_of(client, "dead")) == (0, COUNT)


def test_what_has_waited_waits_for_a_slow_disk_too() -> None:
    harness = Harness(NARROW)
    client = Client(harness)
    delayed = Exchange.Declare(
        exchange="x",
        exchange_type="x-delayed-message",
        durable=True,
        arguments={"x-delayed-type": "fanout"},
    )
    client.ask(delayed)
    client.ask(Queue.Declare(queue="q", durable=True))
    client.ask(Queue.Bind(queue="q", exchange="x"))
    for _ in range(COUNT // 100):
        client.send(
            publish_bytes(BODY, exchange="x", headers={"x-delay": 1000}, delivery_mode=2) * 100
        )
    harness.commits = False
    harness.wait(2)
    one_step = 512 * (len(BODY) + 205)
    assert harness.core.broker.journal.uncommitted_bytes <= LIMIT + one_step
    harness.commits = True
    harness.commit()
    harness.wait(10)
    assert count_of(client, "q") == COUNT


@pytest.mark.parametrize("retry", [{}, {"x-retry-max": 1, "x-retry-min-delay": 10, **DEAD}])
def test_many_messages_that_are_rejected_at_once_go_in_steps(retry: dict[str, Any]) -> None:
    harness = Harness()
    client = Client(harness)
    client.ask(Queue.Declare(queue="dead", durable=True))
    client.ask(Queue.Declare(queue="q", durable=True, arguments={**DEAD, **retry}))
    client.tell(Basic.Consume(queue="q", consumer_tag="c"))
    fill(client, delivery_mode=2)
    queue = harness.core.broker.vhosts["/"].queues["q"]
    client.ask(Basic.Cancel(consumer_tag="c"))
    client.tell(Basic.Nack(delivery_tag=0, multiple=True, requeue=False))
    assert COUNT - STEP_MESSAGES <= queue.unacked < COUNT
    harness.wait(1)
    assert queue.unacked == 0
    assert count_of(client, "q" if retry else "dead") == COUNT


def dead_in_each_turn(harness: Harness) -> list[int]:
    """How many letters arrive in each turn of the broker, until there are no more."""
    broker = harness.core.broker
    dead, before, came = broker.vhosts["/"].queues["dead"], 0, []
    while True:
        harness.settle()
        came.append(dead.ready - before)
        before = dead.ready
        deadline = broker.deadlines.next()
        if deadline is None or deadline > harness.now + 60:
            return came
        harness.now = max(harness.now, deadline)
        harness.core.tick(harness.now)


def test_what_expired_behind_a_message_that_has_not_goes_in_steps() -> None:
    harness = Harness()
    client = Client(harness)
    client.ask(Queue.Declare(queue="dead"))
    client.ask(Queue.Declare(queue="q", arguments=DEAD))
    client.publish(b"lives", routing_key="q")
    fill(client, expiration="1000")
    harness.wait(2)
    client.tell(Basic.Consume(queue="q", no_ack=True))
    came = dead_in_each_turn(harness)
    assert (sum(came), max(came)) == (COUNT, STEP_MESSAGES)
    assert client.bodies() == [b"lives"]


@pytest.mark.parametrize("retry_type", ["disabled", "all"])
def test_what_came_back_once_too_often_goes_in_steps(retry_type: str) -> None:
    arguments = {**DEAD, "x-queue-type": "quorum", "x-delivery-limit": 0}
    harness = Harness()
    client = Client(harness)
    client.ask(Queue.Declare(queue="dead"))
    delayed = {"x-delayed-retry-type": retry_type}
    client.ask(Queue.Declare(queue="q", durable=True, arguments={**arguments, **delayed}))
    client.tell(Basic.Consume(queue="q", consumer_tag="c"))
    fill(client)
    client.ask(Basic.Cancel(consumer_tag="c"))
    client.link.send(encode_method(1, Basic.Nack(delivery_tag=0, multiple=True)))
    came = dead_in_each_turn(harness)
    assert (sum(came), max(came)) == (COUNT, STEP_MESSAGES)
    assert count_of(client, "q") == 0


def test_many_messages_whose_return_is_delayed_wait_in_steps() -> None:
    arguments = {"x-queue-type": "quorum", "x-delayed-retry-type": "all"}
    harness = Harness()
    client = Client(harness)
    client.ask(Queue.Declare(queue="q", durable=True, arguments=arguments))
    client.tell(Basic.Consume(queue="q", consumer_tag="c"))
    fill(client)
    client.ask(Basic.Cancel(consumer_tag="c"))
    queue = harness.core.broker.vhosts["/"].queues["q"]
    client.tell(Basic.Nack(delivery_tag=0, multiple=True))
    assert COUNT - STEP_MESSAGES <= queue.unacked < COUNT
    harness.wait(0)
    assert (queue.unacked, queue.delayed, queue.ready) == (0, COUNT, 0)
    harness.wait(1)
    assert (queue.delayed, queue.ready) == (0, COUNT)


def test_what_is_rejected_and_has_not_had_its_turn_comes_back_after_a_crash() -> None:
    harness = Harness()
    client = Client(harness)
    client.ask(Queue.Declare(queue="dead", durable=True))
    client.ask(Queue.Declare(queue="q", durable=True, arguments=DEAD))
    client.tell(Basic.Consume(queue="q"))
    fill(client, delivery_mode=2)
    client.tell(Basic.Nack(delivery_tag=0, multiple=True, requeue=False))
    harness.commit()
    client = Client(Harness(store=harness.store))
    dead = count_of(client, "dead")
    assert 0 < dead < COUNT
    assert count_of(client, "q") == COUNT - dead


def test_what_is_rejected_goes_with_its_queue() -> None:
    harness = Harness()
    client = Client(harness)
    client.ask(Queue.Declare(queue="dead"))
    client.ask(Queue.Declare(queue="q", arguments=DEAD))
    client.tell(Basic.Consume(queue="q"))
    fill(client)
    client.tell(Basic.Nack(delivery_tag=0, multiple=True, requeue=False))
    client.ask(Queue.Delete(queue="q"))
    before = count_of(client, "dead")
    harness.wait(10)
    assert count_of(client, "dead") == before < COUNT

"""What applications build on: retries with TTL and dead letters, limits, priorities, quorum queues,
single active consumers, delays. With pika's BlockingConnection."""

import contextlib
import time
from collections.abc import Callable, Iterator

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from pika.exceptions import AMQPConnectionError, NackError
from waiting import wait_until

Name = Callable[[str], str]


@pytest.fixture
def connection(uri: str) -> Iterator[BlockingConnection]:
    made = pika.BlockingConnection(pika.URLParameters(uri))
    yield made
    with contextlib.suppress(AMQPConnectionError):  # a test may have closed it
        made.close()


@pytest.fixture
def channel(connection: BlockingConnection) -> BlockingChannel:
    channel = connection.channel()
    channel.confirm_delivery()
    return channel


def publish(channel: BlockingChannel, queue: str, body: bytes, **properties: object) -> None:
    channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2, **properties))


def arrives(channel: BlockingChannel, queue: str) -> tuple[object, pika.BasicProperties, bytes]:
    """The next message of a queue, which may have to come first; it is acknowledged."""
    found: list[tuple[object, pika.BasicProperties, bytes]] = []

    def looked() -> bool:
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        if method is not None:
            found.append((method, properties, body))
        return bool(found)

    wait_until(looked, f"a message is in {queue}")
    return found[0]


def test_a_work_queue_with_a_retry_queue_behind_it(channel: BlockingChannel, name: Name) -> None:
    """The usual way to retry: rejected, a message waits in another queue and comes back."""
    work, retry = name("work"), name("retry")
    channel.queue_declare(
        work,
        durable=True,
        arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": retry},
    )
    channel.queue_declare(
        retry,
        durable=True,
        arguments={
            "x-message-ttl": 200,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": work,
        },
    )
    publish(channel, work, b"task")
    begun = time.monotonic()
    for attempt in range(1, 4):
        method, _, _ = channel.basic_get(work)
        channel.basic_reject(method.delivery_tag, requeue=False)
        wait_until(
            lambda: channel.queue_declare(work, passive=True).method.message_count == 1,
            "the message is back",
        )
        assert time.monotonic() - begun >= 0.2 * attempt
    _, properties, body = channel.basic_get(work, auto_ack=True)
    deaths = {
        (each["queue"], each["reason"]): each["count"] for each in properties.headers["x-death"]
    }
    assert (body, deaths) == (b"task", {(work, "rejected"): 3, (retry, "expired"): 3})


def test_what_is_too_much_is_dropped_or_refused(channel: BlockingChannel, name: Name) -> None:
    newest, first = name("newest"), name("first")
    channel.queue_declare(newest, arguments={"x-max-length": 3})
    channel.queue_declare(first, arguments={"x-max-length": 3, "x-overflow": "reject-publish"})
    for number in range(3):
        publish(channel, newest, b"%d" % number)
        publish(channel, first, b"%d" % number)
    publish(channel, newest, b"3")
    with pytest.raises(NackError):
        publish(channel, first, b"3")
    assert arrives(channel, newest)[2] == b"1"
    assert arrives(channel, first)[2] == b"0"


def test_urgent_messages_overtake_others(channel: BlockingChannel, name: Name) -> None:
    queue = name("priorities")
    channel.queue_declare(queue, durable=True, arguments={"x-max-priority": 10})
    for priority in (1, 9, 5, 9):
        publish(channel, queue, b"%d" % priority, priority=priority)
    assert [arrives(channel, queue)[2] for _ in range(4)] == [b"9", b"9", b"5", b"1"]


def test_a_poisonous_message_leaves_a_quorum_queue(channel: BlockingChannel, name: Name) -> None:
    queue, dead = name("quorum"), name("poison")
    channel.queue_declare(dead, durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_declare(
        queue,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-delivery-limit": 2,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": dead,
        },
    )
    publish(channel, queue, b"poison")
    counts = []
    for method, properties, _ in channel.consume(queue, inactivity_timeout=1):
        if method is None:
            break
        counts.append((properties.headers or {}).get("x-delivery-count"))
        channel.basic_reject(method.delivery_tag, requeue=True)
    assert counts == [None, 1, 2]
    assert arrives(channel, dead)[1].headers["x-death"][0]["reason"] == "delivery_limit"


def test_the_next_consumer_takes_over(
    uri: str, channel: BlockingChannel, connection: BlockingConnection, name: Name
) -> None:
    queue = name("single")
    channel.queue_declare(queue, arguments={"x-single-active-consumer": True})
    got: list[tuple[str, bytes]] = []
    other = pika.BlockingConnection(pika.URLParameters(uri))
    for consumer, its_channel in (("first", other.channel()), ("second", channel)):
        its_channel.basic_consume(
            queue,
            lambda _, method, __, body: got.append((method.consumer_tag, body)),
            auto_ack=True,
            consumer_tag=consumer,
        )
    publish(channel, queue, b"1")
    wait_until(lambda: other.process_data_events(0.05) or got, "the first consumer has it")
    other.close()
    publish(channel, queue, b"2")
    wait_until(lambda: connection.process_data_events(0.05) or len(got) > 1, "the second has one")
    assert got == [("first", b"1"), ("second", b"2")]


def test_a_delayed_message_comes_when_it_is_due(channel: BlockingChannel, name: Name) -> None:
    exchange, queue = name("late"), name("due")
    channel.exchange_declare(
        exchange, "x-delayed-message", durable=True, arguments={"x-delayed-type": "direct"}
    )
    channel.queue_declare(queue, durable=True)
    channel.queue_bind(queue, exchange, "k")
    begun = time.monotonic()
    for delay in (600, 300):
        properties = pika.BasicProperties(headers={"x-delay": delay}, delivery_mode=2)
        channel.basic_publish(exchange, "k", b"%d" % delay, properties)
    _, properties, body = arrives(channel, queue)
    assert (body, properties.headers) == (b"300", {"x-delay": -300})
    assert 0.3 <= time.monotonic() - begun < 0.6
    assert arrives(channel, queue)[2] == b"600"
    channel.exchange_delete(exchange)


def test_a_consistent_hash_exchange_shares_work_out(channel: BlockingChannel, name: Name) -> None:
    exchange, queues = name("hash"), [name(f"part.{number}") for number in range(3)]
    channel.exchange_declare(exchange, "x-consistent-hash")
    for queue in queues:
        channel.queue_declare(queue)
        channel.queue_bind(queue, exchange, "1")
    for number in range(300):
        channel.basic_publish(exchange, f"user.{number}", b"")
    counts = [channel.queue_declare(queue, passive=True).method.message_count for queue in queues]
    assert sum(counts) == 300
    assert min(counts) > 50
    channel.exchange_delete(exchange)

"""pika on streams, and on what amqpd has beyond RabbitMQ."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

Name = Callable[[str], str]


@pytest.fixture
def channel(uri: str) -> Iterator[BlockingChannel]:
    with pika.BlockingConnection(pika.URLParameters(uri)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        yield channel


def read(channel: BlockingChannel, queue: str, count: int, **arguments: Any) -> list[int]:
    """The bodies of so many messages, each acknowledged."""
    found: list[int] = []
    named = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    tag = named.pop("x-tag", None)
    channel.basic_qos(prefetch_count=50)

    def take(channel: Any, method: Any, properties: Any, body: bytes) -> None:
        if len(found) < count:
            found.append(int(body))
            channel.basic_ack(method.delivery_tag)

    tag = channel.basic_consume(queue, take, arguments=named, consumer_tag=tag)
    deadline = time.monotonic() + 10
    while len(found) < count and time.monotonic() < deadline:
        channel.connection.process_data_events(0.05)
    channel.basic_cancel(tag)
    return found


def test_a_stream_is_read_again_and_again_from_any_offset(
    channel: BlockingChannel, name: Name
) -> None:
    stream = name("stream")
    channel.queue_declare(stream, durable=True, arguments={"x-queue-type": "stream"})
    for number in range(300):
        channel.basic_publish("", stream, str(number).encode())
    assert read(channel, stream, 300, stream_offset="first") == [*range(300)]
    assert read(channel, stream, 10, stream_offset=290) == [*range(290, 300)]
    assert read(channel, stream, 1, stream_offset="last") == [299]


def test_a_reader_of_a_stream_goes_on_where_it_was(
    channel: BlockingChannel, name: Name, uri: str
) -> None:
    stream = name("stream")
    channel.queue_declare(stream, durable=True, arguments={"x-queue-type": "stream"})
    for number in range(20):
        channel.basic_publish("", stream, str(number).encode())
    tracked = {"tag": "app", "stream_offset": "first", "stream_automatic_offset_tracking": True}
    assert read(channel, stream, 7, **tracked) == [*range(7)]
    with pika.BlockingConnection(pika.URLParameters(uri)) as connection:
        assert read(connection.channel(), stream, 13, **tracked) == [*range(7, 20)]


def test_messages_of_a_group_go_one_by_one(channel: BlockingChannel, name: Name) -> None:
    queue = name("groups")
    channel.queue_declare(queue, arguments={"x-message-groups": True})
    for number in range(20):
        properties = pika.BasicProperties(headers={"x-group-id": number % 2})
        channel.basic_publish("", queue, str(number).encode(), properties)
    first, _, one = channel.basic_get(queue)
    _, _, two = channel.basic_get(queue)
    assert (one, two) == (b"0", b"1")
    assert channel.basic_get(queue)[0] is None
    channel.basic_ack(first.delivery_tag)
    assert channel.basic_get(queue)[2] == b"2"


def test_a_duplicate_is_confirmed_and_does_not_come(channel: BlockingChannel, name: Name) -> None:
    queue = name("once")
    arguments = {"x-message-deduplication": True, "x-cache-size": 10}
    channel.queue_declare(queue, durable=True, arguments=arguments)
    for number in range(10):
        headers = {"x-deduplication-header": number // 2}
        channel.basic_publish(
            "", queue, str(number).encode(), pika.BasicProperties(headers=headers)
        )
    assert channel.queue_declare(queue, passive=True).method.message_count == 5


def test_a_delivery_goes_back_and_its_late_ack_does_no_harm(
    channel: BlockingChannel, name: Name
) -> None:
    queue = name("timeout")
    channel.queue_declare(queue, arguments={"x-ack-timeout": 300})
    channel.basic_publish("", queue, b"1")
    method, _, _ = channel.basic_get(queue)
    deadline = time.monotonic() + 5
    while not channel.queue_declare(queue, passive=True).method.message_count:
        assert time.monotonic() < deadline
        channel.connection.process_data_events(0.02)
    channel.basic_ack(method.delivery_tag)
    method, _, _ = channel.basic_get(queue, auto_ack=True)
    assert method.redelivered


def test_a_rate_is_kept(channel: BlockingChannel, name: Name) -> None:
    queue = name("slow")
    channel.queue_declare(queue, arguments={"x-max-rate": 20})
    for number in range(12):
        channel.basic_publish("", queue, str(number).encode())
    begun = time.monotonic()
    assert read(channel, queue, 12) == [*range(12)]
    assert 0.45 <= time.monotonic() - begun < 3

"""pika's SelectConnection: the same broker seen through callbacks.

A test's script is a generator. What it yields is an operation that takes `callback`; the script
goes on with the callback's argument when the broker has answered.
"""

import functools
from collections.abc import Callable, Generator
from typing import Any

import pika
import pytest
from messages import HEADERS, LARGE
from pika.exceptions import (
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    StreamLostError,
)
from proxy import Proxy
from waiting import wait_until

Operation = Callable[..., object]
Script = Generator[Operation, Any, None]
Name = Callable[[str], str]


def play(uri: str, script: Callable[[pika.SelectConnection], Script], **settings: object) -> None:
    """Connects, runs the script to its end, disconnects. A lost connection is raised in it."""
    parameters = pika.URLParameters(uri)
    for setting, value in settings.items():
        setattr(parameters, setting, value)

    def advance(result: object = None) -> None:
        try:
            operation = steps.send(result)
        except StopIteration:
            if connection.is_open:
                connection.close()
            return
        operation(callback=advance)

    def closed(_: object, reason: BaseException) -> None:
        connection.ioloop.stop()
        if not isinstance(reason, pika.exceptions.ConnectionClosedByClient):
            try:
                steps.throw(reason)
            except StopIteration:
                return

    connection = pika.SelectConnection(
        parameters, on_open_callback=lambda _: advance(), on_close_callback=closed
    )
    steps = script(connection)
    try:
        connection.ioloop.start()
    finally:
        if connection.is_open:  # the script failed: take its exclusive queues with us
            connection.close()
            connection.ioloop.start()
        connection.ioloop.close()


def until(connection: pika.SelectConnection, condition: Callable[[], object]) -> Operation:
    def poll(callback: Callable[[], None]) -> None:
        if condition():
            callback()
        else:
            connection.ioloop.call_later(0.01, functools.partial(poll, callback))

    return poll


def open_channel(connection: pika.SelectConnection) -> Operation:
    return lambda callback: connection.channel(on_open_callback=callback)


def test_workers_with_confirms_and_acks(uri: str, name: Name) -> None:
    queue, confirmed, done = name("work"), [], {0: 0, 1: 0}

    def work(worker, channel, method, properties, body):
        done[worker] += 1
        channel.basic_ack(method.delivery_tag)

    def script(connection: pika.SelectConnection) -> Script:
        publisher = yield open_channel(connection)
        yield functools.partial(publisher.queue_declare, queue)
        yield functools.partial(publisher.confirm_delivery, confirmed.append)
        for worker in done:
            channel = yield open_channel(connection)
            yield functools.partial(channel.basic_qos, prefetch_count=1)
            yield functools.partial(channel.basic_consume, queue, functools.partial(work, worker))
        for i in range(100):
            publisher.basic_publish("", queue, b"%d" % i)
        yield until(connection, lambda: confirmed and confirmed[-1].method.delivery_tag == 100)
        yield until(connection, lambda: sum(done.values()) == 100)
        found = yield functools.partial(publisher.queue_declare, queue, passive=True)
        assert (found.method.message_count, found.method.consumer_count) == (0, 2)

    play(uri, script)
    assert min(done.values()) >= 10
    assert all(isinstance(frame.method, pika.spec.Basic.Ack) for frame in confirmed)


def test_pub_sub_and_topics_into_server_named_queues(uri: str, name: Name) -> None:
    got: dict[str, list[bytes]] = {"fanout": [], "topic": []}

    def script(connection: pika.SelectConnection) -> Script:
        channel = yield open_channel(connection)
        for kind, bodies in got.items():
            yield functools.partial(channel.exchange_declare, name(kind), kind)
            declared = yield functools.partial(channel.queue_declare, "", exclusive=True)
            queue = declared.method.queue
            yield functools.partial(channel.queue_bind, queue, name(kind), "a.*")
            yield functools.partial(
                channel.basic_consume,
                queue,
                lambda c, m, p, body, bodies=bodies: bodies.append(body),
                auto_ack=True,
            )
            for key in ("a.b", "a.b.c", "b"):
                channel.basic_publish(name(kind), key, key.encode())
        yield until(connection, lambda: len(got["fanout"]) == 3 and got["topic"])

    play(uri, script)
    assert got == {"fanout": [b"a.b", b"a.b.c", b"b"], "topic": [b"a.b"]}


def test_rpc_through_direct_reply_to(uri: str, name: Name) -> None:
    replies: list[bytes] = []

    def answer(channel, method, properties, body):
        channel.basic_publish("", properties.reply_to, body[::-1])
        channel.basic_ack(method.delivery_tag)

    def script(connection: pika.SelectConnection) -> Script:
        server = yield open_channel(connection)
        yield functools.partial(server.queue_declare, name("rpc"), auto_delete=True)
        yield functools.partial(server.basic_consume, name("rpc"), answer)
        client = yield open_channel(connection)
        yield functools.partial(
            client.basic_consume,
            "amq.rabbitmq.reply-to",
            lambda c, m, p, body: replies.append(body),
            auto_ack=True,
        )
        request = pika.BasicProperties(reply_to="amq.rabbitmq.reply-to")
        client.basic_publish("", name("rpc"), b"stressed", request)
        yield until(connection, lambda: replies)

    play(uri, script)
    assert replies == [b"desserts"]


def test_returns_come_before_the_confirm(uri: str, name: Name) -> None:
    events: list[str] = []

    def script(connection: pika.SelectConnection) -> Script:
        channel = yield open_channel(connection)
        channel.add_on_return_callback(lambda c, m, p, body: events.append(m.reply_text))
        yield functools.partial(
            channel.confirm_delivery, lambda frame: events.append(frame.method.NAME)
        )
        channel.basic_publish("", name("nowhere"), b"lost", mandatory=True)
        yield until(connection, lambda: len(events) == 2)

    play(uri, script)
    assert events == ["NO_ROUTE", "Basic.Ack"]


def test_prefetch_large_bodies_and_headers(uri: str, name: Name) -> None:
    queue, got = name("prefetch"), []

    def script(connection: pika.SelectConnection) -> Script:
        channel = yield open_channel(connection)
        yield functools.partial(channel.queue_declare, queue)
        for body in (LARGE, b"", b"three", b"four"):
            channel.basic_publish("", queue, body, pika.BasicProperties(headers=HEADERS))
        yield functools.partial(channel.basic_qos, prefetch_count=3)
        yield functools.partial(
            channel.basic_consume, queue, lambda c, m, p, body: got.append((m, p, body))
        )
        yield until(connection, lambda: len(got) == 3)
        found = yield functools.partial(channel.queue_declare, queue, passive=True)
        assert (found.method.message_count, len(got)) == (1, 3)
        channel.basic_ack(got[1][0].delivery_tag, multiple=True)
        yield until(connection, lambda: len(got) == 4)

    play(uri, script, frame_max=8192)
    assert [body for _, _, body in got] == [LARGE, b"", b"three", b"four"]
    assert all(properties.headers == HEADERS for _, properties, _ in got)


def test_consumers_are_cancelled_by_client_and_by_server(uri: str, name: Name) -> None:
    queue, cancelled = name("cancel"), []

    def script(connection: pika.SelectConnection) -> Script:
        channel = yield open_channel(connection)
        channel.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
        yield functools.partial(channel.queue_declare, queue)
        for tag in ("first", "second"):
            yield functools.partial(channel.basic_consume, queue, lambda *_: None, consumer_tag=tag)
        yield functools.partial(channel.basic_cancel, "first")
        found = yield functools.partial(channel.queue_declare, queue, passive=True)
        assert found.method.consumer_count == 1
        other = yield open_channel(connection)
        yield functools.partial(other.queue_delete, queue)
        yield until(connection, lambda: cancelled)
        assert channel.is_open

    play(uri, script)
    assert cancelled == ["second"]


def test_heartbeats_keep_an_idle_connection_alive(uri: str, proxy: Proxy) -> None:
    def script(connection: pika.SelectConnection) -> Script:
        yield until(connection, lambda: min(proxy.heartbeats.values()) >= 3)
        channel = yield open_channel(connection)
        assert channel.is_open

    play(proxy.uri, script, heartbeat=1)


def test_an_unresponsive_client_is_dropped(proxy: Proxy) -> None:
    def script(connection: pika.SelectConnection) -> Script:
        proxy.freeze_client()
        yield until(connection, lambda: False)

    with pytest.raises((StreamLostError, pika.exceptions.AMQPHeartbeatTimeout)):
        play(proxy.uri, script, heartbeat=1)
    wait_until(lambda: proxy.dropped_by_broker, "the broker ends the connection")


def test_a_new_connection_after_a_cut_finds_the_unacked_message_again(
    name: Name, proxy: Proxy
) -> None:
    queue, got = name("survives"), []

    def receive(connection: pika.SelectConnection) -> Script:
        channel = yield open_channel(connection)
        yield functools.partial(channel.queue_declare, queue)
        if not got:
            channel.basic_publish("", queue, b"once")
        yield functools.partial(channel.basic_consume, queue, lambda c, m, p, b: got.append(m))
        had = len(got)
        yield until(connection, lambda: len(got) > had)
        if had == 0:
            proxy.cut()
            yield until(connection, lambda: False)

    with pytest.raises(StreamLostError):
        play(proxy.uri, receive)
    play(proxy.uri, receive)
    assert [method.redelivered for method in got] == [False, True]


def test_errors_close_the_channel_or_the_connection(uri: str, name: Name) -> None:
    reasons: list[BaseException] = []

    def script(connection: pika.SelectConnection) -> Script:
        owner = yield open_channel(connection)
        yield functools.partial(owner.queue_declare, name("mine"), exclusive=True)
        for wrong in (
            lambda channel: channel.queue_declare(name("missing"), passive=True),
            lambda channel: channel.queue_declare(name("mine"), auto_delete=True),
            lambda channel: channel.exchange_declare("amq.fanout", "direct", durable=True),
            lambda channel: channel.basic_publish(name("missing"), "", b""),
            lambda channel: channel.basic_ack(99),
        ):
            channel = yield open_channel(connection)
            channel.add_on_close_callback(lambda _, reason: reasons.append(reason))
            had = len(reasons)
            wrong(channel)
            yield until(connection, lambda had=had: len(reasons) > had)
        owner.basic_publish("", name("mine"), b"", mandatory=True)
        yield functools.partial(owner.basic_qos, prefetch_size=1)

    with pytest.raises(ConnectionClosedByBroker) as error:
        play(uri, script)
    assert error.value.reply_code == 540
    assert all(isinstance(reason, ChannelClosedByBroker) for reason in reasons)
    assert [reason.reply_code for reason in reasons] == [404, 405, 406, 404, 406]

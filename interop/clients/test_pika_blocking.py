"""pika's BlockingConnection."""

import contextlib
import functools
from collections.abc import Callable, Iterator

import pika
import pytest
from messages import HEADERS, LARGE, ROUTES, SENT_AT, routed
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from pika.exceptions import (
    AMQPConnectionError,
    AMQPHeartbeatTimeout,
    ChannelClosedByBroker,
    ProbableAuthenticationError,
    UnroutableError,
)
from proxy import Proxy
from waiting import wait_until

Name = Callable[[str], str]
Connect = Callable[..., BlockingConnection]


@pytest.fixture
def connect(uri: str, name: Name) -> Iterator[Connect]:
    """connect(uri, heartbeat=1, …) opens a connection that the end of the test closes."""
    opened: list[BlockingConnection] = []

    def open_one(to: str = uri, **settings: object) -> BlockingConnection:
        parameters = pika.URLParameters(to)
        for setting, value in settings.items():
            setattr(parameters, setting, value)
        opened.append(pika.BlockingConnection(parameters))
        return opened[-1]

    yield open_one
    for connection in opened:
        # The test, or the broker, may have ended it already.
        with contextlib.suppress(AMQPConnectionError):
            connection.close()


@pytest.fixture
def channel(connect: Connect) -> BlockingChannel:
    """A channel in confirm mode: what it has published is in the queues when publish returns."""
    channel = connect().channel()
    channel.confirm_delivery()
    return channel


def drain(channel: BlockingChannel, queue: str) -> list[bytes]:
    get = functools.partial(channel.basic_get, queue, auto_ack=True)
    return [body for _, _, body in iter(get, (None, None, None))]


def ready(channel: BlockingChannel, queue: str) -> int:
    return channel.queue_declare(queue, passive=True).method.message_count


def fill(channel: BlockingChannel, queue: str, count: int) -> list[bytes]:
    channel.queue_declare(queue)
    bodies = [b"task %d" % i for i in range(count)]
    for body in bodies:
        channel.basic_publish("", queue, body)
    return bodies


def test_workers_share_a_queue_and_a_dead_workers_task_goes_to_another(
    connect: Connect, channel: BlockingChannel, name: Name, proxy: Proxy
) -> None:
    queue = name("work")
    bodies = fill(channel, queue, 30)
    done: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
    redelivered: list[bytes] = []
    held: list[bytes] = []

    def work(worker, channel, method, properties, body):
        done[worker].append(body)
        if method.redelivered:
            redelivered.append(body)
        channel.basic_ack(method.delivery_tag)

    doomed = connect(proxy.uri)
    doomed_channel = doomed.channel()
    doomed_channel.basic_qos(prefetch_count=3)
    doomed_channel.basic_consume(queue, lambda c, m, p, body: held.append(body))
    while len(held) < 3:
        doomed.process_data_events(time_limit=1)
    connection = connect()
    for worker in done:
        its_channel = connection.channel()
        its_channel.basic_qos(prefetch_count=1)
        its_channel.basic_consume(queue, functools.partial(work, worker))
    while sum(map(len, done.values())) < 27:
        connection.process_data_events(time_limit=1)
    proxy.cut()
    while sum(map(len, done.values())) < 30:
        connection.process_data_events(time_limit=1)

    assert sorted([*done[0], *done[1], *done[2]]) == sorted(bodies)
    assert sorted(redelivered) == sorted(held) == sorted(bodies[:3])
    assert all(len(tasks) >= 5 for tasks in done.values()), "the work was not shared"


def test_a_fanout_exchange_copies_to_every_subscriber(
    connect: Connect, channel: BlockingChannel, name: Name
) -> None:
    exchange = name("news")
    channel.exchange_declare(exchange, "fanout")
    queues = [channel.queue_declare("", exclusive=True).method.queue for _ in range(3)]
    for queue in queues:
        channel.queue_bind(queue, exchange)
    channel.basic_publish(exchange, "ignored", b"extra")
    assert all(queue.startswith("amq.gen-") for queue in queues)
    assert [drain(channel, queue) for queue in queues] == [[b"extra"]] * 3


@pytest.mark.parametrize("kind", ["topic", "headers"])
def test_routing(channel: BlockingChannel, name: Name, kind: str) -> None:
    exchange = name(kind)
    channel.exchange_declare(exchange, kind)
    for short, bound in ROUTES[kind]["bindings"].items():
        channel.queue_declare(name(short), exclusive=True)
        for key in bound if kind == "topic" else [""]:
            arguments = bound if kind == "headers" else None
            channel.queue_bind(name(short), exchange, key, arguments)
    for i, (address, _) in enumerate(ROUTES[kind]["messages"]):
        key, headers = (address, None) if kind == "topic" else ("", address)
        properties = pika.BasicProperties(headers=headers)
        channel.basic_publish(exchange, key, b"%d" % i, properties)
    for short in ROUTES[kind]["bindings"]:
        got = [int(body) for body in drain(channel, name(short))]
        assert got == routed(kind, short), short


def test_exchanges_bind_to_exchanges(channel: BlockingChannel, name: Name) -> None:
    channel.exchange_declare(name("in"), "topic")
    channel.exchange_declare(name("out"), "fanout", auto_delete=True)
    channel.exchange_bind(name("out"), name("in"), "a.#")
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, name("out"))
    for key in ("a.b", "b", "a"):
        channel.basic_publish(name("in"), key, key.encode())
    assert drain(channel, queue) == [b"a.b", b"a"]


def test_rpc_through_direct_reply_to(connect: Connect, name: Name) -> None:
    requests = name("requests")
    server, client = connect(), connect()
    serving, calling = server.channel(), client.channel()
    serving.queue_declare(requests, auto_delete=True)

    def answer(channel, method, properties, body):
        reply = pika.BasicProperties(correlation_id=properties.correlation_id)
        channel.basic_publish("", properties.reply_to, body.upper(), reply)

    serving.basic_consume(requests, answer, auto_ack=True)
    answers: dict[str, bytes] = {}
    calling.basic_consume(
        "amq.rabbitmq.reply-to",
        lambda c, m, properties, body: answers.update({properties.correlation_id: body}),
        auto_ack=True,
    )
    for i in range(10):
        request = pika.BasicProperties(reply_to="amq.rabbitmq.reply-to", correlation_id=str(i))
        calling.basic_publish("", requests, b"call %d" % i, request)
    while len(answers) < 10:
        server.process_data_events(time_limit=0.05)
        client.process_data_events(time_limit=0.05)
    assert answers == {str(i): b"CALL %d" % i for i in range(10)}


def test_confirmed_publishes_are_in_the_queue(channel: BlockingChannel, name: Name) -> None:
    bodies = fill(channel, name("confirmed"), 50)
    assert ready(channel, name("confirmed")) == 50
    assert drain(channel, name("confirmed")) == bodies


def test_an_unroutable_mandatory_message_is_returned(
    connect: Connect, channel: BlockingChannel, name: Name
) -> None:
    with pytest.raises(UnroutableError) as error:
        channel.basic_publish("amq.direct", name("nowhere"), b"lost", mandatory=True)
    (returned,) = error.value.messages
    assert (returned.method.reply_code, returned.method.reply_text) == (312, "NO_ROUTE")
    assert (returned.method.exchange, returned.body) == ("amq.direct", b"lost")

    plain, returns = connect().channel(), []
    plain.add_on_return_callback(lambda c, m, properties, body: returns.append((m, body)))
    plain.basic_publish("", name("nowhere"), LARGE, mandatory=True)
    while not returns:
        plain.connection.process_data_events(time_limit=1)
    assert returns[0][0].routing_key == name("nowhere")
    assert returns[0][1] == LARGE


@pytest.mark.parametrize("of_channel", [False, True], ids=["per consumer", "per channel"])
def test_prefetch_bounds_what_is_unacked(
    connect: Connect, channel: BlockingChannel, name: Name, of_channel: bool
) -> None:
    queue = name("prefetch")
    fill(channel, queue, 20)
    consumer, tags = connect().channel(), []
    consumer.basic_qos(prefetch_count=5, global_qos=of_channel)
    for _ in range(2):
        consumer.basic_consume(queue, lambda c, method, p, b: tags.append(method.delivery_tag))
    limit = 5 if of_channel else 10

    def receive(count: int) -> None:
        while len(tags) < count:
            consumer.connection.process_data_events(time_limit=1)
        assert ready(channel, queue) == 20 - count
        assert len(tags) == count

    receive(limit)
    consumer.basic_ack(tags[1], multiple=True)
    consumer.basic_ack(tags[2])
    receive(limit + 3)
    consumer.basic_ack(0, multiple=True)
    receive(20 if limit == 10 else 13)


def test_nacked_rejected_and_recovered_messages_come_back_in_their_order(
    channel: BlockingChannel, name: Name
) -> None:
    queue = name("requeue")
    bodies = fill(channel, queue, 6)
    tags = [channel.basic_get(queue)[0].delivery_tag for _ in bodies]
    channel.basic_reject(tags[5], requeue=True)
    channel.basic_nack(tags[1], multiple=True, requeue=True)
    channel.basic_nack(tags[2], requeue=False)
    channel.basic_recover(requeue=True)
    got = [channel.basic_get(queue) for _ in range(5)]
    assert [body for _, _, body in got] == [b for i, b in enumerate(bodies) if i != 2]
    assert all(method.redelivered for method, _, _ in got)
    assert ready(channel, queue) == 0


def test_a_transaction_publishes_on_commit_only(
    connect: Connect, channel: BlockingChannel, name: Name
) -> None:
    queue = name("tx")
    channel.queue_declare(queue)
    transaction = connect().channel()
    transaction.tx_select()
    transaction.basic_publish("", queue, b"dropped")
    transaction.tx_rollback()
    transaction.basic_publish("", queue, b"kept")
    assert ready(channel, queue) == 0
    transaction.tx_commit()
    assert drain(channel, queue) == [b"kept"]


def test_a_cancelled_consumer_gets_nothing_more(
    connect: Connect, channel: BlockingChannel, name: Name
) -> None:
    queue, got = name("cancel"), []
    fill(channel, queue, 3)
    consumer = connect().channel()
    consumer.basic_qos(prefetch_count=1)
    tag = consumer.basic_consume(queue, lambda c, method, p, body: got.append(method))
    while not got:
        consumer.connection.process_data_events(time_limit=1)
    consumer.basic_cancel(tag)
    consumer.basic_ack(got[0].delivery_tag)
    assert channel.queue_purge(queue).method.message_count == 2
    assert channel.queue_declare(queue, passive=True).method.consumer_count == 0


def test_deleting_a_queue_cancels_its_consumer(
    connect: Connect, channel: BlockingChannel, name: Name
) -> None:
    queue, cancelled = name("deleted"), []
    channel.queue_declare(queue)
    consumer = connect().channel()
    consumer.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
    tag = consumer.basic_consume(queue, lambda *_: None)
    channel.queue_delete(queue)
    while not cancelled:
        consumer.connection.process_data_events(time_limit=1)
    assert cancelled == [tag]
    assert consumer.is_open


def test_heartbeats_keep_an_idle_connection_alive(connect: Connect, proxy: Proxy) -> None:
    connection = connect(proxy.uri, heartbeat=2)
    while min(proxy.heartbeats.values()) < 2:
        connection.process_data_events(time_limit=0.1)
    assert connection.channel().is_open


def test_a_client_without_heartbeats_is_dropped(connect: Connect, proxy: Proxy) -> None:
    connection = connect(proxy.uri, heartbeat=1)
    proxy.freeze_client()
    wait_until(lambda: proxy.dropped_by_broker, "the broker ends the connection")
    with pytest.raises((AMQPConnectionError, AMQPHeartbeatTimeout)):
        while True:
            connection.process_data_events(time_limit=1)


@pytest.mark.parametrize("frame_max", [8192, 131072])
@pytest.mark.parametrize("body", [b"", b"x", LARGE], ids=["empty", "tiny", "5 MiB"])
def test_bodies_of_any_size_reach_consumers_of_any_frame_max(
    connect: Connect, channel: BlockingChannel, name: Name, body: bytes, frame_max: int
) -> None:
    queue, got = name("sizes"), []
    channel.queue_declare(queue)
    channel.basic_publish("", queue, body)
    connection = connect(frame_max=frame_max)
    consumer = connection.channel()
    consumer.basic_consume(queue, lambda c, m, p, received: got.append(received), auto_ack=True)
    while not got:
        connection.process_data_events(time_limit=1)
    assert got == [body]
    consumer.basic_publish("", name("sizes"), body)
    while len(got) < 2:
        connection.process_data_events(time_limit=1)
    assert got[1] == body


def test_every_property_survives_the_journey(channel: BlockingChannel, name: Name) -> None:
    queue = name("properties")
    channel.queue_declare(queue)
    sent = pika.BasicProperties(
        content_type="application/json",
        content_encoding="utf-8",
        headers={**HEADERS, "bytes": b"\x00\xff", "sent": SENT_AT},
        delivery_mode=2,
        priority=9,
        correlation_id="c-1",
        reply_to="replies",
        expiration="60000",
        message_id="m-1",
        timestamp=int(SENT_AT.timestamp()),
        type="order.created",
        user_id="guest",
        app_id="interop",
    )
    channel.basic_publish("", queue, b"{}", sent)
    method, received, body = channel.basic_get(queue, auto_ack=True)
    assert (method.routing_key, method.redelivered, body) == (queue, False, b"{}")
    assert received.headers == sent.headers
    assert received == sent
    channel.basic_publish("", queue, b"bare")
    assert channel.basic_get(queue, auto_ack=True)[1] == pika.BasicProperties()


def test_reconnecting_after_a_cut_finds_the_queue_again(
    connect: Connect, channel: BlockingChannel, name: Name, proxy: Proxy
) -> None:
    queue, got = name("survives"), []
    fill(channel, queue, 2)
    while len(got) < 2:
        connection = connect(proxy.uri)
        consumer = connection.channel()
        consumer.basic_qos(prefetch_count=1)
        for method, _, body in consumer.consume(queue):
            consumer.basic_ack(method.delivery_tag)
            got.append(body)
            consumer.queue_declare(queue, passive=True)  # the ack has arrived
            break
        proxy.cut()
        with pytest.raises(AMQPConnectionError):
            while True:
                connection.process_data_events(time_limit=1)
    assert got == [b"task 0", b"task 1"]


def closing(
    channel: BlockingChannel, code: int, text: str, operation: Callable[[], object]
) -> None:
    """`operation` closes its channel with this code and text, and the connection lives on."""
    with pytest.raises(ChannelClosedByBroker) as error:
        operation()
    assert (error.value.reply_code, error.value.reply_text) == (code, text)
    assert channel.is_closed
    assert channel.connection.channel().is_open


def test_channel_errors_carry_rabbitmqs_codes_and_texts(connect: Connect, name: Name) -> None:
    connection = connect()
    queue, missing, arguments = name("mine"), name("missing"), {"x-expires": 60000}
    connection.channel().queue_declare(queue, arguments=arguments)

    def check(code: int, text: str, operation: Callable[[BlockingChannel], object]) -> None:
        channel = connection.channel()
        closing(channel, code, text, lambda: operation(channel))

    check(
        404,
        f"NOT_FOUND - no queue '{missing}' in vhost '/'",
        lambda c: c.queue_declare(missing, passive=True),
    )
    check(
        404,
        f"NOT_FOUND - no exchange '{missing}' in vhost '/'",
        lambda c: c.exchange_declare(missing, passive=True),
    )
    check(
        406,
        f"PRECONDITION_FAILED - inequivalent arg 'durable' for queue '{queue}' in vhost '/': "
        "received 'true' but current is 'false'",
        lambda c: c.queue_declare(queue, durable=True, arguments=arguments),
    )
    check(
        406,
        f"PRECONDITION_FAILED - inequivalent arg 'x-expires' for queue '{queue}' in vhost '/': "
        "received none but current is the value '60000' of type 'signedint'",
        lambda c: c.queue_declare(queue),
    )
    check(
        406,
        "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'amq.topic' in vhost '/': "
        "received 'fanout' but current is 'topic'",
        lambda c: c.exchange_declare("amq.topic", "fanout", durable=True),
    )
    check(
        403,
        "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'",
        lambda c: c.queue_declare("amq.mine"),
    )


def test_exclusive_queues_and_consumers_are_refused_to_others(
    connect: Connect, channel: BlockingChannel, name: Name
) -> None:
    locked, shared = name("locked"), name("shared")
    connect().channel().queue_declare(locked, exclusive=True)
    stranger = connect().channel()
    closing(
        stranger,
        405,
        f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{locked}' in vhost "
        "'/'. It could be originally declared on another connection or the exclusive property "
        "value does not match that of the original declaration.",
        lambda: stranger.queue_declare(locked, exclusive=True),
    )
    channel.queue_declare(shared)
    channel.basic_consume(shared, lambda *_: None, exclusive=True)
    second = connect().channel()
    closing(
        second,
        403,
        f"ACCESS_REFUSED - queue '{shared}' in vhost '/' in exclusive use",
        lambda: second.basic_consume(shared, lambda *_: None),
    )


def test_exclusive_and_auto_delete_queues_go_with_their_users(
    connect: Connect, name: Name, proxy: Proxy
) -> None:
    stays, leaving = connect(), connect(proxy.uri).channel()
    leaving.queue_declare(name("exclusive"), exclusive=True)
    leaving.queue_declare(name("auto"), auto_delete=True)
    leaving.exchange_declare(name("auto"), auto_delete=True)
    leaving.queue_bind(name("auto"), name("auto"))
    tag = leaving.basic_consume(name("auto"), lambda *_: None)
    leaving.basic_cancel(tag)

    def gone(declare: Callable[..., object], short: str) -> bool:
        try:
            declare(stays.channel(), name(short), passive=True)
        except ChannelClosedByBroker as error:
            return error.reply_code == 404
        return False

    assert gone(BlockingChannel.queue_declare, "auto")
    assert gone(BlockingChannel.exchange_declare, "auto")
    proxy.cut()
    wait_until(lambda: gone(BlockingChannel.queue_declare, "exclusive"), "the queue is gone")


def test_a_wrong_password_is_refused_as_such(connect: Connect) -> None:
    with pytest.raises(ProbableAuthenticationError):
        connect(credentials=pika.PlainCredentials("guest", "wrong"))


def test_an_unknown_vhost_closes_the_connection(connect: Connect) -> None:
    with pytest.raises(AMQPConnectionError) as error:
        connect(virtual_host="nowhere")
    assert "NOT_ALLOWED - vhost nowhere not found" in repr(error.value)

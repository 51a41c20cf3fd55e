"""kombu over py-amqp."""

from collections.abc import Callable, Iterator

import pytest
from amqp.exceptions import (
    AccessRefused,
    ConnectionForced,
    ConsumerCancelled,
    NotFound,
    PreconditionFailed,
    RecoverableConnectionError,
    ResourceLocked,
)
from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.message import Message
from kombu.mixins import ConsumerMixin
from kombu.simple import SimpleQueue
from kombu.utils.limits import TokenBucket
from messages import HEADERS, LARGE, ROUTES, SENT_AT, routed
from proxy import Proxy
from waiting import wait_until

Name = Callable[[str], str]
Connect = Callable[..., Connection]
# What py-amqp raises where the connection has gone, whoever notices first.
LOST = (OSError, RecoverableConnectionError)


@pytest.fixture
def connect(uri: str, name: Name) -> Iterator[Callable[..., Connection]]:
    opened: list[Connection] = []

    def open_one(to: str = uri, **options: object) -> Connection:
        connection = Connection(to, transport_options={"confirm_publish": True}, **options)
        connection.connect()
        opened.append(connection)
        return connection

    yield open_one
    for connection in opened:
        connection.release()


def drain(channel, queue: str) -> list[bytes]:
    """Publishes are confirmed: what is not in the queue now will not be."""
    messages = []
    while message := channel.basic_get(queue, no_ack=True):
        messages.append(message)
    return [message.body for message in messages]


def events(connection: Connection, condition: Callable[[], object], within: float = 10.0) -> None:
    """Handles what arrives until the condition holds."""

    def handled() -> object:
        if condition():
            return True
        try:
            connection.drain_events(timeout=0.05)
        except TimeoutError:
            connection.heartbeat_check()
        return condition()

    wait_until(handled, "the events", within)


def test_workers_share_a_queue_and_a_dead_workers_tasks_are_redelivered(
    connect: Connect, name: Name, proxy: Proxy
) -> None:
    connection, doomed = connect(), connect(proxy.uri)
    queue = Queue(name("work"), durable=False)
    producer = Producer(connection)
    for i in range(30):
        producer.publish({"task": i}, routing_key=queue.name, declare=[queue])
    held: list[Message] = []
    doomed_consumer = Consumer(
        doomed, [queue], on_message=held.append, prefetch_count=3, accept=["json"]
    )
    doomed_consumer.consume()
    events(doomed, lambda: len(held) == 3)
    done: dict[int, list[Message]] = {0: [], 1: []}
    for mine in done.values():

        def work(message: Message, mine: list[Message] = mine) -> None:
            mine.append(message)
            message.ack()

        Consumer(connection.channel(), [queue], on_message=work, prefetch_count=1).consume()
    events(connection, lambda: sum(map(len, done.values())) == 27)
    proxy.cut()
    events(connection, lambda: sum(map(len, done.values())) == 30)
    everything = [*done[0], *done[1]]
    assert sorted(message.decode()["task"] for message in everything) == list(range(30))
    redelivered = [m for m in everything if m.delivery_info["redelivered"]]
    assert sorted(m.body for m in redelivered) == sorted(m.body for m in held)
    assert min(map(len, done.values())) >= 5


def test_a_fanout_exchange_copies_to_every_subscriber(connect: Connect, name: Name) -> None:
    channel = connect().channel()
    exchange = Exchange(name("news"), "fanout", durable=False)
    queues = [Queue("", exchange, exclusive=True, channel=channel) for _ in range(3)]
    for queue in queues:
        queue.declare()
    Producer(channel, exchange).publish(b"extra", routing_key="ignored")
    assert [drain(channel, queue.name) for queue in queues] == [[b"extra"]] * 3


@pytest.mark.parametrize("kind", ["topic", "headers"])
def test_routing(connect: Connect, name: Name, kind: str) -> None:
    channel = connect().channel()
    exchange = Exchange(name(kind), kind, channel=channel, durable=False)
    exchange.declare()
    for short, bound in ROUTES[kind]["bindings"].items():
        channel.queue_declare(name(short), exclusive=True)
        for key in bound if kind == "topic" else [""]:
            arguments = bound if kind == "headers" else None
            channel.queue_bind(name(short), exchange.name, key, arguments=arguments)
    producer = Producer(channel, exchange)
    for i, (address, _) in enumerate(ROUTES[kind]["messages"]):
        key, headers = (address, None) if kind == "topic" else ("", address)
        producer.publish(b"%d" % i, routing_key=key, headers=headers)
    for short in ROUTES[kind]["bindings"]:
        got = [int(body) for body in drain(channel, name(short))]
        assert got == routed(kind, short), short


def test_rpc_through_direct_reply_to(connect: Connect, name: Name) -> None:
    connection = connect()
    requests = Queue(name("requests"), durable=False, auto_delete=True)
    serving, calling = connection.channel(), connection.channel()

    def answer(message: Message) -> None:
        Producer(serving).publish(
            message.payload.upper(),
            routing_key=message.properties["reply_to"],
            correlation_id=message.properties["correlation_id"],
        )
        message.ack()

    answers: dict[str, str] = {}

    def keep(message: Message) -> None:
        answers[message.properties["correlation_id"]] = message.payload

    Consumer(serving, [requests], on_message=answer).consume()
    replies = Queue("amq.rabbitmq.reply-to", no_declare=True)
    Consumer(calling, [replies], on_message=keep, no_ack=True).consume()
    for i in range(10):
        Producer(calling).publish(
            f"call {i}",
            routing_key=requests.name,
            reply_to=replies.name,
            correlation_id=str(i),
        )
    events(connection, lambda: len(answers) == 10)
    assert answers == {str(i): f"CALL {i}" for i in range(10)}


def test_an_unroutable_mandatory_message_is_returned(connect: Connect, name: Name) -> None:
    returned = []
    connection = connect()
    producer = Producer(
        connection, on_return=lambda error, exchange, key, message: returned.append((error, key))
    )
    producer.publish("lost", routing_key=name("nowhere"), mandatory=True)
    events(connection, lambda: returned)
    assert (returned[0][0].reply_code, returned[0][0].reply_text) == (312, "NO_ROUTE")
    assert returned[0][1] == name("nowhere")


def test_prefetch_grows_while_consuming(connect: Connect, name: Name) -> None:
    """Celery raises its channel's prefetch for every task that waits for its ETA."""
    connection, got = connect(), []
    queue = Queue(name("prefetch"), durable=False)
    for i in range(20):
        Producer(connection).publish(i, routing_key=queue.name, declare=[queue])
    channel = connection.channel()
    consumer = Consumer(channel, [queue], on_message=got.append)
    consumer.qos(prefetch_count=4, apply_global=True)
    consumer.consume()
    events(connection, lambda: len(got) == 4)
    assert queue(channel).queue_declare(passive=True).message_count == 16
    consumer.qos(prefetch_count=7, apply_global=True)
    events(connection, lambda: len(got) == 7)
    assert queue(channel).queue_declare(passive=True).message_count == 13
    got[0].reject()
    got[1].requeue()
    events(connection, lambda: len(got) == 9)
    assert {message.payload for message in got[7:]} == {1, 7}
    consumer.recover(requeue=True)


def test_consumers_are_cancelled_by_client_and_by_server(connect: Connect, name: Name) -> None:
    connection = connect()
    channel = connection.channel()
    queue = Queue(name("cancel"), channel=channel, durable=False)
    consumer = Consumer(channel, [queue], on_message=lambda message: None)
    consumer.consume()
    consumer.cancel()
    assert queue.queue_declare(passive=True).consumer_count == 0
    consumer.consume()
    connect().channel().queue_delete(queue.name)
    with pytest.raises(ConsumerCancelled):
        events(connection, lambda: False)


def test_heartbeats_keep_an_idle_connection_alive(connect: Connect, proxy: Proxy) -> None:
    connection = connect(proxy.uri, heartbeat=2)
    events(connection, lambda: min(proxy.heartbeats.values()) >= 2, within=15)
    connection.channel().close()


def test_a_client_that_checks_no_heartbeats_is_dropped(connect: Connect, proxy: Proxy) -> None:
    connection = connect(proxy.uri, heartbeat=1)
    proxy.freeze_client()
    wait_until(lambda: proxy.dropped_by_broker, "the broker ends the connection")
    with pytest.raises(LOST):
        events(connection, lambda: False)


@pytest.mark.parametrize("body", [b"", b"x", LARGE], ids=["empty", "tiny", "5 MiB"])
def test_bodies_of_any_size(connect: Connect, name: Name, body: bytes) -> None:
    channel = connect().channel()
    channel.queue_declare(name("sizes"), durable=False, auto_delete=False)
    Producer(channel).publish(body, routing_key=name("sizes"))
    assert drain(channel, name("sizes")) == [body or ""]  # py-amqp's empty body is a str


def test_every_property_survives_the_journey(connect: Connect, name: Name) -> None:
    channel = connect().channel()
    queue = Queue(name("properties"), channel=channel, durable=False)
    queue.declare()
    headers = {**HEADERS, "float": 0.1, "sent": SENT_AT.replace(tzinfo=None)}
    properties = {
        "delivery_mode": 2,
        "priority": 9,
        "correlation_id": "c-1",
        "reply_to": "replies",
        "expiration": "60000",
        "message_id": "m-1",
        "timestamp": int(SENT_AT.timestamp()),
        "type": "order.created",
        "user_id": "guest",
        "app_id": "interop",
    }
    sent = {k: v for k, v in properties.items() if k != "expiration"}
    Producer(channel).publish(
        {"total": 1}, routing_key=queue.name, headers=headers, expiration=60, **sent
    )
    message = queue.get(no_ack=True)
    assert message.payload == {"total": 1}
    assert message.headers == headers
    assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")
    assert {key: message.properties[key] for key in properties} == properties


def test_a_consumer_mixin_reconnects_and_goes_on(
    connect: Connect, name: Name, proxy: Proxy
) -> None:
    queue = Queue(name("mixin"), durable=False)
    producer = Producer(connect())

    class Worker(ConsumerMixin):
        """Publishes a number each time that it has connected; hit by a cut at each new one."""

        restart_limit = TokenBucket(100)

        def __init__(self) -> None:
            self.connection = Connection(proxy.uri)
            self.got: set[int] = set()

        def get_consumers(self, consumer: type[Consumer], channel: object) -> list[Consumer]:
            return [consumer([queue], on_message=self.work)]

        def on_consume_ready(self, *args: object, **kwargs: object) -> None:
            producer.publish(proxy.accepted, routing_key=queue.name)

        def work(self, message: Message) -> None:
            message.ack()
            if message.payload not in self.got:
                self.got.add(message.payload)
                proxy.cut()
            self.should_stop = len(self.got) == 3

    worker = Worker()
    worker.run(timeout=5)
    worker.connection.release()
    assert worker.got == {1, 2, 3}


def test_simple_queues(connect: Connect, name: Name) -> None:
    with SimpleQueue(connect(), name("simple")) as queue:
        queue.put({"n": 1})
        message = queue.get(timeout=5)
        assert message.payload == {"n": 1}
        message.ack()
        with pytest.raises(SimpleQueue.Empty):
            queue.get_nowait()


def test_errors_have_py_amqps_exceptions(connect: Connect, name: Name) -> None:
    owner, stranger = connect(), connect()
    mine, shared, missing = name("mine"), name("shared"), name("missing")
    channel = owner.channel()
    channel.queue_declare(mine, exclusive=True)
    channel.queue_declare(shared, auto_delete=False)
    channel.basic_consume(shared, exclusive=True)
    for exception, operation in (
        (NotFound, lambda c: c.queue_declare(missing, passive=True)),
        (NotFound, lambda c: c.queue_bind(shared, missing)),
        (PreconditionFailed, lambda c: c.queue_declare(shared, durable=True, auto_delete=False)),
        (PreconditionFailed, lambda c: c.exchange_declare("amq.topic", "fanout", durable=True)),
        (ResourceLocked, lambda c: c.queue_declare(mine, exclusive=True)),
        (AccessRefused, lambda c: c.basic_consume(shared)),
        (AccessRefused, lambda c: c.exchange_delete("amq.topic")),
    ):
        channel = stranger.channel()
        with pytest.raises(exception):
            operation(channel)
        channel.queue_declare(shared, passive=True)  # py-amqp has opened it anew
    owner.release()
    with pytest.raises(NotFound):
        stranger.channel().queue_declare(mine, passive=True)


def test_a_wrong_password_is_refused_as_such(connect: Connect, uri: str) -> None:
    with pytest.raises((AccessRefused, ConnectionForced)) as error:
        connect(uri.replace(":guest@", ":wrong@"))
    assert error.value.reply_code == 403


def test_messages_come_in_the_order_of_their_priorities(connect: Connect, name: Name) -> None:
    connection = connect()
    queue = Queue(name("levels"), max_priority=10, channel=connection.default_channel)
    queue.declare()
    producer = Producer(connection, routing_key=queue.name)
    for priority in (0, 5, None, 10, 5, 99):
        producer.publish(str(priority), priority=priority, content_type="text/plain")
    assert drain(connection.default_channel, queue.name) == ["10", "99", "5", "5", "0", "None"]

"""aio-pika: plain connections and robust ones that come back by themselves."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable

import aio_pika
import pytest
from aio_pika import DeliveryMode, ExchangeType, Message
from aio_pika.abc import (
    AbstractChannel,
    AbstractConnection,
    AbstractExchange,
    AbstractIncomingMessage,
)
from aio_pika.exceptions import (
    AMQPConnectionError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
    ProbableAuthenticationError,
)
from aiormq.exceptions import ChannelAccessRefused, ChannelLockedResource
from messages import HEADERS, LARGE, ROUTES, SENT_AT, routed
from proxy import Proxy

Name = Callable[[str], str]


def in_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


async def until(condition: Callable[[], object], within: float = 10.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def channel_on(uri: str) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(uri) as connection:
        yield await connection.channel()


def take(kept: list[AbstractIncomingMessage]) -> Callable[..., Awaitable[None]]:
    async def keep(message: AbstractIncomingMessage) -> None:
        kept.append(message)

    return keep


async def ignore(message: AbstractIncomingMessage) -> None:
    """A consumer that keeps what it gets, unacked."""


async def drain(queue: aio_pika.abc.AbstractQueue) -> list[AbstractIncomingMessage]:
    messages = []
    while message := await queue.get(no_ack=True, fail=False):
        messages.append(message)
    return messages


@in_a_loop
async def test_workers_share_a_queue_and_a_dead_workers_tasks_are_redelivered(
    uri: str, name: Name, proxy: Proxy
) -> None:
    done: dict[int, list[AbstractIncomingMessage]] = {0: [], 1: []}
    held: list[AbstractIncomingMessage] = []

    async def work(worker: int, message: AbstractIncomingMessage) -> None:
        async with message.process():
            done[worker].append(message)

    async with channel_on(uri) as channel:
        queue = await channel.declare_queue(name("work"))
        for i in range(40):
            await channel.default_exchange.publish(Message(b"%d" % i), queue.name)
        doomed = await aio_pika.connect(proxy.uri)
        doomed_channel = await doomed.channel()
        await doomed_channel.set_qos(prefetch_count=4)
        await (await doomed_channel.get_queue(queue.name)).consume(take(held))
        await until(lambda: len(held) == 4)
        await channel.set_qos(prefetch_count=1)
        for worker in done:
            await queue.consume(functools.partial(work, worker))
        await until(lambda: sum(map(len, done.values())) == 36)
        proxy.cut()
        await until(lambda: sum(map(len, done.values())) == 40)
        await doomed.close()
    everything = [*done[0], *done[1]]
    assert sorted(int(m.body) for m in everything) == list(range(40))
    assert {m.body for m in everything if m.redelivered} == {m.body for m in held}
    assert min(map(len, done.values())) >= 10


@in_a_loop
async def test_a_fanout_exchange_copies_to_every_subscriber(uri: str, name: Name) -> None:
    async with channel_on(uri) as channel:
        exchange = await channel.declare_exchange(name("news"), ExchangeType.FANOUT)
        queues = [await channel.declare_queue(exclusive=True) for _ in range(3)]
        for queue in queues:
            await queue.bind(exchange)
        await exchange.publish(Message(b"extra"), "ignored")
        for queue in queues:
            assert [message.body for message in await drain(queue)] == [b"extra"]


@pytest.mark.parametrize("kind", ["topic", "headers"])
@in_a_loop
async def test_routing(uri: str, name: Name, kind: str) -> None:
    async with channel_on(uri) as channel:
        exchange = await channel.declare_exchange(name(kind), kind)
        queues = {}
        for short, bound in ROUTES[kind]["bindings"].items():
            queues[short] = await channel.declare_queue(name(short), exclusive=True)
            for key in bound if kind == "topic" else [""]:
                arguments = bound if kind == "headers" else None
                await queues[short].bind(exchange, key, arguments=arguments)
        for i, (address, _) in enumerate(ROUTES[kind]["messages"]):
            key, headers = (address, None) if kind == "topic" else ("", address)
            message = Message(b"%d" % i, headers=headers)
            await exchange.publish(message, key, mandatory=False)
        for short, queue in queues.items():
            assert [int(m.body) for m in await drain(queue)] == routed(kind, short), short


@in_a_loop
async def test_rpc_through_direct_reply_to(uri: str, name: Name) -> None:
    async with channel_on(uri) as serving, channel_on(uri) as calling:
        requests = await serving.declare_queue(name("requests"), auto_delete=True)

        async def answer(message: AbstractIncomingMessage) -> None:
            reply = Message(message.body.upper(), correlation_id=message.correlation_id)
            await serving.default_exchange.publish(reply, message.reply_to)

        await requests.consume(answer, no_ack=True)
        answers: dict[str, bytes] = {}
        replies = await calling.get_queue("amq.rabbitmq.reply-to", ensure=False)

        async def collect(message: AbstractIncomingMessage) -> None:
            answers[message.correlation_id] = message.body

        await replies.consume(collect, no_ack=True)
        for i in range(10):
            request = Message(
                b"call %d" % i, correlation_id=str(i), reply_to="amq.rabbitmq.reply-to"
            )
            await calling.default_exchange.publish(request, requests.name)
        await until(lambda: len(answers) == 10)
    assert answers == {str(i): b"CALL %d" % i for i in range(10)}


@in_a_loop
async def test_confirms_resolve_concurrent_publishes(uri: str, name: Name) -> None:
    async with channel_on(uri) as channel:
        queue = await channel.declare_queue(name("confirmed"))
        publish = channel.default_exchange.publish
        await asyncio.gather(*(publish(Message(b"%d" % i), queue.name) for i in range(200)))
        assert len(await drain(queue)) == 200


@in_a_loop
async def test_an_unroutable_mandatory_message_raises(uri: str, name: Name) -> None:
    async with await aio_pika.connect(uri) as connection:
        channel = await connection.channel(on_return_raises=True)
        with pytest.raises(DeliveryError) as error:
            await channel.default_exchange.publish(Message(b"lost"), name("nowhere"))
        assert "NO_ROUTE" in str(error.value)


@in_a_loop
async def test_prefetch_bounds_what_is_unacked(uri: str, name: Name) -> None:
    got: list[AbstractIncomingMessage] = []
    async with channel_on(uri) as channel:
        queue = await channel.declare_queue(name("prefetch"))
        for i in range(20):
            await channel.default_exchange.publish(Message(b"%d" % i), queue.name)
        await channel.set_qos(prefetch_count=5)
        await queue.consume(take(got))
        await until(lambda: len(got) == 5)
        assert (await channel.declare_queue(queue.name, passive=True)).declaration_result
        await got[2].ack(multiple=True)
        await until(lambda: len(got) == 8)
        found = await channel.declare_queue(queue.name, passive=True)
        assert (found.declaration_result.message_count, len(got)) == (12, 8)


@in_a_loop
async def test_consumers_are_cancelled_by_client_and_by_server(uri: str, name: Name) -> None:
    async with channel_on(uri) as channel, channel_on(uri) as other:
        queue = await channel.declare_queue(name("cancel"))
        tag = await queue.consume(ignore)
        await queue.cancel(tag)
        await channel.default_exchange.publish(Message(b"stays"), queue.name)
        found = await channel.declare_queue(queue.name, passive=True)
        assert found.declaration_result.consumer_count == 0
        assert found.declaration_result.message_count == 1

        cancelled: list[str] = []
        underlay = await channel.get_underlay_channel()
        underlay.on_consumer_cancel_callbacks.add(
            lambda frame: cancelled.append(frame.consumer_tag)
        )
        tag = await queue.consume(ignore)
        other_queue = await other.get_queue(queue.name)
        await other_queue.delete(if_unused=False, if_empty=False)
        await until(lambda: cancelled == [tag])
        assert not channel.is_closed


@in_a_loop
async def test_heartbeats_keep_an_idle_connection_alive(proxy: Proxy) -> None:
    async with await aio_pika.connect(proxy.uri + "?heartbeat=1") as connection:
        await until(lambda: min(proxy.heartbeats.values()) >= 3)
        channel = await connection.channel()
        assert not channel.is_closed


@in_a_loop
async def test_an_unresponsive_client_is_dropped(proxy: Proxy) -> None:
    connection = await aio_pika.connect(proxy.uri + "?heartbeat=1")
    lost: list[BaseException] = []
    connection.close_callbacks.add(lambda _, reason: lost.append(reason))
    proxy.freeze_client()
    await until(lambda: proxy.dropped_by_broker)
    await until(lambda: lost)
    assert isinstance(lost[0], AMQPConnectionError)
    await connection.close()


@pytest.mark.parametrize("body", [b"", b"x", LARGE], ids=["empty", "tiny", "5 MiB"])
@in_a_loop
async def test_bodies_of_any_size(uri: str, name: Name, body: bytes) -> None:
    async with channel_on(uri) as channel:
        queue = await channel.declare_queue(name("sizes"))
        await channel.default_exchange.publish(Message(body), queue.name)
        assert [message.body for message in await drain(queue)] == [body]


@in_a_loop
async def test_every_property_survives_the_journey(uri: str, name: Name) -> None:
    headers = {**HEADERS, "float": 0.5, "bytes": bytearray(b"\x00\xff"), "sent": SENT_AT}
    properties = {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "delivery_mode": DeliveryMode.PERSISTENT,
        "priority": 9,
        "correlation_id": "c-1",
        "reply_to": "replies",
        "expiration": 60,
        "message_id": "m-1",
        "timestamp": SENT_AT,
        "type": "order.created",
        "user_id": "guest",
        "app_id": "interop",
    }
    async with channel_on(uri) as channel:
        queue = await channel.declare_queue(name("properties"))
        message = Message(b"{}", headers=headers, **properties)
        await channel.default_exchange.publish(message, queue.name)
        received = await queue.get(no_ack=True)
    assert received.headers == headers
    assert {each: getattr(received, each) for each in properties} == properties


async def fails(connection: AbstractConnection, exception: type, operation: Callable) -> None:
    """`operation` closes its channel with this exception, and the connection lives on."""
    channel = await connection.channel()
    with pytest.raises(exception):
        await operation(channel)
    assert not connection.is_closed


@in_a_loop
async def test_channel_errors_have_exceptions_of_their_own(uri: str, name: Name) -> None:
    async with await aio_pika.connect(uri) as owner, await aio_pika.connect(uri) as stranger:
        channel = await owner.channel()
        await channel.declare_queue(name("mine"), exclusive=True)
        shared = await channel.declare_queue(name("shared"))
        await shared.consume(ignore, exclusive=True)
        for exception, operation in (
            (ChannelNotFoundEntity, lambda c: c.declare_queue(name("missing"), passive=True)),
            (ChannelNotFoundEntity, lambda c: c.get_exchange(name("missing"))),
            (ChannelPreconditionFailed, lambda c: c.declare_queue(name("shared"), durable=True)),
            (ChannelPreconditionFailed, lambda c: c.declare_exchange("amq.topic", "fanout")),
            (ChannelLockedResource, lambda c: c.declare_queue(name("mine"), exclusive=True)),
            (ChannelAccessRefused, lambda c: c.declare_queue("amq.reserved")),
        ):
            await fails(stranger, exception, operation)

        async def consume_too(channel: AbstractChannel) -> None:
            await (await channel.get_queue(name("shared"))).consume(ignore)

        await fails(stranger, ChannelAccessRefused, consume_too)


@in_a_loop
async def test_auto_delete_queues_go_with_their_last_consumer(uri: str, name: Name) -> None:
    async with channel_on(uri) as channel, await aio_pika.connect(uri) as prober:
        queue = await channel.declare_queue(name("auto"), auto_delete=True)
        await queue.cancel(await queue.consume(ignore))
        await fails(
            prober,
            ChannelNotFoundEntity,
            lambda probe: probe.declare_queue(queue.name, passive=True),
        )


@in_a_loop
async def test_a_wrong_password_is_refused_as_such(uri: str) -> None:
    with pytest.raises((ProbableAuthenticationError, AMQPConnectionError), match="ACCESS_REFUSED"):
        await aio_pika.connect(uri.replace(":guest@", ":wrong@"))


async def routed_to_a_queue(exchange: AbstractExchange, body: bytes) -> bool:
    try:
        await exchange.publish(Message(body), "a.b", mandatory=True)
    except DeliveryError:
        return False
    return True


@in_a_loop
async def test_a_robust_connection_restores_everything_after_each_cut(
    uri: str, name: Name, proxy: Proxy
) -> None:
    got: list[bytes] = []

    async def receive(message: AbstractIncomingMessage) -> None:
        async with message.process():
            got.append(message.body)

    connection = await aio_pika.connect_robust(proxy.uri, reconnect_interval=0.1)
    async with connection, await aio_pika.connect(uri) as publisher:
        publishing = await publisher.channel(on_return_raises=True)
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=2)
        exchange = await channel.declare_exchange(name("robust"), ExchangeType.TOPIC)
        queue = await channel.declare_queue(name("robust"), auto_delete=True)
        await queue.bind(exchange, "a.*")
        await queue.consume(receive)
        target = await publishing.get_exchange(exchange.name)
        for attempt in range(3):
            body = b"%d" % attempt
            # The auto-delete queue went with the cut; mandatory publishes tell when it is back.
            async with asyncio.timeout(10):
                while not await routed_to_a_queue(target, body):
                    await asyncio.sleep(0.02)
            await until(lambda body=body: body in got)
            accepted = proxy.accepted
            proxy.cut()
            await until(lambda accepted=accepted: proxy.accepted > accepted)
    assert set(got) == {b"0", b"1", b"2"}

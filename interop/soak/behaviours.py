"""What the soak's clients do to the broker. Each function is one client's life.

They get the broker's URI, a random source and a `Names`, and raise where the broker does not do
what it must, such as hanging up on garbage.
"""

import asyncio
import contextlib
import itertools
import random
import socket
from collections.abc import Callable

import aio_pika
import pika
from pamqp import body, commands, frame, header
from pika.exceptions import ChannelClosedByBroker
from raw_client import HEADER, RawClient

KIB = 1024
CHANNELS = 50


class Names:
    """Hands out queue names and remembers them: at the end none of these queues may be left."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._count = itertools.count()
        self.given: list[str] = []

    def __call__(self) -> str:
        self.given.append(f"{self._prefix}.{next(self._count)}")
        return self.given[-1]


def crash_with_unacked_deliveries(uri: str, rng: random.Random, name: Names) -> None:
    client = RawClient(uri).handshake().open_channel()
    for options in ({"exclusive": True}, {"auto_delete": True}):
        queue = client.declare(name(), **options)
        client.publish(queue, rng.randbytes(rng.randrange(2 * KIB)), count=50)
        client.call(1, commands.Basic.Consume(queue=queue), commands.Basic.ConsumeOk)
        client.expect(commands.Basic.Deliver)
    client.reset()


def crash_in_mid_message(uri: str, rng: random.Random, name: Names) -> None:
    client = RawClient(uri).handshake().open_channel()
    queue = client.declare(name(), exclusive=True)
    size = rng.randrange(2 * KIB, 512 * KIB)
    client.send(
        1,
        commands.Basic.Publish(routing_key=queue),
        header.ContentHeader(0, size, commands.Basic.Properties()),
        body.ContentBody(rng.randbytes(min(size // 2, 100 * KIB))),
    )
    if rng.random() < 0.5:  # and in the middle of a frame, too
        client.socket.sendall(b"\x03\x00\x01\x00\x00\x10\x00half")
    client.reset()


def crash_in_a_transaction(uri: str, rng: random.Random, name: Names) -> None:
    client = RawClient(uri).handshake().open_channel()
    queue = client.declare(name(), exclusive=True)
    client.call(1, commands.Tx.Select(), commands.Tx.SelectOk)
    client.publish(queue, rng.randbytes(KIB), count=100)
    client.reset()


def half_close(uri: str, rng: random.Random, name: Names) -> None:
    client = RawClient(uri).handshake().open_channel()
    queue = client.declare(name(), exclusive=True)
    client.call(1, commands.Basic.Consume(queue=queue), commands.Basic.ConsumeOk)
    client.publish(queue, b"for nobody", count=rng.randrange(100))
    client.socket.shutdown(socket.SHUT_WR)
    client.wait_for_end()
    client.hang_up()


def never_read(uri: str, rng: random.Random, name: Names) -> None:
    """Consumes and does not read, while 8 MiB are published into its queue."""
    deaf = RawClient(uri, receive_buffer=4 * KIB).handshake().open_channel()
    queue = deaf.declare(name(), auto_delete=True)
    deaf.send(1, commands.Basic.Consume(queue=queue, no_ack=rng.random() < 0.5))
    publisher = RawClient(uri).handshake().open_channel()
    publisher.publish(queue, rng.randbytes(64 * KIB), count=128)
    publisher.declare(name(), exclusive=True)  # answered once all of it has been read
    publisher.close()
    deaf.reset()


def publish_without_consuming(uri: str, rng: random.Random, name: Names) -> None:
    client = RawClient(uri).handshake().open_channel()
    queue = client.declare(name(), exclusive=True)
    client.publish(queue, rng.randbytes(rng.randrange(KIB)), count=rng.randrange(2000))
    client.publish("no such queue", b"unroutable", count=100)
    client.close()


def abandon_channels(uri: str, rng: random.Random, name: Names) -> None:
    client = RawClient(uri).handshake().open_channel()
    queue = client.declare(name(), exclusive=True)
    client.publish(queue, b"x", count=CHANNELS)
    for number in range(2, CHANNELS + 2):
        client.open_channel(number)
        client.call(number, commands.Basic.Get(queue=queue), commands.Basic.GetOk)
    for number in range(2, CHANNELS + 2, 2):
        client.call(number, commands.Channel.Close(200, "OK", 0, 0), commands.Channel.CloseOk)
    client.hang_up()


def send_garbage(uri: str, rng: random.Random, name: Names) -> None:
    """Before, during or after the handshake: the broker must hang up."""
    client = RawClient(uri)
    stage = rng.randrange(3)
    if stage == 1:
        client.socket.sendall(HEADER)
    elif stage == 2:
        client.handshake().open_channel().declare(name(), exclusive=True)
    # It may hang up while we are still talking.
    with contextlib.suppress(ConnectionError):
        client.socket.sendall(b"\xff" + rng.randbytes(rng.randrange(8, 8 * KIB)))
    client.wait_for_end()
    client.hang_up()


def send_a_wrong_frame(uri: str, rng: random.Random, name: Names) -> None:
    """A frame that only looks right: the broker must say why, and hang up whatever we answer."""
    client = RawClient(uri).handshake().open_channel()
    client.declare(name(), exclusive=True)
    good = frame.marshal(commands.Queue.Declare(queue="x"), 1)
    bad = [
        good[:-1] + b"\x00",  # no frame end
        b"\x03\x00\x01\x7f\xff\xff\xff",  # larger than frame-max
        good[:13] + b"\xff" + good[14:],  # a name that is longer than the frame
        frame.marshal(commands.Basic.Ack(1), 99),  # a channel that is not open
        frame.marshal(body.ContentBody(b"from nowhere"), 1),
    ]
    client.socket.sendall(rng.choice(bad))
    client.expect_close()
    if rng.random() < 0.9:
        client.send(0, commands.Connection.CloseOk())
    client.wait_for_end()
    client.hang_up()


def stop_in_the_handshake(uri: str, rng: random.Random, name: Names) -> None:
    client = RawClient(uri)
    client.socket.sendall(HEADER[: rng.randrange(len(HEADER) + 1)])
    if rng.random() < 0.1:
        client.wait_for_end()  # the broker's patience ends first
        client.hang_up()
    else:
        client.reset()


def exceed_the_heartbeat(uri: str, rng: random.Random, name: Names) -> None:
    client = RawClient(uri).handshake(heartbeat=1).open_channel()
    client.declare(name(), exclusive=True)
    client.wait_for_end()
    client.hang_up()


def connect_and_vanish(uri: str, rng: random.Random, name: Names) -> None:
    for client in [RawClient(uri) for _ in range(20)]:
        rng.choice([client.reset, client.hang_up])()


def declare_and_delete_with_pika(uri: str, rng: random.Random, name: Names) -> None:
    with pika.BlockingConnection(pika.URLParameters(uri)) as connection:
        channel = connection.channel()
        exchange = name()
        channel.exchange_declare(exchange, rng.choice(["direct", "fanout", "topic"]))
        for _ in range(20):
            queue = name()
            channel.queue_declare(queue)
            channel.queue_bind(queue, exchange, "some.key")
            channel.basic_publish(exchange, "some.key", b"to be deleted")
            channel.queue_delete(queue)
        channel.exchange_delete(exchange)


def make_channel_errors_with_pika(uri: str, rng: random.Random, name: Names) -> None:
    with pika.BlockingConnection(pika.URLParameters(uri)) as connection:
        for _ in range(10):
            channel = connection.channel()
            queue = channel.queue_declare(name(), exclusive=True).method.queue
            wrong: list[Callable[[], object]] = [
                lambda c=channel: c.queue_declare("no such queue", passive=True),
                lambda c=channel: c.queue_bind("no such queue", "amq.topic"),
                lambda c=channel, q=queue: c.queue_declare(q, auto_delete=True, exclusive=True),
                lambda c=channel: c.exchange_delete("amq.topic"),
            ]
            try:
                rng.choice(wrong)()
            except ChannelClosedByBroker:
                continue
            raise AssertionError("the broker accepted what it must refuse")


def work_with_aio_pika(uri: str, rng: random.Random, name: Names) -> None:
    """A healthy client in a hurry: half of its tasks are cancelled at work."""

    async def life() -> None:
        async with await aio_pika.connect(uri) as connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=10)
            queue = await channel.declare_queue(name(), auto_delete=True)
            publish = channel.default_exchange.publish
            messages = [aio_pika.Message(rng.randbytes(rng.randrange(KIB))) for _ in range(100)]
            await asyncio.gather(*(publish(message, queue.name) for message in messages))
            received = 0
            async with asyncio.timeout(20), queue.iterator() as iterator:
                async for message in iterator:
                    await message.ack()
                    received += 1
                    if received == len(messages) // 2:
                        break

    asyncio.run(life())


Behaviour = Callable[[str, random.Random, Names], None]

ALL: list[Behaviour] = [
    crash_with_unacked_deliveries,
    crash_in_mid_message,
    crash_in_a_transaction,
    half_close,
    never_read,
    publish_without_consuming,
    abandon_channels,
    send_garbage,
    send_a_wrong_frame,
    stop_in_the_handshake,
    exceed_the_heartbeat,
    connect_and_vanish,
    declare_and_delete_with_pika,
    make_channel_errors_with_pika,
    work_with_aio_pika,
]

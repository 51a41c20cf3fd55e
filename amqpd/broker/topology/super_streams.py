"""Super streams: an exchange and the streams that are its partitions, declared together.

RabbitMQ has them as a topology that a command of its own makes (`rabbitmq-streams
add_super_stream`), with names as here: the partitions of `invoices` are `invoices-0`, `invoices-1`
and so on. There publishers choose the partition; here the exchange does, by the routing key.

Source: RabbitMQ, "Streams", super streams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from amqpd import errors
from amqpd.broker.arguments import TABLE
from amqpd.broker.exchanges.exchange import Exchange
from amqpd.broker.exchanges.super_stream import PARTITIONS, SUPER_STREAM
from amqpd.broker.permissions import Actor
from amqpd.broker.topology.bindings import bind
from amqpd.broker.topology.queues import declare_queue
from amqpd.wire import fields, tables
from amqpd.wire.arguments import NO_ARGUMENTS, Arguments, arguments_at

if TYPE_CHECKING:
    from amqpd.broker.broker import Broker

_TYPE: Final = fields.text("x-queue-type", "stream")


def check_durable(actor: Actor, name: str, type_name: str, *, durable: bool) -> None:
    """Refuses a super stream that would be gone before its streams; ChannelException 406."""
    if type_name == SUPER_STREAM and not durable:
        words = actor.vhost.words("exchange", name)
        raise errors.precondition_failed(f"invalid property 'non-durable' for {words}")


def declare_partitions(
    broker: Broker, actor: Actor, name: str, type_name: str, arguments: Arguments
) -> None:
    """Declares the streams of a super stream, which is about to be declared itself.

    Raises:
        ChannelException: as for each of them.
    """
    if type_name != SUPER_STREAM:
        return
    of_streams = _of_streams(arguments)
    for number in range(arguments.values[PARTITIONS]):
        declare_queue(
            broker,
            actor,
            f"{name}-{number}",
            durable=True,
            exclusive=False,
            auto_delete=False,
            arguments=of_streams,
        )


def bind_partitions(broker: Broker, actor: Actor, exchange: Exchange) -> None:
    """Binds the streams to the exchange that was declared with them."""
    if exchange.type_name == SUPER_STREAM:
        for number in range(exchange.arguments.values[PARTITIONS]):
            queue = f"{exchange.name}-{number}"
            bind(broker, actor, exchange.name, "queue", queue, str(number), NO_ARGUMENTS)


def _of_streams(arguments: Arguments) -> Arguments:
    """The arguments that the streams get: those of the exchange that streams know."""
    found, _ = tables.entries(arguments.encoded, 0)
    entries = [
        arguments.encoded[entry.start : entry.end]
        for entry in found
        if entry.name in TABLE and entry.name != "x-queue-type"
    ]
    body = b"".join([*entries, _TYPE])
    return arguments_at(len(body).to_bytes(4, "big") + body, 0)

"""What basic.consume means on a stream. Source: RabbitMQ, "Streams", consuming."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqpd import errors
from amqpd.broker.consumer import Consumer
from amqpd.broker.queues import stream_arguments
from amqpd.broker.queues.cursor import Cursor
from amqpd.broker.queues.stream import TAGS_MAX

if TYPE_CHECKING:
    from amqpd.broker.queues.queue import Queue
    from amqpd.broker.queues.stream import Stream
    from amqpd.session.channel import Channel
    from amqpd.wire.arguments import Arguments

ARGUMENTS = (
    stream_arguments.OFFSET,
    stream_arguments.FILTER,
    stream_arguments.MATCH_UNFILTERED,
    stream_arguments.TRACKING,
)


def check_prefetch(channel: Channel, queue: Queue, *, no_ack: bool) -> None:
    """Refuses consumers that a stream cannot have.

    Raises:
        ChannelException: 406 without a prefetch count.
        ConnectionException: 540 for one without acknowledgements, or with a limit that its channel
            shares.
    """
    words = channel.session.vhost.words("queue", queue.name)
    if not channel.prefetch_each:
        raise errors.precondition_failed(f"consumer prefetch count is not set for stream {words}")
    if no_ack:
        raise errors.not_implemented(f"automatic acknowledgement not supported by stream {words}")
    if channel.prefetch_all:
        raise errors.not_implemented(f"{words} does not support global qos")


def read_by(
    channel: Channel, stream: Stream, consumer: Consumer, tag: str, arguments: Arguments
) -> bool:
    """Lets a consumer read a stream; whether it is remembered from now on where it begins.

    Args:
        tag: as the client gave it.

    Raises:
        ChannelException: 406 for arguments that are not what they may be.
    """
    broker = channel.session.broker
    now_ms = int((broker.epoch + broker.now) * 1000)
    name = stream_arguments.OFFSET
    try:
        origin = stream_arguments.read_from(arguments, now_ms)
        name = stream_arguments.FILTER
        wants = stream_arguments.stream_filter(arguments)
        name = stream_arguments.MATCH_UNFILTERED
        if not isinstance(arguments.values.get(name, False), bool):
            raise ValueError("expected true or false")
        name = stream_arguments.TRACKING
        is_tracked = arguments.values.get(name, False)
        if not isinstance(is_tracked, bool):
            raise ValueError("expected true or false")
        if is_tracked and not tag:
            raise ValueError("it needs a consumer tag that stays the same")
        if is_tracked and not stream.can_remember(tag):
            raise ValueError(f"no more than {TAGS_MAX} consumer tags are remembered")
    except ValueError as error:
        words = channel.session.vhost.words("queue", consumer.queue.name)
        raise errors.precondition_failed(f"invalid arg '{name}' for {words}: {error}") from None
    consumer.cursor = Cursor(consumer, origin, wants, tag if is_tracked else "")
    return stream.join(consumer.cursor)

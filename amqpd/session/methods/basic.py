"""Class basic (60), the small ones: qos, get, and deliveries one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

from amqpd import errors
from amqpd.broker.consumer import Consumer
from amqpd.broker.message import BODY, ENVELOPE, HEADER, Message
from amqpd.broker.permissions import check
from amqpd.session.ack_timeout import patience
from amqpd.session.methods.names import queue_name
from amqpd.session.stream_offset import with_offset
from amqpd.wire.content import content_frames
from amqpd.wire.methods import Basic, encode_method

if TYPE_CHECKING:
    from amqpd.session.channel import Channel


def qos(channel: Channel, method: Basic.Qos, payload: bytes) -> None:
    """Source: RabbitMQ, "Consumer prefetch": `global` means the channel, else each consumer."""
    if method.prefetch_size:
        raise errors.not_implemented(f"prefetch_size!=0 ({method.prefetch_size})")
    if method.global_ and channel.session.broker.config.compatibility.global_qos:
        channel.limit_all(method.prefetch_count)
    else:
        channel.prefetch_each = method.prefetch_count
        channel.limit_all(0)  # as RabbitMQ has it
    channel.say(Basic.QosOk())
    channel.session.broker.settle_touched()


def get(channel: Channel, method: Basic.Get, payload: bytes) -> None:
    session = channel.session
    name = queue_name(channel, method.queue)
    check(session.actor, "read", "queue", name)
    queue = session.vhost.queue(name, session)
    if queue.stream is not None:
        words = session.vhost.words("queue", name)
        raise errors.not_implemented(f"basic.get not supported by stream queues {words}")
    if queue.selection.single and queue.type == "quorum":
        raise errors.resource_locked(
            f"cannot obtain access to locked {session.vhost.words('queue', name)}. basic.get "
            "operations are not supported by quorum queues with single active consumer"
        )
    seconds, gives_back = patience(channel, queue, {})
    getter = Consumer(
        "",
        queue,
        channel,
        no_ack=method.no_ack,
        exclusive=False,
        prefetch=0,
        priority=0,
        arguments={},
        ack_timeout_s=seconds,
        gives_back=gives_back,
    )
    getter.counts = False
    run = queue.get(getter)
    if run is None and queue.is_coming:
        session.flow.suspend(queue)
        return
    if run is None:
        session.broker.counters.got_empty += 1
        channel.say(Basic.GetEmpty())
        return
    session.broker.counters.got += 1
    message = run.messages[0]
    if session.broker.firehose is not None:
        channel.copy_delivered(getter, run.messages, run.redelivered)
    channel.last_tag += 1
    if not method.no_ack:
        channel.unacked.by_tag[channel.last_tag] = (getter, run.numbers[0], message)
        if getter.ack_timeout_s != inf:
            channel.ack_timeout.watch(getter)
    say_with_content(
        channel,
        Basic.GetOk(
            delivery_tag=channel.last_tag,
            redelivered=run.redelivered,
            exchange=message[ENVELOPE].exchange,
            routing_key=message[ENVELOPE].routing_key,
            message_count=queue.ready,
        ),
        message,
    )


def deliver(
    channel: Channel,
    consumer: Consumer,
    numbers: Sequence[int],
    messages: Sequence[Message],
    redelivered: bool,
) -> None:
    """Sends messages to a consumer; `session/hotpath.py` does the same for many at once."""
    for number, message in zip(numbers, messages, strict=True):
        if consumer.cursor is not None:
            message = with_offset(message, number)
        channel.last_tag += 1
        if not consumer.no_ack:
            channel.unacked.by_tag[channel.last_tag] = (consumer, number, message)
        say_with_content(
            channel,
            Basic.Deliver(
                consumer_tag=consumer.tag,
                delivery_tag=channel.last_tag,
                redelivered=redelivered,
                exchange=message[ENVELOPE].exchange,
                routing_key=message[ENVELOPE].routing_key,
            ),
            message,
        )


def say_with_content(
    channel: Channel, method: Basic.Deliver | Basic.GetOk | Basic.Return, message: Message
) -> None:
    """Sends a method and the content of a message behind it."""
    session = channel.session
    session.say(encode_method(channel.number, method))
    for piece in content_frames(
        message[HEADER], message[BODY], channel.number, session.frame_bytes_max
    ):
        session.say(piece)

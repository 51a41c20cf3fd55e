"""basic.consume and basic.cancel. Source: RabbitMQ, "Consumers"."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from amqpd import errors
from amqpd.broker.arguments import problem
from amqpd.broker.consumer import Consumer
from amqpd.broker.permissions import check
from amqpd.broker.queues.direct_reply import REPLY_PREFIX, REPLY_QUEUE, DirectReply
from amqpd.broker.queues.pace import Pace
from amqpd.broker.topology.queues import generated_name
from amqpd.session.ack_timeout import patience
from amqpd.session.methods import stream_consumer
from amqpd.session.methods.names import queue_name
from amqpd.wire.arguments import Arguments, method_arguments
from amqpd.wire.methods import Basic
from amqpd.wire.tables import INTEGER_TYPES, TYPE_NAMES

if TYPE_CHECKING:
    from amqpd.broker.queues.queue import Queue
    from amqpd.session.channel import Channel


OWN_ARGUMENTS = ("x-ack-timeout", "x-max-rate")  # they are what they are of a queue
NOT_FOR_STREAMS = ("x-priority", "x-ack-timeout")  # all read the same, and nothing goes back


def consume(channel: Channel, method: Basic.Consume, payload: bytes) -> None:
    session = channel.session
    if method.queue == REPLY_QUEUE:
        _consume_replies(channel, method)
        return
    name = queue_name(channel, method.queue)
    _check_tag(channel, method.consumer_tag)
    check(session.actor, "read", "queue", name)
    queue = session.vhost.queue(name, session)
    if queue.stream is not None:
        stream_consumer.check_prefetch(channel, queue, no_ack=method.no_ack)
    _check_exclusive(channel, queue, method.exclusive)
    arguments = method_arguments(payload)
    _check_arguments(channel, queue, arguments)
    priority = _integer(queue, channel, arguments, "x-priority") or 0
    _integer(queue, channel, arguments, "x-consumer-timeout")
    seconds, gives_back = patience(channel, queue, arguments.values)
    tag = method.consumer_tag or generated_name(session.broker, "amq.ctag-")
    consumer = Consumer(
        tag,
        queue,
        channel,
        no_ack=method.no_ack,
        exclusive=method.exclusive,
        prefetch=channel.prefetch_each,
        priority=priority,
        arguments=arguments.values,
        ack_timeout_s=seconds,
        gives_back=gives_back,
        pace=_pace(channel, arguments),
    )
    consumer.shares_limit = consumer.counts and channel.prefetch_all > 0
    is_remembered = queue.stream is not None and stream_consumer.read_by(
        channel, queue.stream, consumer, method.consumer_tag, arguments
    )
    channel.consumers[tag] = consumer
    queue.selection.add(consumer)
    queue.used()
    if session.broker.events is not None:
        session.broker.events.consumer_created(consumer, arguments, session.user)
    if method.exclusive:
        queue.exclusive_consumer = consumer
    if not method.nowait:
        say = channel.promise if is_remembered else channel.say
        say(Basic.ConsumeOk(consumer_tag=tag))
    session.broker.touch(queue)
    session.broker.settle_touched()


def _check_tag(channel: Channel, tag: str) -> None:
    if tag and tag in channel.consumers:
        raise errors.not_allowed(f"attempt to reuse consumer tag '{tag}'")
    limit = channel.session.broker.config.consumer.per_channel_max
    if limit and len(channel.consumers) >= limit:
        raise errors.not_allowed(f"reached maximum ({limit}) of consumers per channel")


def _check_exclusive(channel: Channel, queue: Queue, exclusive: bool) -> None:
    selection = queue.selection
    if queue.exclusive_consumer is not None or (
        exclusive and (selection.consumers or selection.single)
    ):
        words = channel.session.vhost.words("queue", queue.name)
        raise errors.access_refused(f"{words} in exclusive use")


def _check_arguments(channel: Channel, queue: Queue, arguments: Arguments) -> None:
    kind = queue.type
    for name in OWN_ARGUMENTS:
        if name in arguments.values and (why := problem(name, arguments)) is not None:
            words = channel.session.vhost.words("queue", queue.name)
            raise errors.precondition_failed(f"invalid arg '{name}' for {words}: {why}")
    unwanted = NOT_FOR_STREAMS if kind == "stream" else stream_consumer.ARGUMENTS
    for name in unwanted:
        if name in arguments.values:
            words = channel.session.vhost.words("queue", queue.name)
            raise errors.precondition_failed(
                f"invalid arg '{name}' for {words} of queue type rabbit_{kind}_queue"
            )


def _integer(queue: Queue, channel: Channel, arguments: Arguments, name: str) -> int | None:
    if name not in arguments.values:
        return None
    kind, value = arguments.types[name], arguments.values[name]
    why = ""
    if kind not in INTEGER_TYPES:
        why = f'"expected integer, got {TYPE_NAMES[kind]}"'
    elif name != "x-priority" and value < 0:
        why = f"{{value_negative,{value}}}"
    if why:
        words = channel.session.vhost.words("queue", queue.name)
        raise errors.precondition_failed(f"invalid arg '{name}' for {words}: {why}")
    return int(value)


def _pace(channel: Channel, arguments: Arguments) -> Pace | None:
    """How fast the consumer wants to be given messages."""
    rate = arguments.values.get("x-max-rate")
    return None if rate is None else Pace(float(rate), channel.session.broker.now)


def _consume_replies(channel: Channel, method: Basic.Consume) -> None:
    session = channel.session
    if channel.reply is not None:
        raise errors.precondition_failed("reply consumer already set")
    if not method.no_ack:
        raise errors.precondition_failed("reply consumer cannot acknowledge")
    _check_tag(channel, method.consumer_tag)
    channel.reply = DirectReply(generated_name(session.broker, REPLY_PREFIX))
    session.vhost.replies[channel.reply.name] = channel.reply
    tag = method.consumer_tag or generated_name(session.broker, "amq.ctag-")
    consumer = Consumer(
        tag,
        cast("Queue", channel.reply),  # it never settles, which is all that a reply address lacks
        channel,
        no_ack=True,
        exclusive=False,
        prefetch=0,
        priority=0,
        arguments={},
    )
    channel.reply.consumer = consumer
    channel.consumers[tag] = consumer
    if not method.nowait:
        channel.say(Basic.ConsumeOk(consumer_tag=tag))


def cancel(channel: Channel, method: Basic.Cancel, payload: bytes) -> None:
    consumer = channel.consumers.get(method.consumer_tag or "")
    if consumer is not None:
        channel.drop_consumer(consumer)
    if not method.nowait:
        channel.say(Basic.CancelOk(consumer_tag=method.consumer_tag))

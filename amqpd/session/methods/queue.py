"""Class queue (50). The rules are `broker/topology/`'s."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqpd import errors
from amqpd.broker.queues.direct_reply import REPLY_PREFIX, REPLY_QUEUE
from amqpd.broker.topology import bindings, queues
from amqpd.broker.topology.names import cleaned
from amqpd.session.methods.names import binding_key, queue_name
from amqpd.wire.arguments import method_arguments
from amqpd.wire.methods import Method, Queue

if TYPE_CHECKING:
    from amqpd.session.channel import Channel


def declare(channel: Channel, method: Queue.Declare, payload: bytes) -> None:
    if cleaned(method.queue).startswith(REPLY_QUEUE):
        _declare_reply(channel, method)
        return
    session = channel.session
    if method.passive:
        queue = queues.find_queue(session.actor, method.queue)
    else:
        queue = queues.declare_queue(
            session.broker,
            session.actor,
            method.queue,
            durable=method.durable,
            exclusive=method.exclusive,
            auto_delete=method.auto_delete,
            arguments=method_arguments(payload),
        )
    channel.last_queue = queue.name
    _answer(
        channel,
        method.nowait,
        Queue.DeclareOk(
            queue=queue.name,
            message_count=queue.ready,
            consumer_count=len(queue.selection.consumers),
        ),
        queue.durable,
    )


def _declare_reply(channel: Channel, method: Queue.Declare) -> None:
    """Clients ask this to learn whether a requester is still there."""
    name = cleaned(method.queue)
    vhost = channel.session.vhost
    if name.startswith(REPLY_PREFIX) and name not in vhost.replies:
        raise errors.not_found(f"no {vhost.words('queue', name)}")
    channel.last_queue = name
    _answer(
        channel,
        method.nowait,
        Queue.DeclareOk(queue=name, message_count=0, consumer_count=1),
        False,
    )


def delete(channel: Channel, method: Queue.Delete, payload: bytes) -> None:
    session = channel.session
    name = queue_name(channel, method.queue)
    count = queues.delete_queue(
        session.broker,
        session.actor,
        name,
        if_unused=method.if_unused,
        if_empty=method.if_empty,
    )
    _answer(channel, method.nowait, Queue.DeleteOk(message_count=count), True)


def bind(channel: Channel, method: Queue.Bind, payload: bytes) -> None:
    queue = queue_name(channel, method.queue)
    bindings.bind(
        channel.session.broker,
        channel.session.actor,
        method.exchange,
        "queue",
        queue,
        binding_key(method.queue, method.routing_key, queue),
        method_arguments(payload),
    )
    _answer(channel, method.nowait, Queue.BindOk(), True)


def unbind(channel: Channel, method: Queue.Unbind, payload: bytes) -> None:
    queue = queue_name(channel, method.queue)
    bindings.unbind(
        channel.session.broker,
        channel.session.actor,
        method.exchange,
        "queue",
        queue,
        binding_key(method.queue, method.routing_key, queue),
        method_arguments(payload),
    )
    _answer(channel, False, Queue.UnbindOk(), True)


def purge(channel: Channel, method: Queue.Purge, payload: bytes) -> None:
    name = queue_name(channel, method.queue)
    count = queues.purge_queue(channel.session.broker, channel.session.actor, name)
    _answer(channel, method.nowait, Queue.PurgeOk(message_count=count), True)


def _answer(channel: Channel, nowait: bool, method: Method, durable: bool) -> None:
    if nowait:
        return
    if durable:
        channel.promise(method)
    else:
        channel.say(method)

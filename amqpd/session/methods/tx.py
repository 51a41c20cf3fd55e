"""Class tx (90). Source: AMQP 0-9-1 class tx; RabbitMQ, "AMQP 0-9-1 transactions"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqpd import errors
from amqpd.broker.exchanges.deduplication import Gate
from amqpd.broker.message import ENVELOPE
from amqpd.broker.queues.queue import Queue
from amqpd.broker.routing import route
from amqpd.session.methods.publish import send
from amqpd.session.methods.settle import apply
from amqpd.session.transaction import Transaction
from amqpd.wire.methods import Tx

if TYPE_CHECKING:
    from amqpd.broker.routing import Target
    from amqpd.broker.vhost import Vhost
    from amqpd.session.channel import Channel


def select(channel: Channel, method: Tx.Select, payload: bytes) -> None:
    if channel.confirms is not None:
        raise errors.precondition_failed("cannot switch from confirm to tx mode")
    if channel.transaction is None:
        channel.transaction = Transaction()
        # Publishes go the slow way from here on, where the transaction is looked at.
        channel.session.forget_routes()
    channel.say(Tx.SelectOk())


def commit(channel: Channel, method: Tx.Commit, payload: bytes) -> None:
    transaction = _transaction(channel)
    channel.transaction = Transaction()
    vhost = channel.session.vhost
    accepted = True
    for publish in transaction.publishes:
        queues = _as_they_are_now(vhost, publish.queues)
        if not queues and not publish.message[ENVELOPE].exchange:
            # The default exchange names its queue; RabbitMQ looks for it at the commit.
            queues = route(
                vhost, vhost.default_exchange, [publish.message[ENVELOPE].routing_key], {}
            ).queues
        if any(isinstance(each, Gate) and each.knows(publish.message) for each in queues):
            queues = ()  # a message with its key has come since it was routed
        accepted &= send(channel, publish.message, queues, publish.mandatory)
    for settlement in transaction.settlements:
        apply(channel, settlement.deliveries.values(), settlement.requeue, failed=settlement.failed)
    channel.session.broker.settle_touched()
    if not accepted:
        raise errors.precondition_failed("partial tx completion")
    channel.promise(Tx.CommitOk())


def _as_they_are_now(vhost: Vhost, queues: tuple[Target, ...]) -> tuple[Target, ...]:
    """What was routed to a queue that is gone is for one that has its name now, as in RabbitMQ."""
    if not any(isinstance(each, Queue) and each.deleted for each in queues):
        return queues
    found = [
        vhost.queues.get(each.name) if isinstance(each, Queue) and each.deleted else each
        for each in queues
    ]
    return tuple(each for each in found if each is not None)


def rollback(channel: Channel, method: Tx.Rollback, payload: bytes) -> None:
    _transaction(channel).rollback(channel)
    channel.say(Tx.RollbackOk())


def _transaction(channel: Channel) -> Transaction:
    if channel.transaction is None:
        raise errors.precondition_failed("channel is not transactional")
    return channel.transaction

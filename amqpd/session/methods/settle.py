"""ack, nack, reject and recover: the ways in which a client settles deliveries.

Source: AMQP 0-9-1 class basic; RabbitMQ, "Consumer acknowledgements", "Negative acknowledgement".
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from amqpd import errors
from amqpd.session.transaction import Settlement
from amqpd.session.unacked import Delivery
from amqpd.wire.methods import Basic

if TYPE_CHECKING:
    from amqpd.session.channel import Channel


def ack(channel: Channel, method: Basic.Ack, payload: bytes) -> None:
    _settle(channel, method.delivery_tag or 0, method.multiple, None)


def nack(channel: Channel, method: Basic.Nack, payload: bytes) -> None:
    _settle(channel, method.delivery_tag or 0, method.multiple, method.requeue)
    channel.session.broker.settle_touched()


def reject(channel: Channel, method: Basic.Reject, payload: bytes) -> None:
    _settle(channel, method.delivery_tag or 0, False, method.requeue, failed=True)
    channel.session.broker.settle_touched()


def recover(channel: Channel, method: Basic.Recover, payload: bytes) -> None:
    recover_async(channel, method, payload)
    channel.say(Basic.RecoverOk())
    channel.session.broker.settle_touched()


def recover_async(
    channel: Channel, method: Basic.Recover | Basic.RecoverAsync, payload: bytes
) -> None:
    if not method.requeue:
        raise errors.not_implemented("requeue=false")
    channel.requeue(channel.unacked.take_all(channel.last_tag).values())


def _settle(
    channel: Channel, tag: int, multiple: bool, requeue: bool | None, *, failed: bool = False
) -> None:
    """Settles for good (requeue None or False), or puts back; in a transaction at its commit."""
    taken = channel.unacked.take(tag, multiple, channel.last_tag)
    if channel.transaction is None:
        apply(channel, taken.values(), requeue, failed=failed)
    else:
        channel.transaction.settlements.append(Settlement(taken, requeue, failed))


def apply(
    channel: Channel, deliveries: Collection[Delivery], requeue: bool | None, *, failed: bool
) -> None:
    """Does what the client asked for.

    Args:
        failed: what is put back was not just returned, but could not be done.
    """
    counters = channel.session.broker.counters
    if requeue:
        channel.requeue(deliveries, failed=failed)
        return
    if requeue is None:
        counters.acknowledged += len(deliveries)
    else:
        counters.rejected += len(deliveries)
        channel.reject(deliveries)
        return
    channel.release(deliveries)

"""A transaction: publishes and settlements that wait for tx.commit.

Source: AMQP 0-9-1 class tx; RabbitMQ, "AMQP 0-9-1 transactions": not atomic across queues, and a
rollback does not redeliver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from amqpd import errors
from amqpd.broker.message import BODY, HEADER, Message
from amqpd.session.unacked import Delivery

if TYPE_CHECKING:
    from amqpd.broker.routing import Target
    from amqpd.session.channel import Channel


class Publish(NamedTuple):
    """A publish that was checked and routed and waits."""

    message: Message
    queues: tuple[Target, ...]
    mandatory: bool


class Settlement(NamedTuple):
    """Deliveries that were acknowledged (requeue None), or rejected.

    Attributes:
        failed: with basic.reject, which says that they could not be done.
    """

    deliveries: dict[int, Delivery]
    requeue: bool | None
    failed: bool


class Transaction:
    """What one channel has done since tx.select, the last commit or the last rollback.

    Bound: `limits.transaction_bytes_max` of publishes; settlements are at most what is unacked.
    """

    __slots__ = ("bytes", "publishes", "settlements")

    def __init__(self) -> None:
        self.bytes = 0
        self.publishes: list[Publish] = []
        self.settlements: list[Settlement] = []

    def publish(self, publish: Publish, bytes_max: int) -> None:
        """Keeps a publish for the commit; raises ChannelException 406 if there are too many."""
        self.bytes += len(publish.message[HEADER]) + len(publish.message[BODY])
        if self.bytes > bytes_max:
            raise errors.precondition_failed(
                f"transaction of {self.bytes} bytes is larger than configured max size {bytes_max}"
            )
        self.publishes.append(publish)

    def rollback(self, channel: Channel) -> None:
        """Forgets the publishes; what was settled is unsettled again."""
        self.publishes, self.bytes = [], 0
        settlements, self.settlements = self.settlements, []
        unsettled: dict[int, Delivery] = {}
        for settlement in settlements:
            unsettled.update(settlement.deliveries)
        channel.unacked.restore(unsettled)
        for consumer in {delivery[0] for delivery in unsettled.values()}:
            channel.ack_timeout.watch(consumer)

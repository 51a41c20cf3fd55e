"""A channel: delivery tags, prefetch, confirms and transactions of one client's conversation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from amqpd.broker.consumer import RUN_MESSAGES_MAX, Consumer
from amqpd.broker.message import Message
from amqpd.broker.queues.direct_reply import DirectReply
from amqpd.broker.topology.removal import remove_consumer
from amqpd.session.ack_timeout import AckTimeout, patience
from amqpd.session.confirms import Confirms
from amqpd.session.content import Assembly
from amqpd.session.transaction import Transaction
from amqpd.session.unacked import Delivery, Unacked
from amqpd.wire import fields
from amqpd.wire.methods import Basic, Method, encode_method

if TYPE_CHECKING:
    from amqpd.session.connection import Session

Deliver = Callable[["Channel", Consumer, Sequence[int], Sequence[Message], bool], None]


class Channel:
    """One open channel.

    Attributes:
        prefetch_each: limit of the consumers that start from now on, 0 for none.
        prefetch_all: limit of all consumers together, 0 for none.
        limited_unacked: what counts against `prefetch_all`.
        denied: consumers that got nothing because of that limit, or because the client does not
            read.
        last_tag: the last delivery tag given out.
        last_queue: name of the queue declared last, "" if none was.
        closing: channel.close was sent; all but its close-ok is ignored.
        assembly: the publish whose content is still coming.
        transaction: tx.select was sent.
        ack_timeout: looks after deliveries that are not settled.
        reply: the direct reply-to address, while the channel consumes from it.
    """

    def __init__(self, session: Session, number: int, deliver: Deliver) -> None:
        self.session = session
        self.number = number
        self.consumers: dict[str, Consumer] = {}
        self.unacked = Unacked()
        self.prefetch_each = session.broker.config.consumer.prefetch_default
        self.prefetch_all = 0
        self.limited_unacked = 0
        self.denied: dict[Consumer, None] = {}
        self.last_tag = 0
        self.last_queue = ""
        self.closing = False
        self.assembly: Assembly | None = None
        self.confirms: Confirms | None = None
        self.transaction: Transaction | None = None
        self.reply: DirectReply | None = None
        self.ack_timeout = AckTimeout(self)
        self._deliver = deliver

    @property
    def name(self) -> str:
        """What it is called where people look, as in RabbitMQ."""
        return f"{self.session.peer.name} ({self.number})"

    # --- what the client is told -------------------------------------------------------------

    def say(self, method: Method) -> None:
        """Sends a method."""
        self.session.say(encode_method(self.number, method))

    def promise(self, method: Method) -> None:
        """Sends a method once everything that was done so far is durable."""
        self.session.promise(self.number, method)

    # --- what a queue asks of a consumer's channel --------------------------------------------

    def room(self, consumer: Consumer) -> int:
        """How many more messages the consumer may be given now."""
        if self.session.is_clogged():
            self.denied[consumer] = None
            return 0
        room = RUN_MESSAGES_MAX
        if consumer.prefetch:
            room = min(room, consumer.prefetch - consumer.unacked)
        if self.prefetch_all and room > 0:
            left = self.prefetch_all - self.limited_unacked
            if left <= 0:  # holds consumers without acks too, as in RabbitMQ
                self.denied[consumer] = None
                return 0
            if not consumer.no_ack:
                room = min(room, left)
        if consumer.pace is not None and room > 0:
            broker = self.session.broker
            room = min(room, consumer.pace.left(broker.now))
            if not room:
                consumer.pace.rejoin(broker, consumer)
        return room

    def hold(self, ticket: int) -> None:
        """Nothing more may be said to the client before the ticket is committed."""
        self.session.hold(ticket)

    def takes_replies(self) -> bool:
        """Whether the client still reads, so that replies to its requests are of use."""
        return not self.session.is_flooded()

    def terms_changed(self, consumer: Consumer) -> None:
        """The consumer's queue has other terms: its deliveries may have another time."""
        if consumer.no_ack:
            return
        found = patience(self, consumer.queue, consumer.arguments)
        consumer.ack_timeout_s, consumer.gives_back = found
        if consumer.unacked:
            self.ack_timeout.watch(consumer)

    def deliver(
        self,
        consumer: Consumer,
        numbers: Sequence[int],
        messages: Sequence[Message],
        redelivered: bool,
    ) -> None:
        """Sends messages to the client."""
        counters = self.session.broker.counters
        counters.delivered += len(messages)
        if redelivered:
            counters.redelivered += len(messages)
        if not consumer.no_ack:
            self.limited_unacked += len(messages)
            if consumer.ack_timeout_s < self.ack_timeout.shortest_s:
                self.ack_timeout.watch(consumer)
        if self.session.broker.firehose is not None:
            self.copy_delivered(consumer, messages, redelivered)
        self._deliver(self, consumer, numbers, messages, redelivered)

    def copy_delivered(
        self, consumer: Consumer, messages: Sequence[Message], redelivered: bool
    ) -> None:
        """Tells the firehose what the client is given."""
        firehose, vhost = self.session.broker.firehose, self.session.vhost
        if firehose is not None:
            for message in messages:
                firehose.delivered(vhost, consumer.queue.name, message, redelivered, self.words())

    def words(self) -> tuple[bytes, ...]:
        """Entries of headers that say whose channel this is."""
        return (
            fields.text("connection", self.session.peer.name),
            fields.entry("channel", b"I", self.number.to_bytes(4, "big")),
            fields.text("user", self.session.user.name),
        )

    def cancelled(self, consumer: Consumer) -> None:
        """The queue is gone: tells the client if it said that it understands that."""
        self.consumers.pop(consumer.tag, None)
        if self.session.client_can("consumer_cancel_notify"):
            self.say(Basic.Cancel(consumer_tag=consumer.tag, nowait=True))

    # --- settling -------------------------------------------------------------------------------

    def release(self, deliveries: Iterable[Delivery]) -> None:
        """Deliveries are settled for good."""
        for consumer, group in by_consumer(deliveries).items():
            numbers = [number for number, _ in group]
            consumer.queue.release(consumer, numbers, [message for _, message in group])
            self.settled(consumer, len(group))

    def reject(self, deliveries: Iterable[Delivery]) -> None:
        """Deliveries were rejected, and are not to come back."""
        for consumer, group in by_consumer(deliveries).items():
            numbers = [number for number, _ in group]
            consumer.queue.reject(consumer, numbers, [message for _, message in group])
            self.settled(consumer, len(group))

    def requeue(self, deliveries: Iterable[Delivery], *, failed: bool = False) -> None:
        """Deliveries go back to their queues.

        Args:
            failed: because they could not be done, and not because they were returned.
        """
        for consumer, group in by_consumer(deliveries).items():
            consumer.queue.requeue(consumer, group, failed=failed)
            self.session.broker.counters.requeued += len(group)
            self.settled(consumer, len(group))

    def settled(self, consumer: Consumer, count: int) -> None:
        """`count` deliveries of the consumer are off the channel: there may be room again."""
        self.session.broker.touch(consumer.queue)
        if not consumer.counts:
            return
        self.limited_unacked -= count
        if self.denied:
            self.rejoin_denied()

    def limit_all(self, prefetch: int) -> None:
        """Limits what all consumers together may have unsettled; 0 for no limit."""
        if prefetch == self.prefetch_all:
            return
        self.prefetch_all = prefetch
        for consumer in self.consumers.values():
            consumer.shares_limit = consumer.counts and prefetch > 0
        self.rejoin_denied()

    def rejoin_denied(self) -> None:
        """Consumers that were denied room for the channel's sake may have some again."""
        denied, self.denied = self.denied, {}
        for consumer in denied:
            if consumer in consumer.queue.selection.consumers:
                consumer.queue.selection.rejoin(consumer)
                self.session.broker.touch(consumer.queue)

    # --- the end --------------------------------------------------------------------------------

    def shut(self) -> None:
        """Ends the channel's part in the broker: consumers go, unsettled messages go back."""
        session = self.session
        for consumer in list(self.consumers.values()):
            self.drop_consumer(consumer)
        if self.transaction is not None:
            self.transaction.rollback(self)
            self.transaction = None
        self.requeue(self.unacked.take_all(self.last_tag).values(), failed=True)
        self.confirms = None
        self.assembly = None
        self.ack_timeout.stop()
        self.denied.clear()
        session.forget_routes()

    def drop_consumer(self, consumer: Consumer) -> None:
        """The consumer stops; what it has unsettled stays with the channel."""
        del self.consumers[consumer.tag]
        session = self.session
        if isinstance(consumer.queue, DirectReply):
            consumer.queue.consumer = self.reply = None
            del session.vhost.replies[consumer.queue.name]
            session.vhost.generation += 1
        else:
            remove_consumer(session.broker, session.actor, consumer.queue, consumer)


def by_consumer(deliveries: Iterable[Delivery]) -> dict[Consumer, list[tuple[int, Message]]]:
    """Deliveries grouped by who had them, in their order."""
    groups: dict[Consumer, list[tuple[int, Message]]] = {}
    for consumer, number, message in deliveries:
        groups.setdefault(consumer, []).append((number, message))
    return groups

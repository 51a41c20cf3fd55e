"""A queue: its consumers, its unacknowledged messages, and the backlog that keeps the ready ones.

Publishes put messages into the inbox and acknowledgements go through `release`; once a read of a
client's socket is worked off, `absorb` and `dispatch` do the rest for the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from amqpd.broker.consumer import Consumer
from amqpd.broker.journal import Enqueued, Journal, Settled
from amqpd.broker.message import PERSISTENT, Message
from amqpd.broker.queues.classic import Classic, Run
from amqpd.broker.queues.selection import Selection
from amqpd.wire.arguments import Arguments

if TYPE_CHECKING:
    from amqpd.broker.exchanges.binding import Binding
    from amqpd.broker.permissions import Owner

CROWD = 4096  # ready messages


class Queue:
    """A named queue of one vhost.

    Attributes:
        queue_id: its number in the journal; never used again.
        exclusive_owner: the session that declared it exclusive, or None.
        inbox: messages published in this turn and not yet in the backlog.
        inbox_bytes: size of their bodies, about.
        unacked: deliveries that are not settled.
        incoming: the bindings that lead here, in the order in which they came.
        touched: it stands in the broker's list of queues to settle.
        deleted: it is gone; what is still unacked is dropped when it is settled.
    """

    kind = "queue"

    def __init__(
        self,
        queue_id: int,
        name: str,
        journal: Journal,
        *,
        durable: bool,
        auto_delete: bool,
        exclusive_owner: Owner | None,
        arguments: Arguments,
    ) -> None:
        self.queue_id = queue_id
        self.name = name
        self.durable = durable
        self.auto_delete = auto_delete
        self.exclusive_owner = exclusive_owner
        self.arguments = arguments
        self.backlog = Classic()
        self.selection = Selection()
        self.exclusive_consumer: Consumer | None = None
        self.incoming: dict[Binding, None] = {}
        self.inbox: list[Message] = []
        self.inbox_bytes = 0
        self.unacked = 0
        self.touched = False
        self.deleted = False
        self._journal = journal

    @property
    def ready(self) -> int:
        """Messages that wait for a consumer."""
        return self.backlog.ready

    @property
    def crowded(self) -> bool:
        """More is ready than its consumers, of which there are some, have taken of late."""
        return self.backlog.ready > CROWD and bool(self.selection.consumers)

    def absorb(self) -> None:
        """Takes the inbox into the backlog, and into the journal what must be kept."""
        messages = self.inbox
        if not messages or self.deleted:
            return
        size, self.inbox, self.inbox_bytes = self.inbox_bytes, [], 0
        first = self.backlog.put(messages, size)
        if self.durable:
            kept = [
                (number, message)
                for number, message in enumerate(messages, first)
                if message[PERSISTENT]
            ]
            if kept:
                numbers = [number for number, _ in kept]
                self._journal.append(Enqueued(self.queue_id, numbers, [each for _, each in kept]))

    def dispatch(self) -> None:
        """Gives ready messages to consumers with room, in turn."""
        backlog, selection = self.backlog, self.selection
        while backlog.ready:
            takers = selection.takers(backlog.ready)
            if not takers:
                return
            if len(takers) == 1:
                consumer, room = takers[0]
                run = backlog.take(room)
                self._give(consumer, run.numbers, run.messages, run.redelivered)
                selection.took(takers, len(run.messages))
            else:
                self._deal(takers)

    def _deal(self, takers: list[tuple[Consumer, int]]) -> None:
        """Deals one run to several consumers, one message each in turn."""
        ways = len(takers)
        run = self.backlog.take(min(room for _, room in takers) * ways)
        numbers, messages = run.numbers, run.messages
        if len({consumer.channel for consumer, _ in takers}) == ways:
            for place, (consumer, _) in enumerate(takers[: len(messages)]):
                self._give(consumer, numbers[place::ways], messages[place::ways], run.redelivered)
        else:
            # What goes out on one channel keeps its order, whoever it is for.
            for place, message in enumerate(messages):
                consumer = takers[place % ways][0]
                self._give(consumer, numbers[place : place + 1], [message], run.redelivered)
        self.selection.took(takers, len(run.messages))

    def _give(
        self,
        consumer: Consumer,
        numbers: Sequence[int],
        messages: list[Message],
        redelivered: bool,
    ) -> None:
        if consumer.no_ack:
            self._forget(numbers, messages)
        else:
            self.unacked += len(messages)
            consumer.unacked += len(messages)
        consumer.channel.deliver(consumer, numbers, messages, redelivered)

    def get(self, consumer: Consumer) -> Run | None:
        """One message for basic.get, or None if none is ready.

        Args:
            consumer: stands for the channel that gets; it is not one of the queue's consumers.
        """
        if not self.backlog.ready:
            return None
        run = self.backlog.take(1)
        if consumer.no_ack:
            self._forget(run.numbers, run.messages)
        else:
            self.unacked += 1
            consumer.unacked += 1
        return run

    def release(self, consumer: Consumer, numbers: list[int], messages: list[Message]) -> None:
        """Deliveries are settled for good: acknowledged, or rejected without requeue."""
        self.unacked -= len(numbers)
        self._regain(consumer, len(numbers))
        self._forget(numbers, messages)

    def requeue(self, consumer: Consumer, deliveries: list[tuple[int, Message]]) -> None:
        """Deliveries come back to their places."""
        self.unacked -= len(deliveries)
        self._regain(consumer, len(deliveries))
        if not self.deleted:
            self.backlog.give_back(deliveries)

    def _regain(self, consumer: Consumer, count: int) -> None:
        """The consumer has room for `count` messages more, if it is still there."""
        consumer.unacked -= count
        if not consumer.waiting and consumer in self.selection.consumers:
            self.selection.rejoin(consumer)

    def purge(self) -> int:
        """Drops all ready messages; how many."""
        count = self.backlog.ready
        for run in self.backlog.purge():
            self._forget(run.numbers, run.messages)
        return count

    def _forget(self, numbers: Sequence[int], messages: Sequence[Message]) -> None:
        if self.durable and not self.deleted:
            kept = [
                number
                for number, message in zip(numbers, messages, strict=True)
                if message[PERSISTENT]
            ]
            if kept:
                self._journal.append(Settled(self.queue_id, kept))

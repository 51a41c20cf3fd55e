"""A queue: its consumers, its unacknowledged messages, and the backlog that keeps the ready ones.

Publishes put messages into the inbox and acknowledgements go through `release`; once a read of a
client's socket is worked off, `absorb` and `dispatch` do the rest for the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from amqpd.broker.consumer import Consumer
from amqpd.broker.fetch import Fetch, Fetched
from amqpd.broker.journal import Journal, Standing
from amqpd.broker.message import PERSISTENT, Message
from amqpd.broker.queues.classic import Classic, Run
from amqpd.broker.queues.handed_out import HandedOut
from amqpd.broker.queues.selection import Selection
from amqpd.wire.arguments import Arguments

if TYPE_CHECKING:
    from amqpd.broker.exchanges.binding import Binding
    from amqpd.broker.permissions import Owner

CROWD = 4096  # ready messages
CROWD_BYTES = 8_388_608


class Waiter(Protocol):
    """Who waits for messages of a queue to be in memory."""

    def resume(self) -> None:
        """There are some now, or none at all."""


class Queue:
    """A named queue of one vhost.

    Attributes:
        queue_id: its number in the journal and the store.
        kept: persistent messages of a durable queue, ready and unacknowledged.
        has_spilled: the store may have messages of it that need not outlive the process.
        waiters: resumed, once, when messages are at hand again or there are none any more.
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
        backlog: Classic,
        *,
        durable: bool,
        auto_delete: bool,
        exclusive_owner: Owner | None,
        arguments: Arguments,
        handed_out_below: int = 0,
    ) -> None:
        self.queue_id = queue_id
        self.name = name
        self.durable = durable
        self.auto_delete = auto_delete
        self.exclusive_owner = exclusive_owner
        self.arguments = arguments
        self.backlog = backlog
        self.selection = Selection()
        self.exclusive_consumer: Consumer | None = None
        self.incoming: dict[Binding, None] = {}
        self.inbox: list[Message] = []
        self.inbox_bytes = 0
        self.unacked = 0
        self.kept = backlog.behind
        self.has_spilled = False
        self.touched = False
        self.deleted = False
        self.waiters: dict[Waiter, None] = {}
        self._journal = journal
        self._handed_out = HandedOut(handed_out_below)
        self._ticket = 0  # that the delivery of the messages taken last has to wait for

    @property
    def ready(self) -> int:
        """Messages that wait for a consumer."""
        return self.backlog.ready

    @property
    def crowded(self) -> bool:
        """More is ready than its consumers, of which there are some, have taken of late."""
        return self.backlog.ready > CROWD and bool(self.selection.consumers)

    @property
    def heavy(self) -> bool:
        """The same of large messages, which are few."""
        return self.backlog.window_bytes > CROWD_BYTES and bool(self.selection.consumers)

    def standing(self) -> Standing | None:
        """What the store is to keep of it beside its messages; None if it is not durable."""
        if not self.durable:
            return None
        return Standing(self.backlog.next_number, self._handed_out.below, self.kept)

    def absorb(self) -> None:
        """Takes the inbox into the backlog, and into the journal what must be kept."""
        messages = self.inbox
        if not messages or self.deleted:
            return
        size, self.inbox, self.inbox_bytes = self.inbox_bytes, [], 0
        first, at_hand = self.backlog.put(messages, size)
        if self.durable or not at_hand:
            self._note(first, messages, size, at_hand)

    def _note(self, first: int, messages: list[Message], size: int, at_hand: bool) -> None:
        """Tells the journal what to keep, and what has no room in memory."""
        journal, count = self._journal, len(messages)
        numbers: Sequence[int] = range(first, first + count)
        kept = sum([message[PERSISTENT] for message in messages]) if self.durable else 0
        if kept:
            self.kept += kept
            self._handed_out.came(first, journal)
            if kept == count:
                journal.add(self, numbers, messages, size)
                return
            journal.add(self, *_which(numbers, messages, persistent=True), size * kept // count)
        if not at_hand:
            self.has_spilled = True
            if kept:
                numbers, messages = _which(numbers, messages, persistent=False)
            journal.spill(self, numbers, messages, size * (count - kept) // count)

    def dispatch(self) -> None:
        """Gives ready messages to consumers with room, in turn."""
        backlog, selection = self.backlog, self.selection
        while at_hand := backlog.ready - backlog.behind:
            takers = selection.takers(at_hand)
            if not takers:
                return
            if len(takers) == 1:
                consumer, room = takers[0]
                run = self._take(room)
                self._give(consumer, run.numbers, run.messages, run.redelivered)
                selection.took(takers, len(run.messages))
            else:
                self._deal(takers)

    def _deal(self, takers: list[tuple[Consumer, int]]) -> None:
        """Deals one run to several consumers, one message each in turn."""
        ways = len(takers)
        run = self._take(min(room for _, room in takers) * ways)
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

    def _take(self, limit: int) -> Run:
        """Takes messages that are to be handed out."""
        run = self.backlog.take(limit)
        self._ticket = 0
        if self.kept:
            moved, self._ticket = self._handed_out.pass_on(run, self._journal)
            if moved:
                self._journal.mark(self)
        return run

    def _give(
        self,
        consumer: Consumer,
        numbers: Sequence[int],
        messages: list[Message],
        redelivered: bool,
    ) -> None:
        if self._ticket:
            consumer.channel.hold(self._ticket)
        if consumer.no_ack:
            self._forget(numbers, messages)
        else:
            self.unacked += len(messages)
            consumer.unacked += len(messages)
        consumer.channel.deliver(consumer, numbers, messages, redelivered)

    def get(self, consumer: Consumer) -> Run | None:
        """One message for basic.get, or None if none is at hand.

        Args:
            consumer: stands for the channel that gets; it is not one of the queue's consumers.
        """
        if not self.backlog.at_hand:
            return None
        run = self._take(1)
        if self._ticket:
            consumer.channel.hold(self._ticket)
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
        if self.deleted:
            return
        self.backlog.give_back(deliveries)
        if self.durable:
            kept = [number for number, message in deliveries if message[PERSISTENT]]
            if kept:
                self._journal.give_back(self, kept)

    def _regain(self, consumer: Consumer, count: int) -> None:
        """The consumer has room for `count` messages more, if it is still there."""
        consumer.unacked -= count
        if not consumer.waiting and consumer in self.selection.consumers:
            self.selection.rejoin(consumer)

    def purge(self) -> int:
        """Drops all ready messages; how many."""
        purged = self.backlog.purge()
        if self.durable and purged.kept:
            self.kept -= purged.kept
            self._journal.drop(self, _ranges(purged.numbers))
        if self.has_spilled:
            self._journal.unspill(self, self.backlog.next_number)
        return purged.messages

    def _forget(self, numbers: Sequence[int], messages: Sequence[Message]) -> None:
        if self.durable and not self.deleted:
            kept = [
                number
                for number, message in zip(numbers, messages, strict=True)
                if message[PERSISTENT]
            ]
            if kept:
                self.kept -= len(kept)
                self._journal.settle(self, kept)

    # --- what stands behind the window ------------------------------------------------------------

    def refill(self) -> Fetch | None:
        """What to fetch from the store before the window runs dry, if someone takes from it."""
        backlog = self.backlog
        if not backlog.wants_more or not (self.selection.consumers or self.waiters):
            return None
        uncommitted = self._journal.uncommitted(self)
        below = backlog.next_number
        for changes in reversed(uncommitted):
            for waiting in (changes.added, changes.spilled):
                below = min(below, next(iter(waiting), below))
        if below > backlog.behind_from:
            return backlog.next_fetch(self.queue_id, below)
        # All that is wanted is still on its way to the disk, and so in memory.
        found: dict[int, Message] = {}
        for changes in uncommitted:
            for waiting in (changes.added, changes.spilled):
                found.update(
                    (number, message)
                    for number, message in waiting.items()
                    if number >= backlog.behind_from
                )
        numbers = sorted(found)
        self._show(Fetched(numbers, [found[each] for each in numbers], [], backlog.next_number))
        self.dispatch()
        return None

    def wake(self) -> list[Waiter]:
        """Who has waited for messages and can go on."""
        if not self.waiters or not (self.backlog.at_hand or not self.ready):
            return []
        woken = list(self.waiters)
        self.waiters.clear()
        return woken

    def fetched(self, fetch: Fetch, answer: Fetched) -> int:
        """The answer to a fetch; how many messages that should be there are missing or damaged.

        An answer that is not wanted any more, since the queue was purged, is dropped.
        """
        if self.deleted or not self.backlog.expects(fetch):
            return 0
        missing, kept = self._show(answer)
        if self.durable and (kept or answer.damaged):
            self.kept -= kept + len(answer.damaged)
            self._journal.mark(self)
            self._journal.set_aside(self, answer.damaged)
        return missing + len(answer.damaged)

    def _show(self, answer: Fetched) -> tuple[int, int]:
        missing = self.backlog.fetched(answer)
        if self.has_spilled:
            self._journal.unspill(self, answer.read_below)
        return missing

    def stopped(self) -> None:
        """The broker stops and nothing is unacknowledged: the mark can be exact."""
        if self.durable and self._handed_out.below != self.backlog.head:
            self._handed_out.below = self.backlog.head
            self._journal.mark(self)


def _which(
    numbers: Sequence[int], messages: list[Message], *, persistent: bool
) -> tuple[list[int], list[Message]]:
    """The persistent messages, or the others, with their numbers."""
    pairs = [
        (number, message)
        for number, message in zip(numbers, messages, strict=True)
        if message[PERSISTENT] == persistent
    ]
    return [number for number, _ in pairs], [message for _, message in pairs]


def _ranges(numbers: list[Sequence[int]]) -> list[tuple[int, int]]:
    """First and last numbers of ranges without a gap in what was purged."""
    found: list[tuple[int, int]] = []
    for sequence in numbers:
        if isinstance(sequence, range):
            parts = [(sequence.start, sequence.stop - 1)] if sequence else []
        else:
            parts = [(number, number) for number in sequence]
        for first, last in parts:
            if found and found[-1][1] + 1 == first:
                found[-1] = found[-1][0], last
            else:
                found.append((first, last))
    return found

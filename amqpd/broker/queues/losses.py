"""What a queue does not keep: messages that are rejected, have come back too often, are over their
time or beyond its limits. They are gone, dead letters, or wait for a retry.

Source: RabbitMQ, "Time-To-Live and Expiration", "Queue Length Limit".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from amqpd.broker.dead_letter import DELIVERY_LIMIT, EXPIRED, MAXLEN, REJECTED, dead_letter
from amqpd.broker.deadlines import Alarm
from amqpd.broker.journal import CHOKED_S
from amqpd.broker.message import Message
from amqpd.broker.queues.waiting import put_off_rejected, put_off_returned
from amqpd.broker.queues.window import Run

if TYPE_CHECKING:
    from amqpd.broker.broker import Broker
    from amqpd.broker.queues.queue import Queue

# So many messages are given up in one go; others have their turn before the next. Each of them may
# be a dead letter with headers of its own, for many queues.
STEP_MESSAGES: Final = 256

Action: TypeAlias = Callable[[list[int], list[Message]], None]


class Losses:
    """Drops messages of one queue.

    Args:
        alarm: has the queue look at its deadlines and limits again.

    Attributes:
        waiting: what is still to be given up, and how.
        spent: so many messages were given up in this turn of the queue.
        goes_on: there was more to drop than this turn had room for.
    """

    __slots__ = ("_alarm", "_broker", "_queue", "goes_on", "spent", "waiting")

    def __init__(self, broker: Broker, queue: Queue, alarm: Alarm) -> None:
        self._broker = broker
        self._queue = queue
        self._alarm = alarm
        self.spent = 0
        self.goes_on = False
        self.waiting: deque[tuple[Action, list[int], list[Message]]] = deque()

    def begin(self) -> None:
        """A turn of the queue begins."""
        self.spent = 0
        self.goes_on = False
        if self.waiting:
            self._work_off()

    # --- what comes back from consumers -----------------------------------------------------------

    def reject(self, numbers: list[int], messages: list[Message]) -> None:
        """Messages were rejected, and are unacknowledged until they are given up."""
        messages = self._queue.returns.as_they_came(numbers, messages)
        self._in_steps(self._give_up, numbers, messages)

    def _give_up(self, numbers: list[int], messages: list[Message]) -> None:
        """They wait for a retry, or are dead."""
        broker, queue, retry = self._broker, self._queue, self._queue.terms.retry
        dead = messages if retry is None else put_off_rejected(broker, queue, retry, messages)
        dead_letter(broker, queue, dead, REJECTED)
        queue.unacked -= len(numbers)
        queue.settle(numbers, messages)
        queue.forget_keys(dead)

    def requeue(self, deliveries: list[tuple[int, Message]], *, failed: bool) -> None:
        """Messages are to come back to their places, if they may."""
        numbers, messages = [pair[0] for pair in deliveries], [pair[1] for pair in deliveries]
        messages = self._queue.returns.as_they_came(numbers, messages)
        delayed_retry = self._queue.terms.delayed_retry
        if delayed_retry is not None and delayed_retry.applies(failed=failed):
            self._in_steps(self._put_off, numbers, messages)
        else:
            self._give_back(list(zip(numbers, messages, strict=True)))

    def _give_back(self, deliveries: list[tuple[int, Message]]) -> None:
        queue = self._queue
        if queue.terms.counts_deliveries:
            deliveries = self._within_limit(deliveries)
        queue.unacked -= len(deliveries)
        queue.backlog.give_back(deliveries)

    def _put_off(self, numbers: list[int], messages: list[Message]) -> None:
        """They wait for a while before they come back."""
        queue, delayed_retry = self._queue, self._queue.terms.delayed_retry
        deliveries = list(zip(numbers, messages, strict=True))
        if delayed_retry is None:  # a policy has changed in the meantime
            self._give_back(deliveries)
            return
        deliveries = self._within_limit(deliveries)
        queue.unacked -= len(deliveries)
        put_off_returned(self._broker, queue, delayed_retry, deliveries)
        queue.settle([pair[0] for pair in deliveries], [pair[1] for pair in deliveries])

    def _within_limit(self, deliveries: list[tuple[int, Message]]) -> list[tuple[int, Message]]:
        """Deliveries that may come back once more; the others become dead letters."""
        over = self._queue.returns.came_back(deliveries, self._queue.terms.delivery_limit)
        if not over:
            return deliveries
        lost = [delivery for delivery in deliveries if delivery[0] in over]
        numbers, messages = [pair[0] for pair in lost], [pair[1] for pair in lost]
        self._in_steps(self._give_up_at_limit, numbers, messages)
        return [delivery for delivery in deliveries if delivery[0] not in over]

    def _give_up_at_limit(self, numbers: list[int], messages: list[Message]) -> None:
        """They have come back too often."""
        dead_letter(self._broker, self._queue, messages, DELIVERY_LIMIT)
        self._queue.unacked -= len(numbers)
        self._queue.forget(numbers, messages)

    def _in_steps(self, action: Action, numbers: list[int], messages: list[Message]) -> None:
        """Has something done with messages; with most of many later."""
        if not self.waiting and len(numbers) <= STEP_MESSAGES:
            action(numbers, messages)
            return
        for start in range(0, len(numbers), STEP_MESSAGES):
            end = start + STEP_MESSAGES
            self.waiting.append((action, numbers[start:end], messages[start:end]))
        self._go_on_later()

    def _work_off(self) -> None:
        while self.waiting and self.may_go_on:
            action, numbers, messages = self.waiting.popleft()
            self.spent += len(numbers)
            action(numbers, messages)
        if self.waiting:
            self._go_on_later()

    @property
    def may_go_on(self) -> bool:
        """Whether more may be dropped in this turn."""
        return self.spent < STEP_MESSAGES and not self._broker.journal.is_choked

    @property
    def has_made_room(self) -> bool:
        """Whether something was dropped in this turn, and nothing is left to drop."""
        return self.spent > 0 and not self.goes_on

    # --- what has waited too long for one, or is too much -----------------------------------------

    def expire(self, now: float) -> bool:
        """Lets messages that go first expire; whether none is left that is over at this time."""
        backlog, deadlines = self._queue.backlog, self._queue.expiry.deadlines
        while self.may_go_on:
            run = backlog.overdue(deadlines, now, STEP_MESSAGES - self.spent)
            if run is None:
                return True
            self._lose(run.numbers, run.messages, EXPIRED)
        deadline = backlog.first_deadline(deadlines)
        if deadline is None or deadline > now:
            return True
        self._go_on_later()
        return False

    def take(self, limit: int) -> Run | None:
        """Takes messages that are to be handed out, without those that have expired.

        The run is empty if they all have. None if so many have expired that others must have their
        turn before more is taken.
        """
        if self.spent >= STEP_MESSAGES:
            self._go_on_later()
            return None
        return self._without_expired(
            self._queue.backlog.take(min(limit, STEP_MESSAGES - self.spent))
        )

    def _without_expired(self, run: Run) -> Run:
        deadlines, now = self._queue.expiry.deadlines, self._broker.now
        over = [number for number in run.numbers if deadlines.get(number, now) < now]
        if not over:
            return run
        gone = set(over)
        pairs = list(zip(run.numbers, run.messages, strict=True))
        expired = [message for number, message in pairs if number in gone]
        self._queue.backlog.settle(over, expired)
        self._lose(over, expired, EXPIRED)
        left = [pair for pair in pairs if pair[0] not in gone]
        run.numbers = [number for number, _ in left]
        run.messages = [message for _, message in left]
        return run

    def trim(self) -> None:
        """Drops what is over its time or beyond the limits."""
        queue, backlog = self._queue, self._queue.backlog
        if queue.expiry.deadlines and not self.expire(self._broker.now):
            return
        while backlog.can_drop and (
            excess := queue.terms.excess(backlog.ready, backlog.ready_bytes)
        ):
            if not self.may_go_on:
                self._go_on_later()
                return
            run = backlog.drop(min(excess, STEP_MESSAGES - self.spent))
            self._lose(run.numbers, run.messages, MAXLEN)
        if queue.expiry.deadlines:
            deadline = backlog.first_deadline(queue.expiry.deadlines)
            if deadline is not None:
                self._alarm.set_by(deadline)

    def _go_on_later(self) -> None:
        """There is more to drop: in the next turn, or when the disk has caught up."""
        self.goes_on = True
        is_choked = self._broker.journal.is_choked
        self._alarm.set_by(self._broker.now + (CHOKED_S if is_choked else 0))

    def _lose(self, numbers: Sequence[int], messages: list[Message], reason: str) -> None:
        """Messages are gone, for a reason other than that a consumer was done with them."""
        self.spent += len(messages)
        dead_letter(self._broker, self._queue, messages, reason)
        self._queue.lost(numbers, messages)

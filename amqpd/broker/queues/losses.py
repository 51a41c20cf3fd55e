"""What a queue does not keep: messages that are rejected, over their time or beyond its limits.

Source: RabbitMQ, "Time-To-Live and Expiration", "Queue Length Limit".
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from amqpd.broker.dead_letter import EXPIRED, MAXLEN, dead_letter
from amqpd.broker.deadlines import Alarm
from amqpd.broker.journal import CHOKED_S
from amqpd.broker.message import Message
from amqpd.broker.queues.window import Run

if TYPE_CHECKING:
    from amqpd.broker.broker import Broker
    from amqpd.broker.queues.queue import Queue

# So many messages expire or are dropped in one go; others have their turn before the next.
STEP_MESSAGES: Final = 1024


class Losses:
    """Drops messages of one queue.

    Args:
        alarm: has the queue look at its deadlines and limits again.

    Attributes:
        rejected: what was rejected and is still to be given up, in steps.
    """

    __slots__ = ("_alarm", "_broker", "_queue", "rejected")

    def __init__(self, broker: Broker, queue: Queue, alarm: Alarm) -> None:
        self._broker = broker
        self._queue = queue
        self._alarm = alarm
        self.rejected: deque[tuple[list[int], list[Message]]] = deque()

    def reject(self, numbers: list[int], messages: list[Message]) -> None:
        """Messages were rejected; of many, most have their turn later."""
        if not self.rejected and len(numbers) <= STEP_MESSAGES:
            self._queue.give_up(numbers, messages)
            return
        for start in range(0, len(numbers), STEP_MESSAGES):
            end = start + STEP_MESSAGES
            self.rejected.append((numbers[start:end], messages[start:end]))
        self._broker.touch(self._queue)

    def work_off(self) -> None:
        """Gives up some of what was rejected."""
        left = STEP_MESSAGES
        while self.rejected and left > 0 and not self._broker.journal.is_choked:
            numbers, messages = self.rejected.popleft()
            self._queue.give_up(numbers, messages)
            left -= len(numbers)
        if self.rejected:
            self._go_on_later()

    def expire(self, now: float) -> bool:
        """Lets messages that go first expire; whether that were all that are over at this time."""
        left, queue = STEP_MESSAGES, self._queue
        while left > 0 and not self._broker.journal.is_choked:
            run = queue.backlog.overdue(queue.expiry.deadlines, now)
            if run is None:
                return True
            self._lose(run, EXPIRED)
            left -= len(run.messages)
        self._go_on_later()
        return False

    def without_expired(self, run: Run) -> Run:
        """What has not expired of a run that was taken; the rest is over."""
        deadlines, now = self._queue.expiry.deadlines, self._broker.now
        over = [number for number in run.numbers if deadlines.get(number, now) < now]
        if not over:
            return run
        gone = set(over)
        pairs = list(zip(run.numbers, run.messages, strict=True))
        expired = [message for number, message in pairs if number in gone]
        self._queue.backlog.settle(over, expired)
        self._lose(run._replace(numbers=over, messages=expired), EXPIRED)
        left = [pair for pair in pairs if pair[0] not in gone]
        return run._replace(
            numbers=[number for number, _ in left], messages=[message for _, message in left]
        )

    def trim(self) -> None:
        """Drops what is over its time or beyond the limits."""
        queue, backlog = self._queue, self._queue.backlog
        if queue.expiry.deadlines and not self.expire(self._broker.now):
            return
        left = STEP_MESSAGES
        while backlog.at_hand and (
            excess := queue.terms.excess(backlog.ready, backlog.ready_bytes)
        ):
            if not left or self._broker.journal.is_choked:
                self._go_on_later()
                return
            run = backlog.drop(min(excess, left))
            self._lose(run, MAXLEN)
            left -= len(run.messages)
        if queue.expiry.deadlines:
            deadline = backlog.first_deadline(queue.expiry.deadlines)
            if deadline is not None:
                self._alarm.set_by(deadline)

    def _go_on_later(self) -> None:
        """There is more to drop: in the next turn, or when the disk has caught up."""
        is_choked = self._broker.journal.is_choked
        self._alarm.set_by(self._broker.now + (CHOKED_S if is_choked else 0))

    def _lose(self, run: Run, reason: str) -> None:
        """Messages are gone, for a reason other than that a consumer was done with them."""
        dead_letter(self._broker, self._queue, run.messages, reason)
        self._queue.lost(run.numbers, run.messages)

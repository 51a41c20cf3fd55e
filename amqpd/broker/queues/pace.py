"""No more than so many messages a second, of a queue or for a consumer.

Tokens come at the rate, and a delivery takes one. At most those of BURST_S are kept, so that after
a pause there is no more than that at once.

This is amqpd's own: docs/LIMITS.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from amqpd.broker.deadlines import Deadline

if TYPE_CHECKING:
    from amqpd.broker.broker import Broker
    from amqpd.broker.consumer import Consumer

BURST_S: Final = 0.1


class Pace:
    """A bucket of tokens.

    Args:
        rate: messages a second, more than 0.
        now: seconds on the core's clock.
    """

    __slots__ = ("_alarm", "_burst", "_tokens", "_when", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._burst = max(1.0, rate * BURST_S)
        self._tokens = self._burst
        self._when = now
        self._alarm: Deadline | None = None

    def left(self, now: float) -> int:
        """How many messages may go now."""
        self._tokens = min(self._burst, self._tokens + (now - self._when) * self.rate)
        self._when = now
        return max(0, int(self._tokens + 1e-6))  # a timer may be a rounding error early

    def spend(self, count: int) -> None:
        """So many have gone; more than were left have to be waited for."""
        self._tokens -= count

    def ready_at(self) -> float:
        """When the next one may go."""
        return self._when + max(0.0, 1 - self._tokens) / self.rate

    def rejoin(self, broker: Broker, consumer: Consumer) -> None:
        """Has a consumer, whose pace this is, take its turn again when the next message may go."""
        if self._alarm is not None and self._alarm.action is not None:
            return

        def wake() -> None:
            selection = consumer.queue.selection
            if consumer in selection.consumers:
                selection.rejoin(consumer)
                broker.touch(consumer.queue)

        self._alarm = broker.deadlines.at(self.ready_at(), wake)

    def stop(self, broker: Broker) -> None:
        """The consumer takes no turn any more."""
        if self._alarm is not None:
            broker.deadlines.cancel(self._alarm)

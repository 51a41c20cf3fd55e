"""When the messages of a queue are over: the smaller of the queue's TTL and their own.

Only messages that are in memory have a deadline here, ready ones and unacknowledged ones: requeued
messages keep theirs. What is read back from the store has its deadline by the time at which it was
stored.

Source: RabbitMQ, "Time-To-Live and Expiration".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from math import inf

from amqpd.broker.message import HEADER, Message
from amqpd.broker.queues.window import known_of
from amqpd.wire import content


class Expiry:
    """The deadlines of one queue's messages.

    Attributes:
        ttl_s: of the queue; None if it has none.
        deadlines: by number, in seconds on the core's clock; no more than there are messages in
            memory.
        is_mixed: messages that go later may be over earlier: those with a TTL of their own, or of
            another priority, or behind those that came before the TTL was made shorter.
    """

    __slots__ = ("deadlines", "is_mixed", "ttl_s")

    def __init__(self) -> None:
        self.ttl_s: float | None = None
        self.deadlines: dict[int, float] = {}
        self.is_mixed = False

    @property
    def matters(self) -> bool:
        """Whether messages of the queue have deadlines, or may have."""
        return self.ttl_s is not None or self.is_mixed

    def came(
        self, numbers: Sequence[int], messages: Sequence[Message], now: float, *, own: bool
    ) -> None:
        """Messages have come into the queue.

        Args:
            own: some of them may have a TTL of their own.
        """
        if own:
            self._note(numbers, messages, repeat(now))
        elif self.ttl_s is not None:
            self.deadlines.update(zip(numbers, repeat(now + self.ttl_s), strict=False))

    def came_back(
        self,
        numbers: Sequence[int],
        messages: Sequence[Message],
        enqueued_ms: Sequence[int],
        epoch: float,
        now: float,
    ) -> None:
        """Messages were read back from the store.

        Args:
            enqueued_ms: when each was stored, in milliseconds since 1970; none if they are on their
                way there.
            epoch: wall time at `now` == 0.
        """
        times = [each / 1000 - epoch for each in enqueued_ms] if enqueued_ms else repeat(now)
        self._note(numbers, messages, times)

    def _note(
        self, numbers: Sequence[int], messages: Sequence[Message], times: Iterable[float]
    ) -> None:
        queue_ttl_s = inf if self.ttl_s is None else self.ttl_s
        header, ttl_s = b"", queue_ttl_s
        for number, message, time in zip(numbers, messages, times, strict=False):
            if message[HEADER] is not header:
                header = message[HEADER]
                ttl_s = min(queue_ttl_s, self._own_ttl_s(header))
            if ttl_s != inf:
                self.deadlines[number] = time + ttl_s

    def _own_ttl_s(self, header: bytes) -> float:
        if not content.flags(header) & content.EXPIRATION:
            return inf
        self.is_mixed = True
        return int(content.short_string(header, content.EXPIRATION) or 0) / 1000

    def forget(self, numbers: Iterable[int]) -> None:
        """Messages are gone."""
        for number in numbers:
            self.deadlines.pop(number, None)

    def forget_all(self, gone: Sequence[Sequence[int]]) -> None:
        """Ready messages are gone as a whole: ranges of numbers, and lists of them."""
        self.forget(known_of(gone, self.deadlines))

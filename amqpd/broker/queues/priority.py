"""The backlog of a queue with priorities: a line for each of them, and the highest goes first.

A line is made when the first message of its priority comes.

Source: RabbitMQ, "Classic Queues Support Priorities" and "Quorum Queues", priorities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter

from amqpd.broker.fetch import Fetch, Fetched
from amqpd.broker.message import HEADER, Message, bodies_size
from amqpd.broker.queues.fifo import LINE_BITS, Fifo, Placed
from amqpd.broker.queues.window import Run
from amqpd.wire import content


class Priority:
    """Ready messages by priority.

    Args:
        make: the line at a place; at place 0 is the highest priority.
        highest: the highest priority; that of messages with a higher one.
        default: the priority of messages without one.
        known: places of lines that are there already.

    Attributes:
        lines: those that there are, the highest priority first.
    """

    def __init__(
        self, make: Callable[[int], Fifo], *, highest: int, default: int, known: Sequence[int] = ()
    ) -> None:
        self.lines: list[Fifo] = []
        self._make = make
        self._highest = highest
        self._default = default
        self._by_place: dict[int, Fifo] = {}
        for place in known:
            self._line(place)

    def _line(self, place: int) -> Fifo:
        found = self._by_place.get(place)
        if found is None:
            found = self._by_place[place] = self._make(place)
            self.lines = [self._by_place[each] for each in sorted(self._by_place)]
        return found

    @property
    def ready(self) -> int:
        """How many messages there are."""
        return sum([line.window.ready for line in self.lines])

    @property
    def ready_bytes(self) -> int:
        """The size of their bodies."""
        return sum([line.window.ready_bytes for line in self.lines])

    @property
    def at_hand(self) -> int:
        """How many may be taken now: of the highest priority, as far as they are in memory."""
        first = self._first()
        return 0 if first is None else first.at_hand

    @property
    def can_drop(self) -> bool:
        """Whether the message that goes first is in memory."""
        return self.at_hand > 0

    @property
    def behind(self) -> int:
        """How many are in the store alone."""
        return sum([line.window.behind for line in self.lines])

    @property
    def is_coming(self) -> bool:
        """Whether some will be at hand without anybody's doing."""
        return self.behind > 0

    @property
    def window_bytes(self) -> int:
        """What is held in memory, about."""
        return sum([line.window.window_bytes for line in self.lines])

    def _first(self) -> Fifo | None:
        """The first line with messages."""
        for line in self.lines:
            if line.window.ready:
                return line
        return None

    # --- in ---------------------------------------------------------------------------------------

    def put(self, messages: list[Message], size: int, *, tell: bool = False) -> list[Placed]:
        """Appends messages to the lines of their priorities."""
        by_place: dict[int, list[Message]] = {}
        for header, group in groupby(messages, itemgetter(HEADER)):
            by_place.setdefault(self._place(header), []).extend(group)
        placed: list[Placed] = []
        for place, some in by_place.items():
            some_bytes = size if len(by_place) == 1 else bodies_size(some)
            placed += self._line(place).put(some, some_bytes, tell=tell)
        return placed

    def _place(self, header: bytes) -> int:
        priority = content.octet(header, content.PRIORITY)
        return self._highest - min(self._default if priority is None else priority, self._highest)

    # --- out --------------------------------------------------------------------------------------

    def take(self, limit: int) -> Run:
        """Removes messages of the highest priority, to be handed out."""
        return (self._first() or self.lines[0]).take(limit)

    def drop(self, limit: int) -> Run:
        """Removes messages of the highest priority, for good."""
        return (self._first() or self.lines[0]).drop(limit)

    def overdue(self, deadlines: Mapping[int, float], now: float, limit: int) -> Run | None:
        """Removes at most `limit` messages of the highest priority whose deadlines have passed.

        Others wait until those above them are gone, as in RabbitMQ.
        """
        first = self._first()
        return None if first is None else first.overdue(deadlines, now, limit)

    def first_deadline(self, deadlines: Mapping[int, float]) -> float | None:
        """The deadline of the message that goes first; None if it has none or is not in memory."""
        first = self._first()
        return None if first is None else first.first_deadline(deadlines)

    def give_back(self, deliveries: Sequence[tuple[int, Message]]) -> None:
        """Puts messages that were handed out back at their places."""
        by_place: dict[int, list[tuple[int, Message]]] = {}
        for delivery in deliveries:
            by_place.setdefault(delivery[0] >> LINE_BITS, []).append(delivery)
        for place, some in by_place.items():
            self._by_place[place].give_back(some)

    def settle(self, numbers: Sequence[int], messages: Sequence[Message]) -> None:
        """Messages that were taken are gone for good."""
        if len(self.lines) == 1:
            self.lines[0].settle(numbers, messages)
            return
        by_place: dict[int, list[tuple[int, Message]]] = {}
        for pair in zip(numbers, messages, strict=True):
            by_place.setdefault(pair[0] >> LINE_BITS, []).append(pair)
        for place, some in by_place.items():
            self._by_place[place].settle([pair[0] for pair in some], [pair[1] for pair in some])

    def purge(self) -> tuple[int, list[Sequence[int]]]:
        """Removes all ready messages; how many, and their numbers."""
        total = 0
        numbers: list[Sequence[int]] = []
        for line in self.lines:
            count, gone = line.purge()
            total += count
            numbers += gone
        return total, numbers

    def stopped(self) -> None:
        """The broker stops and nothing is unacknowledged."""
        for line in self.lines:
            line.stopped()

    # --- what stands behind the windows -----------------------------------------------------------

    def fetched(self, fetch: Fetch, answer: Fetched) -> tuple[Placed, int] | None:
        """The answer to a fetch: what came into memory, and how many messages are lost."""
        return self._by_place[fetch.first >> LINE_BITS].fetched(fetch, answer)

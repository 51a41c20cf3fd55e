"""The backlog of a priority queue: a line for each priority, and the highest goes first.

Source: RabbitMQ, "Classic Queues Support Priorities". A message without a priority has 0, one above
the queue's maximum has the maximum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final

from amqpd.broker.fetch import Fetch, Fetched
from amqpd.broker.message import HEADER, Message, bodies_size
from amqpd.broker.queues.fifo import Fifo, Placed
from amqpd.broker.queues.window import Run
from amqpd.wire import content

LINE_BITS: Final = 43  # a number in the queue is that of its line, and above these bits the line's
_IN_LINE: Final = (1 << LINE_BITS) - 1


class Priority:
    """Ready messages by priority.

    Args:
        lines: those of the highest priority first; the last is that of priority 0.
    """

    def __init__(self, lines: Sequence[Fifo]) -> None:
        self.lines = lines

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
        return 0 if first is None else self.lines[first].at_hand

    @property
    def behind(self) -> int:
        """How many are in the store alone."""
        return sum([line.window.behind for line in self.lines])

    @property
    def window_bytes(self) -> int:
        """What is held in memory, about."""
        return sum([line.window.window_bytes for line in self.lines])

    def _first(self) -> int | None:
        """The place of the first line with messages."""
        for place, line in enumerate(self.lines):
            if line.window.ready:
                return place
        return None

    # --- in ---------------------------------------------------------------------------------------

    def put(self, messages: list[Message], size: int, *, tell: bool = False) -> list[Placed]:
        """Appends messages to the lines of their priorities."""
        by_line: dict[int, list[Message]] = {}
        for header, group in groupby(messages, itemgetter(HEADER)):
            by_line.setdefault(self._place(header), []).extend(group)
        placed: list[Placed] = []
        for place, some in by_line.items():
            some_bytes = size if len(by_line) == 1 else bodies_size(some)
            placed += [
                self.placed(self.lines[place], each)
                for each in self.lines[place].put(some, some_bytes, tell=tell)
            ]
        return placed

    def _place(self, header: bytes) -> int:
        highest = len(self.lines) - 1
        priority = content.octet(header, content.PRIORITY) or 0
        return highest - min(priority, highest)

    # --- out --------------------------------------------------------------------------------------

    def take(self, limit: int) -> Run:
        """Removes messages of the highest priority, to be handed out."""
        place = self._first() or 0
        return self._outward(place, self.lines[place].take(limit))

    def drop(self, limit: int) -> Run:
        """Removes messages of the highest priority, for good."""
        place = self._first() or 0
        return self._outward(place, self.lines[place].drop(limit))

    def overdue(self, deadlines: Mapping[int, float], now: float) -> Run | None:
        """Removes messages of the highest priority whose deadlines have passed.

        Others wait until those above them are gone, as in RabbitMQ.
        """
        place = self._first()
        if place is None:
            return None
        count = self.lines[place].window.overdue(deadlines, now, place << LINE_BITS)
        return self._outward(place, self.lines[place].drop(count)) if count else None

    def first_deadline(self, deadlines: Mapping[int, float]) -> float | None:
        """The deadline of the message that goes first; None if it has none or is not in memory."""
        place = self._first()
        first = None if place is None else self.lines[place].window.first()
        return (
            None if place is None or first is None else deadlines.get((place << LINE_BITS) + first)
        )

    def give_back(self, deliveries: Sequence[tuple[int, Message]]) -> None:
        """Puts messages that were handed out back at their places."""
        by_line: dict[int, list[tuple[int, Message]]] = {}
        for number, message in deliveries:
            pair = number & _IN_LINE, message
            by_line.setdefault(number >> LINE_BITS, []).append(pair)
        for place, pairs in by_line.items():
            self.lines[place].give_back(pairs)

    def settle(self, numbers: Sequence[int], messages: Sequence[Message]) -> None:
        """Messages that were taken are gone for good."""
        pairs = zip(numbers, messages, strict=True)
        for place, group in groupby(pairs, lambda pair: pair[0] >> LINE_BITS):
            some = list(group)
            self.lines[place].settle(
                [number & _IN_LINE for number, _ in some], [message for _, message in some]
            )

    def purge(self) -> tuple[int, list[Sequence[int]]]:
        """Removes all ready messages; how many, and their numbers."""
        total = 0
        numbers: list[Sequence[int]] = []
        for place, line in enumerate(self.lines):
            count, gone = line.purge()
            total += count
            numbers += [_shifted(each, place << LINE_BITS) for each in gone]
        return total, numbers

    # --- what stands behind the windows -----------------------------------------------------------

    def fetched(self, fetch: Fetch, answer: Fetched) -> tuple[Placed, int] | None:
        """The answer to a fetch: what came into memory, and how many messages are lost."""
        line = self.lines[fetch.queue_id - self.lines[0].queue_id]
        found = line.fetched(fetch, answer)
        return None if found is None else (self.placed(line, found[0]), found[1])

    def placed(self, line: Fifo, placed: Placed) -> Placed:
        """What has come into the memory of a line, with its numbers in the queue."""
        base = (line.queue_id - self.lines[0].queue_id) << LINE_BITS
        return placed._replace(numbers=_shifted(placed.numbers, base))

    def _outward(self, place: int, run: Run) -> Run:
        return run._replace(numbers=_shifted(run.numbers, place << LINE_BITS))


def _shifted(numbers: Sequence[int], base: int) -> Sequence[int]:
    if isinstance(numbers, range):
        return range(numbers.start + base, numbers.stop + base)
    return [number + base for number in numbers]

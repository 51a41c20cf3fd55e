"""The backlog of a queue with message groups: of each group one message at a time is handed out.

Messages with the same `x-group-id` go in their order, each when the one before it is settled;
messages of other groups, and those without one, do not wait for them. Behind it is a line. Taken
from there, a message is *free*, or it is *parked* behind the first of its group. A group is known
only while messages of it are free, parked or handed out.

Bound: what is free and parked is at most what a queue may hold in memory, but for one step; groups
beyond that are seen when some of it has gone.

This is amqpd's own: docs/GROUPS.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import chain
from math import inf
from typing import Any, Final, NamedTuple

from amqpd.broker.fetch import Fetch, Fetched
from amqpd.broker.journal import Journal
from amqpd.broker.memory import Memory, held_alone
from amqpd.broker.message import HEADER, Message, body_bytes
from amqpd.broker.queues.fifo import Fifo, Placed
from amqpd.broker.queues.window import Run
from amqpd.wire import content

GROUP_ID: Final = "x-group-id"
STEP_MESSAGES: Final = 256  # are looked at together


class Seen(NamedTuple):
    """A message that was taken from the line; `ticket` is what its delivery has to wait for."""

    number: int
    message: Message
    redelivered: bool
    ticket: int


class Groups:
    """Ready messages, in groups.

    Args:
        line: where they stand before they are looked at.
    """

    def __init__(self, line: Fifo, journal: Journal, memory: Memory) -> None:
        self.lines = (line,)
        self._line = line
        self._journal = journal
        self._memory = memory
        self._free: list[Seen] = []  # a heap
        self._parked: dict[Any, deque[Seen]] = {}  # of each group that has a first message
        # Heads of what is parked, the lowest first, and heads that are none any more.
        self._parked_heads: list[tuple[int, Any]] = []
        self._group_of: dict[int, Any] = {}  # of the first message of each group, by its number
        self._held = self._held_messages = self._held_bodies = 0
        self._last: tuple[bytes, Any] = (b"", None)

    @property
    def ready(self) -> int:
        """How many messages there are."""
        return self._line.ready + self._held_messages

    @property
    def ready_bytes(self) -> int:
        """The size of their bodies."""
        return self._line.ready_bytes + self._held_bodies

    @property
    def at_hand(self) -> int:
        """How many of them may be taken now: of each group one at most."""
        while not self._free and self._line.at_hand and self._has_room:
            self._look()
        return len(self._free)

    @property
    def behind(self) -> int:
        """How many of them are in the store alone."""
        return self._line.behind

    @property
    def is_coming(self) -> bool:
        """Whether some will be at hand without anybody's doing."""
        return self._line.behind > 0 and self._has_room

    @property
    def window_bytes(self) -> int:
        """What is held in memory, about."""
        return self._line.window_bytes + self._held

    @property
    def _has_room(self) -> bool:
        return self._held < self._memory.window()

    # --- in ---------------------------------------------------------------------------------------

    def put(self, messages: list[Message], size: int, *, tell: bool = False) -> Sequence[Placed]:
        """Appends messages, whose bodies have `size` bytes."""
        return self._line.put(messages, size, tell=tell)

    def _look(self) -> None:
        """Takes some messages from the line: they are free, or parked."""
        run = self._line.take(STEP_MESSAGES)
        for number, message in zip(run.numbers, run.messages, strict=True):
            seen = Seen(number, message, run.redelivered, run.ticket)
            self._hold(message, 1)
            group = self._group(message)
            if group is None:
                heappush(self._free, seen)
            elif group in self._parked:
                self._park(group, seen)
            else:
                self._lead(group, seen)

    def _park(self, group: Any, seen: Seen) -> None:
        """A message stands behind the first one of its group."""
        parked = self._parked[group]
        parked.append(seen)
        if len(parked) == 1:
            self._note_head(group, parked)

    def _note_head(self, group: Any, parked: deque[Seen]) -> None:
        heappush(self._parked_heads, (parked[0].number, group))
        if len(self._parked_heads) > 2 * len(self._parked) + 64:
            heads = [(each[0].number, name) for name, each in self._parked.items() if each]
            heapify(heads)
            self._parked_heads = heads

    def _first_parked(self) -> tuple[int, Any] | None:
        """The lowest of the parked messages and its group; None if there is none."""
        while self._parked_heads:
            number, group = self._parked_heads[0]
            parked = self._parked.get(group)
            if parked and parked[0].number == number:
                return number, group
            heappop(self._parked_heads)
        return None

    def _lead(self, group: Any, seen: Seen) -> None:
        """A message is the first one of its group."""
        self._parked.setdefault(group, deque())
        self._group_of[seen.number] = group
        heappush(self._free, seen)

    def _hold(self, message: Message, sign: int) -> None:
        cost = held_alone(message)
        self._held_messages += sign
        self._held_bodies += sign * body_bytes(message)
        self._held += sign * cost
        self._memory.held += sign * cost

    def _group(self, message: Message) -> Any:
        """What the header says, whatever its type; None if it says nothing."""
        header = message[HEADER]
        if header is not self._last[0]:
            has_headers = content.flags(header) & content.HEADERS
            value = content.headers(header).values.get(GROUP_ID) if has_headers else None
            known = value if value is None or isinstance(value, str | int) else repr(value)
            self._last = header, known
        return self._last[1]

    # --- out --------------------------------------------------------------------------------------

    def take(self, limit: int) -> Run:
        """Removes at least one and at most `limit` messages, to be handed out; some are at hand."""
        first = heappop(self._free)
        taken = [first]
        while self._free and len(taken) < limit and self._free[0].redelivered == first.redelivered:
            taken.append(heappop(self._free))
        for seen in taken:
            self._hold(seen.message, -1)
        ticket = max(seen.ticket for seen in taken)
        return Run(
            [seen.number for seen in taken],
            [seen.message for seen in taken],
            first.redelivered,
            ticket if ticket > self._journal.committed else 0,
        )

    @property
    def can_drop(self) -> bool:
        """Whether the message that came first is in memory, free or parked."""
        return self.at_hand > 0 or self._held_messages > 0

    def drop(self, limit: int) -> Run:
        """Removes at least one and at most `limit` of the messages that came first, for good, also
        where their groups are busy."""
        dropped: list[Seen] = []
        while self.can_drop and len(dropped) < limit:
            dropped.append(self._pop_first())
        numbers = [seen.number for seen in dropped]
        messages = [seen.message for seen in dropped]
        self._line.settle(numbers, messages)
        return Run(numbers, messages, False)

    def _pop_first(self) -> Seen:
        parked = self._first_parked()
        if parked is not None and not (self._free and self._free[0].number < parked[0]):
            behind = self._parked[parked[1]]
            seen = behind.popleft()
            if behind:
                self._note_head(parked[1], behind)
        else:
            seen = heappop(self._free)
            self._pass_on(seen.number)
        self._hold(seen.message, -1)
        return seen

    def _first(self) -> int | None:
        """The number of the message that came first; None if it is not in memory."""
        if not self.can_drop:
            return None
        parked = self._first_parked()
        numbers = [seen.number for seen in self._free[:1]] + ([parked[0]] if parked else [])
        return min(numbers)

    def overdue(self, deadlines: Mapping[int, float], now: float, limit: int) -> Run | None:
        """Removes the message that came first if its deadline has passed; None if it has not.

        There may be more of them.
        """
        first = self._first()
        return None if first is None or deadlines.get(first, inf) > now else self.drop(1)

    def first_deadline(self, deadlines: Mapping[int, float]) -> float | None:
        """The deadline of the message that came first; None if it has none or is not in memory."""
        first = self._first()
        return None if first is None else deadlines.get(first)

    def give_back(self, deliveries: Sequence[tuple[int, Message]]) -> None:
        """Messages that were handed out are the first ones of their groups again."""
        for number, message in deliveries:
            self._hold(message, 1)
            heappush(self._free, Seen(number, message, True, 0))
        self._line.note_returned(deliveries)

    def settle(self, numbers: Sequence[int], messages: Sequence[Message]) -> None:
        """Messages that were taken are gone for good: those parked behind them are free."""
        for number in numbers:
            self._pass_on(number)
        self._line.settle(numbers, messages)

    def _pass_on(self, number: int) -> None:
        """A message is gone: if it was the first one of its group, the next one is."""
        group = self._group_of.pop(number, None)
        if group is None:
            return
        parked = self._parked[group]
        if parked:
            self._lead(group, parked.popleft())
            if parked:
                self._note_head(group, parked)
        else:
            del self._parked[group]

    def purge(self) -> tuple[int, list[Sequence[int]]]:
        """Removes all ready messages; how many, and their numbers."""
        gone, self._free = self._free, []
        for parked in self._parked.values():
            gone += parked
            parked.clear()
        for seen in gone:
            self._hold(seen.message, -1)
        numbers = [seen.number for seen in gone]
        if gone:
            self.settle(numbers, [seen.message for seen in gone])
        count, others = self._line.purge()
        return len(gone) + count, [numbers, *others]

    def fetched(self, fetch: Fetch, answer: Fetched) -> tuple[Placed, int] | None:
        """The answer to a fetch: what came into memory, and how many messages are lost."""
        return self._line.fetched(fetch, answer)

    def stopped(self) -> None:
        """The broker stops and nothing is unacknowledged: what was looked at and not handed out is
        as new as it was, as far as one mark can say so."""
        seen = [*self._free, *chain.from_iterable(self._parked.values())]
        if not seen:
            self._line.stopped()
            return
        first = min(each.number for each in seen)
        handed_out = [each.number + 1 for each in seen if each.redelivered]
        self._line.handed_out_below(max(handed_out, default=first))

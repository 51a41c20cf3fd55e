"""A line of messages: first in, first out, and what the store has to keep of it.

The backlog of a classic or a quorum queue is one line; a priority queue has several. Each is known
to the journal and the store by an id of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from amqpd.broker.fetch import Fetch, Fetched
from amqpd.broker.journal import Journal, Standing
from amqpd.broker.memory import Memory
from amqpd.broker.message import PERSISTENT, Message, bodies_size
from amqpd.broker.queues.handed_out import HandedOut
from amqpd.broker.queues.window import (
    FETCH_MESSAGES_MAX,
    Missing,
    Run,
    Window,
)

# In the numbers of a queue's messages the bits above these say which of its lines it is.
LINE_BITS: Final = 43
NUMBER_MAX: Final = (1 << LINE_BITS) - 1

# What is fetched of a queue that nobody takes from: enough to see what its first message is.
PEEK_MESSAGES = 16
# What is fetched at once with details: reading them takes the interpreter's lock from the loop.
DETAILED_MESSAGES = 2048


class Placed(NamedTuple):
    """Messages that have come into memory, with their numbers side by side."""

    numbers: Sequence[int]
    messages: list[Message]


class Fifo:
    """Ready messages in their order.

    Args:
        queue_id: its number in the journal and the store.
        durable: persistent messages are kept; of a line that is not durable, none is.
        is_quorum: all messages count as persistent, and what comes back goes in that order.
        base: what the numbers of its messages begin from.
        standing: as the store has it.

    Attributes:
        kept: messages that the store has or will have, ready and unacknowledged.
        kept_bytes: the size of their bodies.
        has_spilled: the store may have messages of it that need not outlive the process.
    """

    def __init__(
        self,
        queue_id: int,
        journal: Journal,
        memory: Memory,
        *,
        durable: bool,
        is_quorum: bool = False,
        base: int = 0,
        standing: Standing | None = None,
    ) -> None:
        found = standing or Standing(1, 0, 0, 0)
        # The mark runs ahead of what was handed out, and what comes from now on is new.
        seen_below = base + min(found.handed_out_below, found.next_number)
        self.queue_id = queue_id
        self.durable = durable
        self.kept = found.messages
        self.kept_bytes = found.bytes
        self.has_spilled = False
        self.window = Window(
            memory,
            base + found.next_number,
            found.messages,
            found.bytes,
            seen_below,
            base + 1,
            returns_in_turn=is_quorum,
        )
        self.lines = (self,)
        self._is_quorum = is_quorum
        self._journal = journal
        self._handed_out = HandedOut(seen_below)

    @property
    def next_number(self) -> int:
        """Of the next message that is put."""
        return self.window.next_number

    @property
    def ready(self) -> int:
        """How many messages there are."""
        return self.window.ready

    @property
    def ready_bytes(self) -> int:
        """The size of their bodies."""
        return self.window.ready_bytes

    @property
    def at_hand(self) -> int:
        """How many of them are in memory."""
        return self.window.ready - self.window.behind

    @property
    def can_drop(self) -> bool:
        """Whether the message that goes first is in memory."""
        return self.at_hand > 0

    @property
    def behind(self) -> int:
        """How many of them are in the store alone."""
        return self.window.behind

    @property
    def is_coming(self) -> bool:
        """Whether some will be at hand without anybody's doing."""
        return self.window.behind > 0

    @property
    def window_bytes(self) -> int:
        """What is held in memory, about."""
        return self.window.window_bytes

    def standing(self) -> Standing | None:
        """What the store is to keep of it beside its messages; None if it is not durable."""
        if not self.durable:
            return None
        below, next_number = self._handed_out.below, self.window.next_number
        return Standing(next_number & NUMBER_MAX, below & NUMBER_MAX, self.kept, self.kept_bytes)

    # --- in ---------------------------------------------------------------------------------------

    def put(self, messages: list[Message], size: int, *, tell: bool = False) -> tuple[Placed, ...]:
        """Appends messages, whose bodies have `size` bytes.

        The list is the backlog's from here on. Returns those that are in memory, if asked to tell.
        """
        if self._is_quorum:
            messages = as_persistent(messages)
        first, at_hand = self.window.put(messages, size)
        if self.durable or not at_hand:
            self._note(first, messages, size, at_hand)
        return (Placed(range(first, first + len(messages)), messages),) if tell and at_hand else ()

    def _note(self, first: int, messages: list[Message], size: int, at_hand: bool) -> None:
        """Tells the journal what to keep, and what has no room in memory."""
        journal, count = self._journal, len(messages)
        numbers: Sequence[int] = range(first, first + count)
        kept = sum([message[PERSISTENT] for message in messages]) if self.durable else 0
        if kept:
            some, some_bytes = (numbers, messages), size
            if kept < count:
                some = _which(numbers, messages, persistent=True)
                some_bytes = bodies_size(some[1])
            self.kept += kept
            self.kept_bytes += some_bytes
            self._handed_out.came(some[0][0], journal)
            journal.add(self, *some, some_bytes)
        if kept < count and not at_hand:
            self.has_spilled = True
            if kept:
                numbers, messages = _which(numbers, messages, persistent=False)
            journal.spill(self, numbers, messages, bodies_size(messages))

    # --- out --------------------------------------------------------------------------------------

    def take(self, limit: int) -> Run:
        """Removes at least one and at most `limit` messages, to be handed out; some are at hand."""
        run = self.window.take(limit)
        if not self.kept:
            return run
        moved, ticket = self._handed_out.pass_on(run, self._journal)
        if moved:
            self._journal.mark(self)
        run.ticket = ticket
        return run

    def drop(self, limit: int) -> Run:
        """Removes at least one and at most `limit` of the messages that go first, for good."""
        run = self.window.take(limit)
        self.settle(run.numbers, run.messages)
        return run

    def overdue(self, deadlines: Mapping[int, float], now: float, limit: int) -> Run | None:
        """Removes at most `limit` messages that go first and whose deadlines have passed, or None.

        There may be more of them.
        """
        count = self.window.overdue(deadlines, now)
        return self.drop(min(count, limit)) if count else None

    def first_deadline(self, deadlines: Mapping[int, float]) -> float | None:
        """The deadline of the message that goes first; None if it has none or is not in memory."""
        first = self.window.first()
        return None if first is None else deadlines.get(first)

    def give_back(self, deliveries: Sequence[tuple[int, Message]]) -> None:
        """Puts messages that were handed out back at their places."""
        self.window.give_back(deliveries)
        self.note_returned(deliveries)

    def note_returned(self, deliveries: Sequence[tuple[int, Message]]) -> None:
        """Tells the journal of messages that were handed out and have come back."""
        if self.durable:
            kept = [number for number, message in deliveries if message[PERSISTENT]]
            if kept:
                self._journal.give_back(self, kept)

    def settle(self, numbers: Sequence[int], messages: Sequence[Message]) -> None:
        """Messages that were taken are gone for good."""
        if not self.durable:
            return
        if sum([message[PERSISTENT] for message in messages]) < len(messages):
            numbers, messages = _which(numbers, messages, persistent=True)
        if messages:
            self.kept -= len(messages)
            self.kept_bytes -= bodies_size(messages)
            self._journal.settle(self, numbers)

    def purge(self) -> tuple[int, list[Sequence[int]]]:
        """Removes all ready messages; how many, and their numbers."""
        purged = self.window.purge()
        if self.durable and purged.kept:
            self.kept -= purged.kept
            self.kept_bytes -= purged.kept_bytes
            self._journal.drop(self, _ranges(purged.numbers))
        if self.has_spilled:
            self._journal.unspill(self, self.window.next_number)
        return purged.messages, purged.numbers

    # --- what stands behind the window ------------------------------------------------------------

    def refill(self, *, wanted: bool, detailed: bool) -> list[Fetch] | Placed:
        """What to fetch from the store before the window runs dry, or what could be had at once.

        Args:
            wanted: someone takes from it; if not, no more is fetched than the first few.
            detailed: the details of the messages matter.
        """
        window = self.window
        if not window.wants_more or not (wanted or window.at_hand == 0):
            return []
        uncommitted = self._journal.uncommitted(self)
        below = window.next_number
        for changes in reversed(uncommitted):
            for waiting in (changes.added, changes.spilled):
                below = min(below, next(iter(waiting), below))
        if below > window.behind_from:
            messages_max = DETAILED_MESSAGES if detailed else FETCH_MESSAGES_MAX
            if not wanted:
                messages_max = PEEK_MESSAGES
            return [window.next_fetch(self.queue_id, below, messages_max, detailed=detailed)]
        # All that is wanted is still on its way to the disk, and so in memory.
        found: dict[int, Message] = {}
        for changes in uncommitted:
            for waiting in (changes.added, changes.spilled):
                found.update(
                    (number, message)
                    for number, message in waiting.items()
                    if number >= window.behind_from
                )
        numbers = sorted(found)
        messages = [found[each] for each in numbers]
        self._show(Fetched(numbers, messages, [], window.next_number))
        return Placed(numbers, messages)

    def fetched(self, fetch: Fetch, answer: Fetched) -> tuple[Placed, int] | None:
        """The answer to a fetch: what came into memory, and how many messages are lost.

        None if it is not wanted any more, since the queue was purged.
        """
        if not self.window.expects(fetch):
            return None
        if self._is_quorum:
            answer = answer._replace(messages=as_persistent(answer.messages))
        missing = self._show(answer)
        if self.durable and (missing.kept or answer.damaged):
            self.kept -= missing.kept + len(answer.damaged)
            self.kept_bytes -= missing.kept_bytes
            self._journal.mark(self)
            self._journal.set_aside(self, answer.damaged)
        return Placed(answer.numbers, answer.messages), missing.messages + len(answer.damaged)

    def _show(self, answer: Fetched) -> Missing:
        missing = self.window.fetched(answer)
        if self.has_spilled:
            self._journal.unspill(self, answer.read_below)
        return missing

    def stopped(self) -> None:
        """The broker stops and nothing is unacknowledged: the mark can be exact."""
        self.handed_out_below(self.window.head)

    def handed_out_below(self, number: int) -> None:
        """None with this number or a larger one was handed out."""
        if self.durable and self._handed_out.below != number:
            self._handed_out.below = number
            self._journal.mark(self)


def as_persistent(messages: list[Message]) -> list[Message]:
    """The messages, all of which count as persistent."""
    return [
        message if message[PERSISTENT] else (*message[:PERSISTENT], True) for message in messages
    ]


def _which(
    numbers: Sequence[int], messages: Iterable[Message], *, persistent: bool
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

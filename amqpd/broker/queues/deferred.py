"""A line of messages that wait for a time of their own, each for another.

In memory are those that are due next, in a heap; the others stand *behind* them, in the store
alone, and are fetched back in the order in which they are due before the heap runs dry. To routing
the line looks like a queue, so that messages come into it the way all publishes go.

Times are on the wall: a message is due when it is due, also after a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from amqpd.broker.deadlines import Alarm
from amqpd.broker.fetch import Due, Fetch, Fetched
from amqpd.broker.journal import CHOKED_S, Standing
from amqpd.broker.memory import held_alone
from amqpd.broker.message import Message, bodies_size, body_bytes
from amqpd.broker.queues.inbox import Inbox

if TYPE_CHECKING:
    from amqpd.broker.broker import Broker

# The heap may hold this share of what a queue may hold in memory. It is cut to it when it holds
# twice as much, and filled up when it holds half as much.
HEAP_SHARE: Final = 8
FETCH_MESSAGES: Final = 8192

# So many messages are released in one go; others have their turn before the next.
STEP_MESSAGES: Final = 512

LAST: Final = (inf, inf)
DELAY_MS_MAX: Final = 1 << 60  # as long as for ever; the store has no room for larger numbers


class Waiting(NamedTuple):
    """A message that waits."""

    ms: int
    number: int
    message: Message


class Deferred(Inbox):
    """Messages that wait.

    Args:
        delay_ms: how long a message that comes has to wait.
        release: takes messages that are due, in the order in which they are.
        durable: they are kept in the store, whatever their delivery mode; else they go with the
            process.
        standing: as the store has it.

    Attributes:
        queue_id: its number in the journal and the store.
        waiting: how many messages there are.
    """

    def __init__(
        self,
        broker: Broker,
        queue_id: int,
        name: str,
        *,
        delay_ms: Callable[[Message], int],
        release: Callable[[list[Message]], None],
        durable: bool,
        standing: Standing | None = None,
    ) -> None:
        super().__init__()
        found = standing or Standing(1, 0, 0, 0)
        self.queue_id = queue_id
        self.name = name
        self.durable = durable
        self.deleted = False
        self.next_number = found.next_number
        self.waiting = found.messages
        self._bytes = found.bytes
        self._broker = broker
        self._delay_ms = delay_ms
        self._release = release
        self._heap: list[Waiting] = []
        self._heap_bytes = 0
        self._behind = found.messages
        self._first_number = 1
        # Those in the heap are due before this one or with it, those behind it after it.
        self._horizon: tuple[float, float] = (-1, -1) if self._behind else LAST
        self._fetch: Fetch | None = None
        self._meanwhile: list[Waiting] = []  # uncommitted or new while something is being fetched
        self._alarm = Alarm(broker.deadlines, self._touch)

    def standing(self) -> Standing | None:
        """What the store is to keep of it beside its messages; None if it is not durable."""
        return Standing(self.next_number, 0, self.waiting, self._bytes) if self.durable else None

    # --- in ---------------------------------------------------------------------------------------

    def absorb(self) -> None:
        """Takes the inbox."""
        messages = self.emptied()
        if messages and not self.deleted:
            self.put(messages, [self._delay_ms(message) for message in messages])

    def put(self, messages: list[Message], delays_ms: list[int]) -> None:
        """Messages come that have to wait, each for so long."""
        size = bodies_size(messages)
        now_ms = self._broker.wall_ms()
        numbers = range(self.next_number, self.next_number + len(messages))
        self.next_number += len(messages)
        self.waiting += len(messages)
        self._bytes += size
        due_ms = {
            number: now_ms + min(delay_ms, DELAY_MS_MAX)
            for number, delay_ms in zip(numbers, delays_ms, strict=True)
        }
        journal = self._broker.journal
        (journal.add if self.durable else journal.spill)(self, numbers, messages, size)
        journal.defer(self, due_ms)
        for number, message in zip(numbers, messages, strict=True):
            self._wait(Waiting(due_ms[number], number, message))

    def _wait(self, waiting: Waiting) -> None:
        if waiting[:2] <= self._horizon:
            self._hold(waiting)
            return
        self._behind += 1
        if self._fetch is not None:
            self._meanwhile.append(waiting)

    def _hold(self, waiting: Waiting) -> None:
        heappush(self._heap, waiting)
        cost = held_alone(waiting.message)
        self._heap_bytes += cost
        self._broker.memory.held += cost
        if self._heap_bytes > 2 * self._heap_bytes_max() and len(self._heap) > 1:
            self._cut()

    def _heap_bytes_max(self) -> int:
        return self._broker.memory.window() // HEAP_SHARE

    def _cut(self) -> None:
        """Leaves the last ones of the heap to the store."""
        self._heap.sort()
        kept, size, size_max = 0, 0, self._heap_bytes_max()
        for waiting in self._heap:
            size += held_alone(waiting.message)
            if kept and size > size_max:
                break
            kept += 1
        gone = self._heap[kept:]
        del self._heap[kept:]  # a sorted list is a heap
        self._behind += len(gone)
        self._horizon = self._heap[-1][:2]
        self._drop(gone)
        if self._fetch is not None:
            self._meanwhile += gone

    def _drop(self, gone: Sequence[Waiting]) -> None:
        """Messages are not in memory any more."""
        sizes = [held_alone(waiting.message) for waiting in gone]
        self._heap_bytes -= sum(sizes)
        self._broker.memory.held -= sum(sizes)

    # --- out --------------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Releases what is due."""
        if self.deleted:
            return
        if self._broker.journal.is_choked:
            self._look_again(self._broker.now + CHOKED_S)
            return
        now_ms = self._broker.wall_ms()
        due: list[Waiting] = []
        while self._heap and self._heap[0].ms <= now_ms and len(due) < STEP_MESSAGES:
            due.append(heappop(self._heap))
        if due:
            self._forget(due)
            self._release([waiting.message for waiting in due])
        self._refill()
        self._look_again()

    def _forget(self, due: list[Waiting]) -> None:
        self._drop(due)
        self.waiting -= len(due)
        self._bytes -= sum([body_bytes(waiting.message) for waiting in due])
        journal = self._broker.journal
        gone = journal.settle if self.durable else journal.settle_spilled
        gone(self, [waiting.number for waiting in due])

    def _look_again(self, earliest: float = 0) -> None:
        """Has the line touched when the next message is due, and not before a time."""
        if not self._heap:
            self._alarm.set(None)
            return
        when = self._heap[0].ms / 1000 - self._broker.epoch
        self._alarm.set(max(when, self._broker.now, earliest))

    def _touch(self) -> None:
        self._broker.touch(self)

    # --- what stands behind -----------------------------------------------------------------------

    def _refill(self) -> None:
        """Asks the store for what is due next, before the heap runs dry."""
        size_max = self._heap_bytes_max()
        if not self._behind or self._fetch is not None or self._heap_bytes > size_max // 2:
            return
        after = Due(*map(int, self._horizon))
        self._fetch = Fetch(
            self.queue_id, 0, self.next_number, FETCH_MESSAGES, size_max // 2, after=after
        )
        # What is on its way to the disk may be there when it is read, or not yet.
        self._meanwhile = [
            waiting
            for changes in self._broker.journal.uncommitted(self)
            for added in (changes.added, changes.spilled)
            for number, message in added.items()
            if (waiting := Waiting(changes.due_ms[number], number, message))[:2] > self._horizon
        ]
        self._broker.fetches.append(self._fetch)

    def fetched(self, fetch: Fetch, answer: Fetched) -> int:
        """The answer to a fetch; how many messages that should be there are missing or damaged."""
        if self.deleted or self._fetch is not fetch:
            return 0
        self._fetch = None
        is_all = answer.read_below == fetch.below
        due_ms = answer.details.due_ms if answer.details else ()
        found = {
            number: Waiting(ms, number, message)
            for ms, number, message in zip(due_ms, answer.numbers, answer.messages, strict=True)
        }
        read = [waiting[:2] for waiting in found.values()]
        found |= {waiting.number: waiting for waiting in self._meanwhile}
        # What was purged may have been there still when it was read, or was on its way.
        found = {number: each for number, each in found.items() if number >= self._first_number}
        self._meanwhile = []
        before = self._horizon
        horizon = LAST if is_all else max(read, default=before)
        taken = [each for each in found.values() if before < each[:2] <= horizon]
        self._behind -= len(taken)
        self._horizon = horizon
        self._heap += taken
        heapify(self._heap)
        cost = sum([held_alone(each.message) for each in taken])
        self._heap_bytes += cost
        self._broker.memory.held += cost
        return self._miss(answer.damaged) if is_all else 0

    def _miss(self, damaged: Sequence[int]) -> int:
        """All of what is behind was read, so what is not there is lost."""
        lost, self._behind = self._behind, 0
        self.waiting -= lost
        if damaged and self.durable:
            self._broker.journal.set_aside(self, list(damaged))
        return lost

    def wake(self) -> list[Any]:
        """Nobody waits for it."""
        return []

    # --- the end ----------------------------------------------------------------------------------

    def clear(self) -> None:
        """Drops all that waits."""
        journal = self._broker.journal
        if self.durable and self.waiting:
            journal.drop(self, [(1, self.next_number - 1)])
        elif self.waiting:
            journal.unspill(self, self.next_number)
        self._empty()

    def remove(self) -> None:
        """All that waits is gone."""
        self.deleted = True
        self._empty()
        self._broker.journal.remove_line(self)
        if not self.durable:
            self._broker.journal.unspill(self, self.next_number)

    def _empty(self) -> None:
        self._drop(self._heap)
        self._heap, self._meanwhile = [], []
        self.waiting = self._behind = self._bytes = 0
        self._first_number = self.next_number
        self._horizon = LAST
        self._fetch = None
        self._look_again()

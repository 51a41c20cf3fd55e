"""A stream: a log of messages that consumers read, each at its own place, and that nobody empties.

The number of a message is its offset. The store has all of them; in memory is the *tail*, what came
last, as far as it is not committed yet or consumers are near it, and for each consumer that reads
further back the block that it reads and the next one.

Consumers get what is not committed yet as they get all else, but nothing reaches them before it is:
an offset that a client has seen means the same message for ever.

Source: RabbitMQ, "Streams".
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from amqpd.broker.fetch import Fetch, Fetched
from amqpd.broker.journal import Journal, Standing
from amqpd.broker.memory import WINDOW_BYTES_MIN, Memory, held_bytes
from amqpd.broker.message import Message
from amqpd.broker.queues.compaction import Compaction, message_keys
from amqpd.broker.queues.cursor import Cursor, Read
from amqpd.broker.queues.fifo import Placed
from amqpd.broker.queues.retention import FOR_EVER, Retention, Segment, Segments
from amqpd.broker.queues.stream_arguments import FIRST, LAST, NEXT, SINCE, ReadFrom
from amqpd.broker.queues.window import (
    CHUNK_BYTES_MAX,
    CHUNK_MESSAGES_MAX,
    FETCH_BYTES_MAX,
    FETCH_MESSAGES_MAX,
    Run,
)

if TYPE_CHECKING:
    from amqpd.broker.consumer import Consumer

TAGS_MAX: Final = 4096  # remembered in one stream
SEEN: Final = ""  # under which it is remembered how far it was compacted; no consumer has this tag


class Part:
    """A part of the tail.

    Attributes:
        first: the offset of its first message.
        size: what it holds in memory, about.
        ticket: after which it is committed.
        came_ms: when its first message came, in milliseconds since 1970.
    """

    __slots__ = ("came_ms", "first", "messages", "size", "ticket")

    def __init__(self, first: int, messages: list[Message], size: int, ticket: int, ms: int):
        self.first = first
        self.messages = messages
        self.size = size
        self.ticket = ticket
        self.came_ms = ms


class Stream:
    """The messages of one stream.

    Args:
        queue_id: its number in the journal and the store.
        now_ms: says the time, in milliseconds since 1970.
        standing: as the store has it.
        segments: those that are full, as the store has them.
        places: where consumers are to go on, by their tags, as the store has them.

    Attributes:
        next_number: the offset of the next message.
        first_number: there is no message with a smaller offset.
        kept: how many messages there are.
        kept_bytes: the size of their bodies.
        places: where consumers are to go on, by their tags; at most TAGS_MAX.
    """

    durable = True
    has_spilled = is_coming = False
    ready_bytes = at_hand = window_bytes = 0  # nothing of it is ever taken

    def __init__(
        self,
        queue_id: int,
        journal: Journal,
        memory: Memory,
        now_ms: Callable[[], int],
        *,
        standing: Standing | None = None,
        segments: Iterable[Segment] = (),
        places: Mapping[str, int] | None = None,
    ) -> None:
        found = standing or Standing(0, 0, 0, 0)
        self.queue_id = queue_id
        self.next_number = found.next_number
        self.first_number = found.handed_out_below
        self.kept = found.messages
        self.kept_bytes = found.bytes
        self.places = dict(places or {})
        self._compaction = Compaction(queue_id, self.places.pop(SEEN, 0))
        self.lines = (self,)
        self._journal = journal
        self._memory = memory
        self._now_ms = now_ms
        self._retention = FOR_EVER
        self._segments = Segments(segments, self.first_number, found.bytes)
        self._tail: list[Part] = []
        self._tail_bytes = 0
        self._cursors: dict[Cursor, None] = {}
        self._caught_up: dict[Cursor, None] = {}
        self._wanting: dict[Cursor, None] = {}
        self._asked: dict[Fetch, list[Cursor]] = {}
        self._awake: list[Consumer] = []
        self._damaged: set[int] = set()  # set aside, and not yet out of the way of other fetches

    @property
    def ready(self) -> int:
        """How many messages there are."""
        return self.kept

    @property
    def can_drop(self) -> bool:
        """Nothing is dropped one by one."""
        return False

    @property
    def behind(self) -> int:
        """How many consumers wait for the store, or soon will; and one, if it is to be looked for
        superseded messages."""
        return len(self._wanting) + self._compaction.is_wanted

    def standing(self) -> Standing:
        """What the store is to keep of it beside its messages."""
        return Standing(self.next_number, self.first_number, self.kept, self.kept_bytes)

    # --- in ---------------------------------------------------------------------------------------

    def put(self, messages: list[Message], size: int, *, tell: bool = False) -> tuple[Placed, ...]:
        """Appends messages, whose bodies have `size` bytes."""
        first, count, now_ms = self.next_number, len(messages), self._now_ms()
        self._journal.add(self, range(first, first + count), messages, size)
        if self._retention.per_key is not None:
            self._journal.key(self, message_keys(first, messages))
        self.next_number += count
        self.kept += count
        self.kept_bytes += size
        self._append(first, messages, held_bytes(messages, size), now_ms)
        for segment in self._segments.came(first, messages, size, now_ms, self._retention):
            self._journal.fill(self, segment)
        self._retain(now_ms)
        self._wake(self._caught_up)
        self._caught_up = {}
        return ()

    def _append(self, first: int, messages: list[Message], size: int, now_ms: int) -> None:
        tail, ticket = self._tail, self._journal.ticket
        last = tail[-1] if tail else None
        if (
            last is not None
            and last.ticket == ticket
            and last.came_ms == now_ms
            and last.size + size < CHUNK_BYTES_MAX
            and len(last.messages) + len(messages) <= CHUNK_MESSAGES_MAX
        ):
            last.messages += messages
            last.size += size
        else:
            tail.append(Part(first, messages, size, ticket, now_ms))
        self._hold(size)
        self._tail_bytes += size
        limit = self._memory.window() if self._cursors else 0
        if self._tail_bytes > limit:
            self._shorten(limit // 2)

    def _shorten(self, limit: int) -> None:
        """Forgets what came first of the tail, as far as the store has it."""
        gone, committed = 0, self._journal.committed
        for part in self._tail:
            if self._tail_bytes <= limit or part.ticket > committed:
                break
            gone += 1
            self._tail_bytes -= part.size
            self._hold(-part.size)
        del self._tail[:gone]

    def _hold(self, size: int) -> None:
        self._memory.held += size

    # --- what stays -------------------------------------------------------------------------------

    def retain(self, terms: Retention) -> None:
        """So much may stay from now on."""
        self._retention = terms
        self._retain(self._now_ms())

    def _retain(self, now_ms: int) -> None:
        gone = self._segments.take_over(self.kept_bytes, now_ms, self._retention)
        if not gone:
            return
        below = gone[-1].below
        damaged = {each for each in self._damaged if each < below}  # they do not count any more
        self._damaged -= damaged
        self.kept -= min(self.kept, below - self.first_number - len(damaged))
        self.kept_bytes -= sum([segment.bytes for segment in gone])
        self._journal.drop(self, [(self.first_number, below - 1)])
        self.first_number = below

    def tend(self, now: float) -> float | None:
        """Does what is to be done from time to time; when to come again."""
        if self._retention.per_key is None:
            return None
        committed = self._journal.committed
        return self._compaction.tend(now, self._stored_below, self.next_number, committed)

    @property
    def _stored_below(self) -> int:
        """All messages with smaller offsets are in the store."""
        committed = self._journal.committed
        waiting = (part.first for part in self._tail if part.ticket > committed)
        return next(waiting, self.next_number)

    def _superseded(self, fetch: Fetch, answer: Fetched) -> None:
        """Newer messages with their keys have come."""
        journal = self._journal
        self._compaction.answered(fetch, answer, journal.ticket)
        if answer.numbers:
            journal.settle(self, answer.numbers)
            self.kept -= len(answer.numbers)
            self.kept_bytes -= answer.size
            self._shorten(0)  # the tail may hold some of them
        journal.remember(self, SEEN, self._compaction.seen_below)

    # --- consumers --------------------------------------------------------------------------------

    def join(self, cursor: Cursor) -> bool:
        """A consumer begins to read; whether it is remembered from now on where."""
        self._cursors[cursor] = None
        if cursor.tag in self.places:
            return False
        self._place(cursor)
        self._remember_start(cursor)
        return cursor.tag in self.places

    def leave(self, cursor: Cursor) -> None:
        """It has gone."""
        cursor.gone = True
        self._hold(-cursor.clear())
        self._cursors.pop(cursor, None)
        self._caught_up.pop(cursor, None)
        self._wanting.pop(cursor, None)
        if not self._cursors:
            self._shorten(0)

    def _place(self, cursor: Cursor) -> None:
        """Finds out where a consumer begins. One that is remembered goes on where it was."""
        known = self.places.get(cursor.tag) if cursor.tag else None
        what, value = cursor.origin if known is None else ReadFrom("at", known)
        cursor.since_ms = 0
        if what == FIRST:
            cursor.number = self.first_number
        elif what == NEXT:
            cursor.number = self.next_number
        elif what == LAST:
            cursor.number = max(self.first_number, self.next_number - 1)
        elif what == SINCE:
            self._place_in_time(cursor, value)
        else:
            cursor.number = min(max(value, self.first_number), self.next_number)

    def _remember_start(self, cursor: Cursor) -> None:
        """A consumer that goes before it has acknowledged anything begins there again."""
        is_known = cursor.number is not None and not cursor.since_ms
        if cursor.tag and is_known and cursor.tag not in self.places:
            self._remember(cursor.tag, cursor.number or 0)

    def _remember(self, tag: str, place: int) -> None:
        # Others may have come first since it began: then there is no room, and it is forgotten.
        if self.can_remember(tag):
            self.places[tag] = place
            self._journal.remember(self, tag, place)

    def _place_in_time(self, cursor: Cursor, since_ms: int) -> None:
        if self._tail and self._tail[0].came_ms < since_ms:
            later = [part.first for part in self._tail if part.came_ms >= since_ms]
            cursor.number = later[0] if later else self.next_number
        else:
            cursor.number, cursor.since_ms = self.first_number, since_ms

    def read(self, cursor: Cursor, limit: int) -> Run | None:
        """The next messages for a consumer, at most `limit`, none of which it may want; None if it
        has to wait, until it is `awakened`."""
        if cursor.is_new:
            cursor.is_new = False
            if cursor.number is None or cursor.tag in self.places:  # another may have come further
                self._place(cursor)
        found, size = cursor.read(limit)
        ticket = 0
        if found is None:
            found, ticket = self._read_tail(cursor, limit)
        elif size:
            self._hold(-size)
        self._look_ahead(cursor)
        if found is None:
            return None
        found = cursor.wanted(found)
        cursor.gave(found.numbers)
        return Run(found.numbers, found.messages, False, ticket)

    def _read_tail(self, cursor: Cursor, limit: int) -> tuple[Read | None, int]:
        """Messages out of the tail, and the ticket that they wait for; none if it begins later."""
        number, tail = cursor.number or 0, self._tail
        if number >= self.next_number:
            self._caught_up[cursor] = None
            return None, 0
        if cursor.since_ms or not tail or number < tail[0].first:
            return None, 0
        part = tail[-1]
        if number < part.first:
            part = tail[bisect_right(tail, number, key=_first) - 1]
        start = number - part.first
        messages = part.messages[start : start + cursor.reach(part.messages, start, limit)]
        cursor.number = number + len(messages)
        ticket = part.ticket if part.ticket > self._journal.committed else 0
        return Read(range(number, cursor.number), messages), ticket

    def _look_ahead(self, cursor: Cursor) -> None:
        """Wants the next block for a consumer before it has read the one that it has."""
        if cursor.fetching or cursor.left > FETCH_MESSAGES_MAX // 2:
            return
        if cursor.since_ms or cursor.ahead < self._tail_first:
            cursor.fetching = True
            self._wanting[cursor] = None

    @property
    def _tail_first(self) -> int:
        return self._tail[0].first if self._tail else self.next_number

    def awakened(self) -> list[Consumer]:
        """Consumers that had to wait, and need not any more."""
        awake, self._awake = self._awake, []
        return awake

    def _wake(self, cursors: Iterable[Cursor]) -> None:
        self._awake += [cursor.consumer for cursor in cursors if not cursor.gone]

    def settled(self, cursor: Cursor, numbers: Sequence[int]) -> None:
        """A consumer is done with messages."""
        place = cursor.settled(numbers)
        # What comes late, after its consumer, takes nothing back that the next one has done.
        if place is not None and not (cursor.gone and place < self.places.get(cursor.tag, 0)):
            self._remember(cursor.tag, place)

    def can_remember(self, tag: str) -> bool:
        """Whether there is room for one more place. Those go that nobody can go on from."""
        if tag in self.places or len(self.places) < TAGS_MAX:
            return True
        past = [tag for tag, place in self.places.items() if place < self.first_number]
        for each in past:
            del self.places[each]
            self._journal.remember(self, each, None)
        return bool(past)

    # --- the store --------------------------------------------------------------------------------

    def refill(self, *, wanted: bool, detailed: bool) -> list[Fetch]:
        """What to fetch from the store, for each consumer that reads there."""
        wanting, self._wanting = self._wanting, {}
        asked: list[Fetch] = []
        if self._compaction.is_wanted and self._retention.per_key is not None:
            asked.append(self._compaction.ask(self._retention.per_key, self._stored_below))
        # All of them together hold about what one queue may, but a little in any case.
        share = self._memory.window() // (2 * max(len(self._cursors), 1))
        bytes_max = max(min(share, FETCH_BYTES_MAX), WINDOW_BYTES_MIN // 4)
        for cursor in wanting:
            first = max(cursor.ahead, self.first_number)
            below = self._tail_first
            fetch = Fetch(
                self.queue_id, first, below, FETCH_MESSAGES_MAX, bytes_max, since_ms=cursor.since_ms
            )
            if fetch in self._asked:
                self._asked[fetch].append(cursor)
            else:
                self._asked[fetch] = [cursor]
                asked.append(fetch)
        return asked

    def fetched(self, fetch: Fetch, answer: Fetched) -> tuple[Placed, int]:
        """The answer to a fetch; how many messages of it are damaged."""
        if fetch.newest:
            self._superseded(fetch, answer)
            return Placed([], []), 0
        cursors = [cursor for cursor in self._asked.pop(fetch, ()) if not cursor.gone]
        for cursor in cursors:
            self._hold(cursor.got(answer))
            self._remember_start(cursor)
        self._wake(cursors)
        damaged = [number for number in answer.damaged if number not in self._damaged]
        if damaged:
            self._damaged.update(damaged)
            self.kept -= len(damaged)
            self._journal.mark(self)
            self._journal.set_aside(self, damaged)
        return Placed([], []), len(damaged)

    # --- what a stream has not --------------------------------------------------------------------

    def take(self, limit: int) -> Run:
        """Messages are read and never taken."""
        raise NotImplementedError("a stream is read with cursors")

    drop = take

    def overdue(self, deadlines: Mapping[int, float], now: float, limit: int) -> Run | None:
        """Its messages have no deadlines."""
        return None

    def first_deadline(self, deadlines: Mapping[int, float]) -> float | None:
        """Its messages have no deadlines."""
        return None

    def give_back(self, deliveries: Sequence[tuple[int, Message]]) -> None:
        """Nothing was taken."""

    def settle(self, numbers: Sequence[int], messages: Sequence[Message]) -> None:
        """Messages stay."""

    def purge(self) -> tuple[int, list[Sequence[int]]]:
        """The stream is deleted: forgets what is in memory; how many messages there were."""
        self._hold(-self._tail_bytes)
        self._tail, self._tail_bytes = [], 0
        for cursor in list(self._cursors):
            self.leave(cursor)
        return self.kept, []

    def stopped(self) -> None:
        """The broker stops; all is said in time."""


def _first(part: Part) -> int:
    return part.first

"""Ready messages in order: first in, first out, requeued messages at their old place, or before all
others in the order in which they came back.

The head is in memory, the *window*; what comes when the window is full stands *behind* it, in the
store alone, and is fetched back before the window runs dry.

Messages of the window stand in chunks, about one a read of the publisher's socket, so that putting
and taking cost per chunk and not per message. Returned messages have smaller numbers than all that
were never taken; they wait by themselves, and go first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from heapq import heapify, heappop, heappush
from math import inf
from typing import NamedTuple

from msgspec import Struct

from amqpd.broker.fetch import Fetch, Fetched
from amqpd.broker.memory import MESSAGE_OVERHEAD_BYTES, Memory, headers_size, held_alone
from amqpd.broker.message import PERSISTENT, Message, bodies_size

# A chunk grows by small batches up to this many messages or bytes, and so does what one take hands
# out: a run is at most a chunk.
CHUNK_MESSAGES_MAX = 1024
CHUNK_BYTES_MAX = 65_536
# One read of a socket makes one chunk. More comes together only at the commit of a transaction.
PUT_MESSAGES_MAX = 8192
PUT_BYTES_MAX = 1_048_576

# More is fetched when the window holds less than the first; at most so much at once.
REFILL_BELOW_BYTES = 4_194_304
FETCH_MESSAGES_MAX = 8192
FETCH_BYTES_MAX = 2_097_152


class Run(Struct, gc=False, eq=False):
    """Messages taken together, in order; `numbers` and `messages` run side by side.

    Attributes:
        redelivered: they were delivered before.
        ticket: that their delivery has to wait for; 0 for none.
    """

    numbers: Sequence[int]
    messages: list[Message]
    redelivered: bool
    ticket: int = 0


class Chunk:
    """A part of the window.

    Attributes:
        size: of the bodies.
        headers: the size of the headers, about.
    """

    __slots__ = ("headers", "messages", "numbers", "size")

    def __init__(
        self, numbers: Sequence[int], messages: list[Message], size: int, headers: int
    ) -> None:
        self.numbers = numbers
        self.messages = messages
        self.size = size
        self.headers = headers


class Purged(NamedTuple):
    """What a purge has removed.

    Attributes:
        numbers: in ranges without a gap or one by one.
        messages: how many.
        kept: how many of them were persistent.
        kept_bytes: the size of those.
    """

    numbers: list[Sequence[int]]
    messages: int
    kept: int
    kept_bytes: int


class Missing(NamedTuple):
    """What should have been in the store and was not: how many, and of them persistent ones."""

    messages: int
    kept: int
    kept_bytes: int


NONE_MISSING = Missing(0, 0, 0)


class Window:
    """Ready messages.

    Args:
        next_number: of the first message that is put.
        behind: how many messages the store has already.
        behind_bytes: size of their bodies.
        seen_below: those with smaller numbers count as delivered before.
        first: no message has a smaller number.
        returns_in_turn: what comes back goes in that order.

    Attributes:
        ready: how many there are.
        ready_bytes: size of their bodies.
        next_number: the number of the next message that is put.
        head: messages with this and larger numbers were never taken, nor before a restart.
        window_bytes: what the window holds, about.
        behind: how many are in the store alone.
        behind_from: none of those has a smaller number.
    """

    __slots__ = (
        "_behind_kept",
        "_behind_kept_bytes",
        "_fetch",
        "_memory",
        "_returned",
        "_seen_below",
        "_window",
        "behind",
        "behind_from",
        "head",
        "next_number",
        "ready",
        "ready_bytes",
        "window_bytes",
    )

    def __init__(
        self,
        memory: Memory,
        next_number: int = 1,
        behind: int = 0,
        behind_bytes: int = 0,
        seen_below: int = 0,
        first: int = 1,
        *,
        returns_in_turn: bool = False,
    ) -> None:
        self._memory = memory
        self._window: deque[Chunk] = deque()
        self.window_bytes = 0
        # A heap, or in turn.
        self._returned: list[tuple[int, Message]] | deque[tuple[int, Message]]
        self._returned = deque() if returns_in_turn else []
        self.behind_from = first if behind else next_number
        self._behind_kept = behind
        self._behind_kept_bytes = behind_bytes
        self._fetch: Fetch | None = None
        self._seen_below = seen_below
        self.head = max(self.behind_from, seen_below)
        self.behind = behind
        self.ready = behind
        self.ready_bytes = behind_bytes
        self.next_number = next_number

    @property
    def at_hand(self) -> int:
        """How many are in memory."""
        return self.ready - self.behind

    def overdue(self, deadlines: Mapping[int, float], now: float) -> int:
        """How many of the messages that go first have passed their deadlines, as one take has."""
        numbers: Sequence[int] = ()
        if self._returned:
            numbers = (self._returned[0][0],)
        elif self._window:
            numbers = self._window[0].numbers
        count = 0
        for number in numbers:
            if deadlines.get(number, inf) > now:
                break
            count += 1
        return count

    def first(self) -> int | None:
        """The number of the message that goes next; None if none is in memory."""
        if self._returned:
            return self._returned[0][0]
        return self._window[0].numbers[0] if self._window else None

    # --- in ---------------------------------------------------------------------------------------

    def put(self, messages: list[Message], size: int) -> tuple[int, bool]:
        """Appends messages, whose bodies have `size` bytes.

        The list is the backlog's from here on. Returns the number of the first, and whether they
        are in memory; if not, the store must have them all.
        """
        first, count = self.next_number, len(messages)
        self.next_number = below = first + count
        self.ready += count
        self.ready_bytes += size
        memory, window = self._memory, self._window
        headers = headers_size(messages)
        cost = size + headers + MESSAGE_OVERHEAD_BYTES * count
        if self.behind or (self.window_bytes and self.window_bytes + cost > memory.window()):
            self._put_behind(first, messages)
            return first, False
        self.window_bytes += cost
        memory.held += cost
        last = window[-1] if window else None
        if (
            last is not None
            and isinstance(numbers := last.numbers, range)
            and numbers.stop == first
            and len(numbers) + count <= CHUNK_MESSAGES_MAX
            and last.size + size <= CHUNK_BYTES_MAX
        ):
            last.numbers = range(numbers.start, below)
            last.messages += messages
            last.size += size
            last.headers += headers
        elif count <= PUT_MESSAGES_MAX and size <= PUT_BYTES_MAX:
            window.append(Chunk(range(first, below), messages, size, headers))
        else:
            self._append(range(first, below), messages, size, headers)
        return first, True

    def _put_behind(self, first: int, messages: list[Message]) -> None:
        if not self.behind:
            self.behind_from = first
        self.behind += len(messages)
        kept = [message for message in messages if message[PERSISTENT]]
        self._behind_kept += len(kept)
        self._behind_kept_bytes += bodies_size(kept)

    def _append(
        self, numbers: Sequence[int], messages: list[Message], size: int, headers: int
    ) -> None:
        """New chunks, each with about as many bytes as a chunk may have."""
        pieces = max(-(-len(messages) // PUT_MESSAGES_MAX), -(-size // PUT_BYTES_MAX))
        if pieces <= 1:
            self._window.append(Chunk(numbers, messages, size, headers))
            return
        step = -(-len(messages) // pieces)
        for start in range(0, len(messages), step):
            part = messages[start : start + step]
            share = headers * len(part) // (len(messages) - start)
            headers -= share
            self._window.append(
                Chunk(numbers[start : start + step], part, bodies_size(part), share)
            )

    def _hold(self, cost: int) -> None:
        self.window_bytes += cost
        self._memory.held += cost

    # --- out --------------------------------------------------------------------------------------

    def take(self, limit: int) -> Run:
        """Removes at least one and at most `limit` messages from the head, which is in memory."""
        if self._returned:
            return self._take_returned(min(limit, CHUNK_MESSAGES_MAX))
        chunk = self._window[0]
        numbers = chunk.numbers
        if len(numbers) <= limit:
            self._window.popleft()
            taken, size, headers = chunk.messages, chunk.size, chunk.headers
        else:
            headers = chunk.headers * limit // len(numbers)
            numbers, chunk.numbers = numbers[:limit], numbers[limit:]
            taken = chunk.messages[:limit]
            del chunk.messages[:limit]
            size = bodies_size(taken)
            chunk.size -= size
            chunk.headers -= headers
        cost = size + headers + MESSAGE_OVERHEAD_BYTES * len(taken)
        self.window_bytes -= cost
        self._memory.held -= cost
        self.ready -= len(taken)
        self.ready_bytes -= size
        self.head = max(self.head, numbers[-1] + 1)
        return Run(numbers, taken, numbers[-1] < self._seen_below)

    def _take_returned(self, limit: int) -> Run:
        returned = self._returned
        count = min(limit, len(returned))
        if isinstance(returned, deque):
            taken = [returned.popleft() for _ in range(count)]
        else:
            taken = [heappop(returned) for _ in range(count)]
        messages = [message for _, message in taken]
        self.ready -= count
        self.ready_bytes -= bodies_size(messages)
        self._hold(-sum(map(held_alone, messages)))
        return Run([number for number, _ in taken], messages, True)

    def give_back(self, deliveries: Sequence[tuple[int, Message]]) -> None:
        """Puts taken messages back at their places; they count as delivered before."""
        returned = self._returned
        if isinstance(returned, deque):
            returned += deliveries
        elif len(deliveries) > len(returned):
            returned += deliveries
            heapify(returned)
        else:
            for delivery in deliveries:
                heappush(returned, delivery)
        messages = [message for _, message in deliveries]
        self.ready += len(deliveries)
        self.ready_bytes += bodies_size(messages)
        self._hold(sum(map(held_alone, messages)))

    def purge(self) -> Purged:
        """Removes all ready messages, and forgets what is being fetched."""
        purged = [message for _, message in self._returned]
        numbers: list[Sequence[int]] = []
        if self._returned:
            numbers.append(sorted(number for number, _ in self._returned))
        for chunk in self._window:
            numbers.append(chunk.numbers)
            purged += chunk.messages
        kept = [message for message in purged if message[PERSISTENT]]
        found = Purged(
            numbers,
            self.ready,
            self._behind_kept + len(kept),
            self._behind_kept_bytes + bodies_size(kept),
        )
        if self.behind:
            numbers.append(range(self.behind_from, self.next_number))
        self._returned.clear()
        self._window.clear()
        self._hold(-self.window_bytes)
        self.ready = self.ready_bytes = 0
        self.behind = self._behind_kept = self._behind_kept_bytes = 0
        self._fetch = None
        self.head = self.behind_from = self.next_number
        return found

    # --- what stands behind the window ------------------------------------------------------------

    @property
    def wants_more(self) -> bool:
        """Whether the window runs dry and what is behind it should be fetched."""
        if not self.behind or self._fetch is not None:
            return False
        return self.window_bytes < min(REFILL_BELOW_BYTES, self._memory.window() // 2)

    def next_fetch(
        self,
        queue_id: int,
        below: int,
        messages_max: int = FETCH_MESSAGES_MAX,
        *,
        detailed: bool = False,
    ) -> Fetch:
        """What to fetch next from the store, which has all messages below a number."""
        size = min(FETCH_BYTES_MAX, self._memory.window() // 2)
        self._fetch = Fetch(queue_id, self.behind_from, below, messages_max, size, detailed)
        return self._fetch

    def expects(self, fetch: Fetch) -> bool:
        """Whether the answer to the fetch is still wanted."""
        return self._fetch is fetch

    def fetched(self, answer: Fetched) -> Missing:
        """Takes messages from behind into the window; what turns out to be missing in the store."""
        self._fetch = None
        kept = [message for message in answer.messages if message[PERSISTENT]]
        self.behind_from = answer.read_below
        self.behind -= len(answer.numbers) + len(answer.damaged)
        self._behind_kept -= len(kept) + len(answer.damaged)
        self._behind_kept_bytes -= bodies_size(kept)
        self.ready -= len(answer.damaged)
        self._show(answer.numbers, answer.messages)
        if not self.behind or self.behind_from < self.next_number:
            return NONE_MISSING
        missing = Missing(self.behind, self._behind_kept, self._behind_kept_bytes)
        self.ready -= self.behind
        self.behind = self._behind_kept = self._behind_kept_bytes = 0
        self._count_bytes()
        return missing

    def _count_bytes(self) -> None:
        """Counts the bytes anew: it is not known how large those were that are missing."""
        returned = bodies_size([message for _, message in self._returned])
        self.ready_bytes = returned + sum([chunk.size for chunk in self._window])

    def _show(self, numbers: list[int], messages: list[Message]) -> None:
        """Appends what was behind to the window, in chunks that were all seen or all not."""
        start = 0
        while start < len(numbers):
            end = min(start + CHUNK_MESSAGES_MAX, len(numbers))
            if numbers[start] < self._seen_below <= numbers[end - 1]:
                end = start + sum([number < self._seen_below for number in numbers[start:end]])
            part = messages[start:end]
            size, headers = bodies_size(part), headers_size(part)
            self._hold(size + headers + MESSAGE_OVERHEAD_BYTES * len(part))
            self._append(numbers[start:end], part, size, headers)
            start = end


def known_of(gone: Sequence[Sequence[int]], known: Collection[int]) -> list[int]:
    """The numbers out of ranges and lists that are known; ranges may be far longer than that."""
    found: list[int] = []
    for numbers in gone:
        if len(numbers) > len(known):
            found += [number for number in known if number in numbers]
        else:
            found += [number for number in numbers if number in known]
    return found

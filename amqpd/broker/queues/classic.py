"""The backlog of a classic queue: first in, first out, requeued messages at their old place.

Ready messages stand in chunks, about one a read of the publisher's socket, so that putting and
taking cost per chunk and not per message. Numbers run without a gap from the first message of the
first chunk. Returned messages have smaller numbers than all that were never taken; they wait in a
heap of their own and go first.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from amqpd.broker.message import BODY, Message

# A chunk grows by small batches up to this many messages or bytes, and so does what one take hands
# out: a run is at most a chunk.
CHUNK_MESSAGES_MAX = 1024
CHUNK_BYTES_MAX = 65_536
# One read of a socket makes one chunk. More comes together only at the commit of a transaction.
PUT_MESSAGES_MAX = 8192
PUT_BYTES_MAX = 1_048_576


class Run(NamedTuple):
    """Messages taken together, in order; `numbers` and `messages` run side by side."""

    numbers: Sequence[int]
    messages: list[Message]
    redelivered: bool


class Classic:
    """Ready messages of one queue.

    Attributes:
        ready: how many there are.
        next_number: the number of the next message that is put.
    """

    __slots__ = ("_chunks", "_first", "_returned", "_sizes", "next_number", "ready")

    def __init__(self) -> None:
        self._chunks: deque[list[Message]] = deque()
        self._sizes: deque[int] = deque()
        self._first = 1
        self._returned: list[tuple[int, Message]] = []
        self.ready = 0
        self.next_number = 1

    def put(self, messages: list[Message], size: int) -> int:
        """Appends messages, whose bodies have `size` bytes; the number of the first.

        The list is the backlog's from here on.
        """
        first = self.next_number
        count = len(messages)
        chunks = self._chunks
        if (
            chunks
            and len(chunks[-1]) + count <= CHUNK_MESSAGES_MAX
            and self._sizes[-1] + size <= CHUNK_BYTES_MAX
        ):
            chunks[-1] += messages
            self._sizes[-1] += size
        else:
            self._append(messages, size)
        self.ready += count
        self.next_number = first + count
        return first

    def _append(self, messages: list[Message], size: int) -> None:
        """New chunks, each with about as many bytes as a chunk may have."""
        pieces = max(-(-len(messages) // PUT_MESSAGES_MAX), -(-size // PUT_BYTES_MAX))
        step = -(-len(messages) // pieces)
        for start in range(0, len(messages), step):
            chunk = messages[start : start + step] if pieces > 1 else messages
            self._chunks.append(chunk)
            self._sizes.append(size if pieces == 1 else sum([len(each[BODY]) for each in chunk]))

    def take(self, limit: int) -> Run:
        """Removes at least one and at most `limit` messages from the head, which has some."""
        if self._returned:
            return self._take_returned(min(limit, CHUNK_MESSAGES_MAX))
        chunk = self._chunks[0]
        first = self._first
        if len(chunk) <= limit:
            self._chunks.popleft()
            self._sizes.popleft()
            taken = chunk
        else:
            taken = chunk[:limit]
            del chunk[:limit]
            self._sizes[0] -= sum([len(message[BODY]) for message in taken])
        count = len(taken)
        self._first = first + count
        self.ready -= count
        return Run(range(first, first + count), taken, False)

    def _take_returned(self, limit: int) -> Run:
        returned = self._returned
        count = min(limit, len(returned))
        taken = [heappop(returned) for _ in range(count)]
        self.ready -= count
        return Run([number for number, _ in taken], [message for _, message in taken], True)

    def give_back(self, deliveries: Iterable[tuple[int, Message]]) -> None:
        """Puts taken messages back at their places; they count as delivered before."""
        for delivery in deliveries:
            heappush(self._returned, delivery)
            self.ready += 1

    def purge(self) -> tuple[Run, ...]:
        """Removes all ready messages."""
        returned = [] if not self._returned else [self._take_returned(len(self._returned))]
        waiting = [self.take(self.ready) for _ in range(len(self._chunks))]
        return (*returned, *waiting)

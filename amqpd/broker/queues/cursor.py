"""A consumer's place in a stream, and the messages that were fetched for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from amqpd.broker.fetch import Fetched
from amqpd.broker.memory import held_bytes
from amqpd.broker.message import HEADER, Message, bodies_size
from amqpd.broker.queues.stream_arguments import ReadFrom, StreamFilter

if TYPE_CHECKING:
    from amqpd.broker.consumer import Consumer

# So many are read together at most by a consumer that wants only some of them.
FILTERED_MESSAGES: Final = 256


class Read(NamedTuple):
    """Messages read together; `numbers` are their offsets, side by side with them."""

    numbers: Sequence[int]
    messages: list[Message]


class Block:
    """Messages that were fetched together.

    Attributes:
        below: all messages with smaller offsets that the store has are in here or before it.
        size: what it holds in memory, about.
    """

    __slots__ = ("below", "messages", "numbers", "place", "size")

    def __init__(self, answer: Fetched) -> None:
        self.numbers = answer.numbers
        self.messages = answer.messages
        self.below = answer.read_below
        self.place = 0
        self.size = held_bytes(self.messages, bodies_size(self.messages))

    @property
    def left(self) -> int:
        """Messages that were not read."""
        return len(self.numbers) - self.place


class Cursor:
    """Where a consumer reads.

    Args:
        origin: where it begins.
        wants: the messages that it wants; None for all.
        tag: under which its place is remembered; "" if it is not.

    Attributes:
        number: the offset of the next message; None before it is known where it begins.
        is_new: it has not read yet.
        since_ms: it begins with messages that came then or later, if the store has to say which.
        fetching: an answer of the store is on its way.
        gone: its consumer has gone.
    """

    __slots__ = (
        "_blocks", "_outstanding", "consumer", "fetching", "gone", "is_new", "number", "origin",
        "since_ms", "tag", "wants",
    )  # fmt: skip

    def __init__(
        self, consumer: Consumer, origin: ReadFrom, wants: StreamFilter | None, tag: str
    ) -> None:
        self.consumer = consumer
        self.origin = origin
        self.wants = wants
        self.tag = tag
        self.number: int | None = None
        self.is_new = True
        self.since_ms = 0
        self.fetching = False
        self.gone = False
        self._blocks: deque[Block] = deque()
        self._outstanding: dict[int, None] = {}

    @property
    def ahead(self) -> int:
        """The offset behind what was fetched."""
        return self._blocks[-1].below if self._blocks else self.number or 0

    @property
    def left(self) -> int:
        """Messages that were fetched and not read."""
        return sum([block.left for block in self._blocks])

    def got(self, answer: Fetched) -> int:
        """The store has answered; how much more it holds in memory."""
        self.fetching, self.since_ms = False, 0
        if not answer.numbers:
            if not self._blocks:
                self.number = answer.read_below
            return 0
        if not self._blocks:
            self.number = answer.numbers[0]
        block = Block(answer)
        self._blocks.append(block)
        return block.size

    def read(self, limit: int) -> tuple[Read | None, int]:
        """What was fetched, and how much less it holds in memory then."""
        if not self._blocks:
            return None, 0
        block = self._blocks[0]
        start = block.place
        end = min(start + self.reach(block.messages, start, limit), len(block.numbers))
        block.place = end
        found = Read(block.numbers[start:end], block.messages[start:end])
        if block.left:
            self.number = block.numbers[end]
            return found, 0
        self._blocks.popleft()
        self.number = block.below
        return found, block.size

    def reach(self, messages: Sequence[Message], start: int, limit: int) -> int:
        """How many messages to read, so that the consumer wants at most `limit` of them."""
        if self.wants is None:
            return limit
        wants, count = self.wants.wants, 0
        for place in range(start, min(start + FILTERED_MESSAGES, len(messages))):
            count += wants(messages[place][HEADER])
            if count == limit:
                return place + 1 - start
        return FILTERED_MESSAGES

    def clear(self) -> int:
        """Forgets what was fetched; how much less it holds in memory."""
        size = sum([block.size for block in self._blocks])
        self._blocks.clear()
        return size

    def wanted(self, read: Read) -> Read:
        """The messages that the consumer wants."""
        if self.wants is None:
            return read
        wants = self.wants.wants
        pairs = [
            (number, message)
            for number, message in zip(*read, strict=True)
            if wants(message[HEADER])
        ]
        return Read([number for number, _ in pairs], [message for _, message in pairs])

    # --- where it is remembered -------------------------------------------------------------------

    def gave(self, numbers: Sequence[int]) -> None:
        """Messages were handed out."""
        if self.tag:
            self._outstanding.update(dict.fromkeys(numbers))

    def settled(self, numbers: Sequence[int]) -> int | None:
        """Messages were settled; where a consumer with this tag is to go on, if that has moved."""
        if not self.tag:
            return None
        first = next(iter(self._outstanding), None)
        for number in numbers:
            self._outstanding.pop(number, None)
        now_first = next(iter(self._outstanding), self.number)
        return now_first if now_first != first else None

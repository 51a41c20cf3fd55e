"""What must become durable: the seam between the broker and its store.

The broker notes what happens while it works; what has gathered is handed to the store as one batch
whenever the store has finished the one before, and the core is told when its ticket is committed. A
promise (a confirm, a declare-ok of something durable) waits for the ticket of the batch that holds
it. What comes and goes between two hand-overs is never written.

Nobody waits for what was settled or spilled: a batch with nothing else is put off for LAZY_S, so
that it goes with the next one that somebody does wait for.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from amqpd.broker.memory import headers_size
from amqpd.broker.message import Message
from amqpd.broker.operations import Operation, QueueRemoved

if TYPE_CHECKING:
    from amqpd.broker.duplicates import KeyLine, Known
    from amqpd.broker.queues.deferred import Deferred
    from amqpd.broker.queues.fifo import Fifo
    from amqpd.broker.queues.queue import Queue
    from amqpd.broker.queues.retention import Segment
    from amqpd.broker.queues.stream import Stream

    Line: TypeAlias = Fifo | Deferred | Stream | KeyLine

# What is remembered of a message that is on its way to the disk, beside its bytes.
MESSAGE_OVERHEAD_BYTES = 205

OPERATION_BYTES = 500  # the same of a declare or bind, about

LAZY_S = 0.05
LAZY_BYTES_MAX = 2_097_152  # of messages that were spilled and are still in memory
UNCOMMITTED_BYTES_MAX = 16_777_216
CHOKED_S = 0.05  # after so long, who had to wait looks again


class Standing(NamedTuple):
    """What is kept of a line of a durable queue beside its messages.

    Attributes:
        next_number: of the next message.
        handed_out_below: messages with smaller numbers may have been delivered before. Of a stream:
            there is none with a smaller one.
        messages: how many are kept, ready and unacknowledged.
        bytes: the size of their bodies.
    """

    next_number: int
    handed_out_below: int
    messages: int
    bytes: int = 0


class Changes:
    """What has happened to the messages of one line of a queue since the last hand-over.

    Attributes:
        added: messages to keep, by number.
        message_keys: of messages of a compacted stream that were added, by number.
        due_ms: when messages of a deferred line are due, in milliseconds since 1970, by number.
        spilled: messages that have no room in memory and need not outlive the process, by number.
        settled: numbers of kept messages that are gone.
        returned: how often kept messages were delivered and came back, by number.
        damaged: numbers of kept messages that the store does not have as they were written.
        dropped: first and last numbers of ranges that are gone as a whole (purge).
        unspilled: numbers of spilled messages that are gone.
        unspilled_below: spilled messages with smaller numbers are in memory again, or gone.
        keys: of messages, by which duplicates of them are known; None to forget them.
        full: segments of a stream that are full.
        places: where consumers of a stream are to go on, by their tags; None to forget them.
        marked: the standing has changed, even if nothing else has.
        standing: of a durable queue as of the hand-over.
    """

    __slots__ = (
        "added",
        "damaged",
        "dropped",
        "due_ms",
        "full",
        "keys",
        "line",
        "marked",
        "message_keys",
        "places",
        "returned",
        "settled",
        "spilled",
        "standing",
        "unspilled",
        "unspilled_below",
    )

    def __init__(self, line: Line) -> None:
        self.line = line
        self.added: dict[int, Message] = {}
        self.spilled: dict[int, Message] = {}
        self.due_ms: dict[int, int] = {}
        self.message_keys: dict[int, str] = {}
        self.settled: list[int] = []
        self.returned: dict[int, int] = {}
        self.damaged: list[int] = []
        self.dropped: list[tuple[int, int]] = []
        self.keys: dict[str, Known | None] = {}
        self.full: list[Segment] = []
        self.places: dict[str, int | None] = {}
        self.unspilled: list[int] = []
        self.unspilled_below = 0
        self.marked = False
        self.standing: Standing | None = None

    @property
    def matters(self) -> bool:
        """Whether there is anything to write."""
        return bool(
            self.added
            or self.settled
            or self.spilled
            or self.dropped
            or self.returned
            or self.damaged
            or self.marked
            or self.unspilled
            or self.unspilled_below
            or self.places
            or self.keys
        )


class Batch(NamedTuple):
    """A hand-over.

    Attributes:
        ticket: its number.
        wall_ms: when it was handed over, in milliseconds since 1970.
        operations: on the topology, in their order; they come first.
        changes: by queue id.
        promised: it must not be lost when the power fails. If all that is lost is that a message
            was settled, it comes back, marked as redelivered.
    """

    ticket: int
    wall_ms: int
    operations: list[Operation]
    changes: dict[int, Changes]
    promised: bool


class Journal:
    """What has happened since the last hand-over.

    Bound: `limits.uncommitted_bytes_max`, over which publishers are not read, and nothing expires,
    is dropped or released that has waited; settlements are at most what was delivered.

    Args:
        lazy_bytes_max: a batch of which more is in memory is not put off.
        bytes_max: with more on its way to the disk, nobody should add to it who can wait.

    Attributes:
        ticket: of the open batch, the one that the next operation joins.
        committed: the last ticket that is durable.
        kept_ticket: the ticket after which all that must be kept so far is durable.
        due: when the open batch has to be handed over at the latest, where that is put off.
    """

    def __init__(
        self, lazy_bytes_max: int = LAZY_BYTES_MAX, bytes_max: int = UNCOMMITTED_BYTES_MAX
    ) -> None:
        self.ticket = 1
        self.committed = 0
        self.kept_ticket = 0
        self.due: float | None = None
        self._lazy_bytes_max = lazy_bytes_max
        self._bytes_max = bytes_max
        self._promised = False
        self._operations: list[Operation] = []
        self._changes: dict[int, Changes] = {}
        self._open_bytes = 0
        self._flying: Batch | None = None
        self._flying_bytes = 0

    @property
    def uncommitted_bytes(self) -> int:
        """Size of the messages on their way to the disk, about."""
        return self._open_bytes + self._flying_bytes

    @property
    def is_choked(self) -> bool:
        """Whether so much is on its way to the disk that whoever can wait should."""
        return self.uncommitted_bytes > self._bytes_max

    def append(self, operation: Operation) -> None:
        self._operations.append(operation)
        self._open_bytes += OPERATION_BYTES
        self._keep()

    def _keep(self) -> None:
        self.kept_ticket = self.ticket
        self._promised = True

    def wait_for(self, ticket: int) -> None:
        """Somebody waits for the ticket."""
        if ticket == self.ticket:
            self._promised = True

    def add(self, line: Line, numbers: Sequence[int], messages: list[Message], size: int) -> None:
        """Messages to keep have come; their bodies have `size` bytes."""
        self._of(line).added.update(zip(numbers, messages, strict=True))
        self._keep()
        self._count(messages, size)

    def spill(self, line: Line, numbers: Sequence[int], messages: list[Message], size: int) -> None:
        """Messages have no room in memory."""
        self._of(line).spilled.update(zip(numbers, messages, strict=True))
        self._count(messages, size)

    def _count(self, messages: list[Message], size: int) -> None:
        overhead = MESSAGE_OVERHEAD_BYTES * len(messages)
        self._open_bytes += size + overhead + headers_size(messages)

    def settle(self, line: Line, numbers: Sequence[int]) -> None:
        """Kept messages are gone."""
        changes = self._of(line)
        if changes.added:
            forget = changes.added.pop
            numbers = [number for number in numbers if forget(number, None) is None]
        changes.settled += numbers

    def defer(self, line: Line, due_ms: dict[int, int]) -> None:
        """Messages that were just added or spilled are due at these times."""
        self._of(line).due_ms.update(due_ms)

    def give_back(self, line: Line, numbers: list[int]) -> None:
        """Kept messages were delivered and have come back."""
        returned = self._of(line).returned
        for number in numbers:
            returned[number] = returned.get(number, 0) + 1

    def set_aside(self, line: Line, numbers: list[int]) -> None:
        """Kept messages turned out to be damaged; what is left of them is for a person to see."""
        self._of(line).damaged += numbers

    def drop(self, line: Line, ranges: list[tuple[int, int]]) -> None:
        """All messages with numbers in these ranges, which ascend, are gone; both ends included."""
        changes = self._of(line)
        for waiting in (changes.added, changes.spilled):
            for number in [each for each in waiting if _is_within(ranges, each)]:
                del waiting[number]
        changes.dropped += ranges

    def unspill(self, line: Line, below: int) -> None:
        """Spilled messages with smaller numbers are not needed any more."""
        changes = self._of(line)
        changes.unspilled_below = below
        for number in [each for each in changes.spilled if each < below]:
            del changes.spilled[number]

    def settle_spilled(self, line: Line, numbers: list[int]) -> None:
        """Spilled messages are gone."""
        changes = self._of(line)
        forget = changes.spilled.pop
        changes.unspilled += [number for number in numbers if forget(number, None) is None]

    def know(self, line: Line, key: str, known: Known | None) -> None:
        """The key of a message is known from now on, or not any more."""
        self._of(line).keys[key] = known
        if known is not None:
            self._keep()
            self._open_bytes += OPERATION_BYTES

    def key(self, stream: Stream, keys: dict[int, str]) -> None:
        """Messages that were just added have these keys."""
        self._of(stream).message_keys.update(keys)

    def fill(self, stream: Stream, segment: Segment) -> None:
        """A segment of a stream is full."""
        self._of(stream).full.append(segment)

    def remember(self, stream: Stream, tag: str, place: int | None) -> None:
        """Where a consumer of a stream is to go on; None if nobody will."""
        self._of(stream).places[tag] = place

    def mark(self, line: Line) -> None:
        """The standing of the line has changed."""
        self._of(line).marked = True
        # What is delivered from now on relies on it, so no failing power may take it back.
        self._promised = True

    def remove_line(self, line: Line) -> None:
        """A line that belongs to no queue of its own is gone with all that is in it."""
        self._changes.pop(line.queue_id, None)
        if line.durable:
            self.append(QueueRemoved(line.queue_id, 1))

    def remove(self, queue: Queue) -> None:
        """The queue is gone with all its messages."""
        for line in queue.backlog.lines:
            self._changes.pop(line.queue_id, None)
        if queue.durable:
            self.append(QueueRemoved(queue.queue_id, len(queue.line_ids)))
            return
        for line in queue.backlog.lines:
            if line.has_spilled:
                self.unspill(line, line.next_number)

    def _of(self, line: Line) -> Changes:
        found = self._changes.get(line.queue_id)
        if found is None:
            found = self._changes[line.queue_id] = Changes(line)
        return found

    def uncommitted(self, line: Line) -> list[Changes]:
        """The changes of a line that are not committed, oldest first."""
        flying = self._flying.changes.get(line.queue_id) if self._flying else None
        waiting = self._changes.get(line.queue_id)
        return [changes for changes in (flying, waiting) if changes is not None]

    @property
    def is_settled(self) -> bool:
        """Whether nothing waits to be committed."""
        return self._flying is None and not self._operations and not self._changes

    def last_ticket(self) -> int:
        """The ticket after which all that was noted so far is durable."""
        return self.ticket if self._operations or self._changes else self.ticket - 1

    def hand_over(self, now: float, wall_s: float) -> Batch | None:
        """The open batch; None if nothing has happened, it can wait, or the store is still busy.

        Args:
            now: seconds on the core's clock.
            wall_s: the same moment in seconds since 1970.
        """
        if self._flying is not None or not (self._operations or self._changes):
            return None
        if not self._promised and self._open_bytes < self._lazy_bytes_max:
            if self.due is None:
                self.due = now + LAZY_S
            if now < self.due:
                return None
        changes = {queue_id: each for queue_id, each in self._changes.items() if each.matters}
        for each in changes.values():
            each.standing = each.line.standing()
        self._flying = Batch(
            self.ticket, int(wall_s * 1000), self._operations, changes, self._promised
        )
        self._flying_bytes, self._open_bytes = self._open_bytes, 0
        self.ticket += 1
        self._operations, self._changes = [], {}
        self._promised, self.due = False, None
        return self._flying

    def has_committed(self, ticket: int) -> None:
        """The batch with this ticket is durable."""
        self.committed = ticket
        self._flying, self._flying_bytes = None, 0


def _is_within(ranges: list[tuple[int, int]], number: int) -> bool:
    """Whether one of the ranges, which ascend, holds the number."""
    place = bisect_right(ranges, number, key=itemgetter(0))
    return place > 0 and number <= ranges[place - 1][1]

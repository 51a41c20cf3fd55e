"""What was said and what was heard: the book in which every promise stands.

The rule of all clients: a publish, an acknowledgement or a deletion is noted before it is sent, a
confirm or an -ok after it has arrived. So whatever the moment of the kill, what the broker may have
done and what it has promised are both known.
"""

import collections
import itertools
import threading
from collections.abc import Iterable
from enum import IntEnum
from typing import Any, NamedTuple

import stamp

EXAMPLES = 6  # of each kind of violation are printed

Key = tuple[int, int]  # publisher and seq


class Settled(IntEnum):
    """How a copy has ended: not yet; as we have told the broker; as it has promised us."""

    OPEN = 0
    TOLD = 1
    PROMISED = 2


class Route(NamedTuple):
    """Where a publish goes."""

    exchange: str
    key: str
    queues: tuple[str, ...]


class Message:
    """One publish.

    Attributes:
        possible: it may be in its queues: it was sent, and if in a transaction, so was the commit.
        promised: its confirm or the commit-ok of its transaction has arrived.
    """

    __slots__ = ("key", "length", "persistent", "possible", "promised", "route")

    def __init__(self, key: Key, route: Route, length: int, persistent: bool) -> None:
        self.key = key
        self.route = route
        self.length = length
        self.persistent = persistent
        self.possible = False
        self.promised = False


class Copy:
    """A message in one queue.

    Attributes:
        found: it was there after a restart; from then on it must be, whatever was promised.
        delivered: a client has received it.
        holder: the client that has it and has not settled it.
    """

    __slots__ = ("delivered", "found", "holder", "message", "settled")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.found = False
        self.settled = Settled.OPEN
        self.delivered = False
        self.holder: object = None

    @property
    def must_be_there(self) -> bool:
        promised = self.found or self.message.promised
        return promised and self.message.persistent and self.settled is Settled.OPEN


class Violations:
    """Broken promises by kind; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, list[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, kind: str, detail: str) -> None:
        with self._lock:
            self._found.setdefault(kind, []).append(detail)

    @property
    def kinds(self) -> set[str]:
        return set(self._found)

    def lines(self) -> list[str]:
        """A report: each kind with its number and the first few examples."""
        lines = []
        for kind, details in self._found.items():
            lines.append(f"VIOLATION {kind}: {len(details)}")
            lines += [f"    {detail}" for detail in details[:EXAMPLES]]
        return lines


class Ledger:
    """All that the clients know together.

    Attributes:
        queues: the copies that are or may be in each queue.
        ending: set before the broker is killed; what clients then suffer is no violation.
        counts: published, promised, delivered, settled, ... since `begin_round`, for the report.
        open_copies: how many wait in all queues.
    """

    def __init__(self) -> None:
        self.queues: dict[str, dict[Key, Copy]] = collections.defaultdict(dict)
        self.violations = Violations()
        self.ending = threading.Event()
        self.counts: collections.Counter[str] = collections.Counter()
        self.open_copies = 0
        self._publishers = itertools.count(1)
        self._last: dict[int, int] = {}
        self._lock = threading.Lock()

    def new_publisher(self) -> int:
        """A number for one channel that publishes: what it publishes stays in order."""
        return next(self._publishers)

    def begin_round(self) -> None:
        """The broker lives again and has been checked."""
        self.ending.clear()
        self.counts.clear()
        copies = [copy for queue in self.queues.values() for copy in queue.values()]
        self.open_copies = sum(copy.settled is Settled.OPEN for copy in copies)

    def note(
        self, publisher: int, seq: int, route: Route, length: int, persistent: bool
    ) -> Message:
        """A publish that is about to be sent; `possible` is for the caller to set."""
        message = Message((publisher, seq), route, length, persistent)
        for queue in route.queues:
            self.queues[queue][message.key] = Copy(message)
        self._last[publisher] = seq
        self._count("published", len(route.queues), len(route.queues))
        return message

    def promised(self, messages: Iterable[Message]) -> None:
        """Their confirms have arrived."""
        count = 0
        for message in messages:
            message.promised = True
            count += len(message.route.queues)
        self._count("promised", count)

    def settle(self, copies: Iterable[Copy], settled: Settled) -> None:
        """Acknowledged or rejected, about to be sent or promised to us."""
        count = 0
        for copy in copies:
            count += copy.settled is Settled.OPEN
            copy.settled = max(copy.settled, settled)
            copy.holder = None
        self._count("settled", count, -count)

    def received(self, queue: str, holder: object, arrival: Any) -> Copy | None:
        """Notes a delivery to a client while the broker lives, and checks what can be checked."""
        copy = self._recognise(queue, arrival)
        if copy is None:
            return None
        key = copy.message.key
        where = f"{key} in {queue}"
        if not copy.message.possible:
            self.violations.add("delivered before its commit", where)
        # In the end clients go without a word, and a broker that is asked to stop hears no more of
        # what they acknowledge: what they had may come to others.
        if not self.ending.is_set():
            if copy.settled is not Settled.OPEN:
                self.violations.add("delivered again after it was acknowledged", where)
            if copy.holder is not None:
                self.violations.add("delivered to two consumers at a time", where)
        if copy.delivered and not arrival.redelivered:
            self.violations.add("delivered again without the flag redelivered", where)
        copy.delivered = True
        copy.holder = holder
        self._count("delivered", 1)
        return copy

    def _recognise(self, queue: str, arrival: Any) -> Copy | None:
        """The copy that arrived; a violation if there is none or it is not as it was published."""
        try:
            found, text = stamp.read(arrival.body, arrival.properties.message_id)
            copy = self.queues[queue].get((found.publisher, found.seq))
            if copy is None:
                self.violations.add(*self._unknown(queue, found))
                return None
            message = copy.message
            expected = stamp.properties(text, found.seq, found.length, message.persistent)
            stamp.check_properties(arrival.properties, expected)
            if (arrival.exchange, arrival.key) != message.route[
                :2
            ] or found.length != message.length:
                raise stamp.Damaged(f"{message.key} came as {arrival.exchange!r}, {arrival.key!r}")
        except stamp.Damaged as damage:
            self.violations.add("damaged", f"in {queue}: {damage}")
            return None
        return copy

    def _unknown(self, queue: str, found: stamp.Stamp) -> tuple[str, str]:
        where = f"{(found.publisher, found.seq)} in {queue}"
        if found.seq <= self._last.get(found.publisher, -1):
            # Either it was gone after an earlier restart, or it was never routed to this queue.
            return "came back, or is in a wrong queue", where
        return "never published", where

    def compare(self, queue: str, arrivals: list[Any]) -> None:
        """Holds what a queue has after a restart, in its order, against what was promised.

        Afterwards the ledger has the queue as it was found, every message delivered once more.
        """
        copies, there = self.queues[queue], {}
        last: dict[int, Key] = {}
        for arrival in arrivals:
            copy = self._recognise(queue, arrival)
            if copy is None:
                continue
            message = copy.message
            self._check_found(queue, copy, arrival.redelivered)
            if message.key in there:
                self.violations.add("twice in a queue", f"{message.key} in {queue}")
            before = last.get(message.key[0])
            if before is not None and before > message.key:
                self.violations.add("out of order", f"{message.key} after {before} in {queue}")
            last[message.key[0]] = message.key
            there[message.key] = copy
        for key, copy in copies.items():
            if key not in there and copy.must_be_there:
                known = "it was there after an earlier restart" if copy.found else "confirmed"
                self.violations.add("lost", f"{key} in {queue}, {copy.message.length} B, {known}")
        for copy in there.values():
            copy.found, copy.delivered = True, True
            copy.settled, copy.holder = Settled.OPEN, None
        self.queues[queue] = there
        self.counts["left"] += len(there)

    def _check_found(self, queue: str, copy: Copy, redelivered: bool) -> None:
        where = f"{copy.message.key} in {queue}"
        if not copy.message.possible:
            self.violations.add("there without a commit", where)
        if copy.settled is Settled.PROMISED:
            self.violations.add("there again after its end was promised", where)
        if not copy.message.persistent:
            self.violations.add("transient, and has survived", where)
        if copy.delivered and not redelivered:
            state = "unacked at the kill" if copy.holder else "delivered and requeued before"
            self.violations.add("there without the flag redelivered", f"{where}, {state}")
        self.counts["redelivered"] += redelivered

    def _count(self, what: str, number: int, opened: int = 0) -> None:
        with self._lock:
            self.counts[what] += number
            self.open_copies += opened

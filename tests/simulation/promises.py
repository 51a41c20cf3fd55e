"""What a broker has promised: the model that the simulation holds it to.

Whatever a client does joins the batch that is open at that moment; its *ticket* says whether it is
among what is committed when the broker crashes. So what must come back, and what must not, is known
exactly; only what goes out to consumers by itself may be in one of two batches.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

# All that may be declared here, and the types.
EXCHANGES = {"amq.fanout": "fanout", "f": "fanout", "e": "direct"}


class Published(NamedTuple):
    """A message as its publisher sent it."""

    exchange: str
    key: str
    body: bytes
    persistent: bool


class Kind(NamedTuple):
    """The properties of a queue."""

    durable: bool = False
    quorum: bool = False
    auto_delete: bool = False
    exclusive: bool = False


class Copy:
    """A message in one queue.

    Attributes:
        place: among all that has ever come into queues.
        added: the ticket with which it came in; 0 if it was there when the broker started.
        gone: it was settled for good with a ticket from the first to the second one.
        redelivered: what a delivery has to say; after a crash None where either is right.
        known: a client has received it, or the store has said so: no crash takes that back.
        came_back: it was taken and given back since the broker started.
    """

    __slots__ = ("added", "came_back", "gone", "known", "persistent", "place", "redelivered", "uid")

    def __init__(self, uid: int, persistent: bool, place: int, added: int) -> None:
        self.uid = uid
        self.persistent = persistent
        self.place = place
        self.added = added
        self.gone: tuple[int, int] | None = None
        self.redelivered: bool | None = False
        self.known = False
        self.came_back = False

    def comes_back(self, ticket: int) -> bool | None:
        """Whether it is there after a crash with this ticket committed; None for maybe."""
        if not self.persistent or self.added > ticket:
            return False
        if self.gone is None or self.gone[0] > ticket:
            return True
        return False if self.gone[1] <= ticket else None


class QueueModel:
    """One queue from its declaration to its end.

    Attributes:
        copies: all that could come back after a crash, and all that is ready or unacked.
        ready, unacked: parts of `copies`.
        removed: the ticket with which it was deleted.
        owner: whose it is alone.
        had_takers: there were consumers or gets since the broker started.
        taken: by whom, and places, of what was taken since the last look at the order.
        may, must: after a crash, what may and what must come back.
    """

    def __init__(self, queue_id: int, name: str, kind: Kind, added: int, owner: object) -> None:
        self.queue_id = queue_id
        self.name = name
        self.kind = kind
        self.added = added
        self.removed: int | None = None
        self.copies: dict[int, Copy] = {}
        self.ready: dict[int, Copy] = {}
        self.unacked: dict[int, Copy] = {}
        self.consumers: set[Any] = set()
        self.owner = owner
        self.had_takers = False
        self.taken: list[tuple[object, int]] = []
        self.may: dict[int, Copy] = {}
        self.must: set[int] = set()

    def exists(self, ticket: int) -> bool:
        """Whether it is there after a crash with this ticket committed."""
        removed = self.removed is not None and self.removed <= ticket
        return self.kind.durable and self.added <= ticket and not removed

    @property
    def kept(self) -> int:
        """How many messages the store has to keep."""
        alive = [*self.ready.values(), *self.unacked.values()]
        return sum(copy.persistent for copy in alive) if self.kind.durable else 0

    def put(self, copy: Copy) -> None:
        self.copies[copy.uid] = self.ready[copy.uid] = copy

    def take(self, uid: int, redelivered: bool, taker: object) -> Copy:
        """A message was delivered."""
        copy = self.ready.pop(uid, None)
        assert copy is not None, f"{uid} is delivered and not ready in {self.name}"
        assert copy.redelivered == redelivered, f"{uid} in {self.name} says {redelivered}"
        self.unacked[uid] = copy
        self.taken.append((taker, self.turn_of(copy)))
        return copy

    def settle(self, copy: Copy, first: int, last: int) -> None:
        """A delivered message is gone with a ticket from the first to the last one."""
        if self.unacked.pop(copy.uid, None) is not None:
            copy.gone = (first, last)

    def give_back(self, copies: Iterable[Copy]) -> None:
        """Delivered messages come back."""
        for copy in copies:
            if self.unacked.pop(copy.uid, None) is not None:
                copy.redelivered = copy.came_back = True
                self.ready[copy.uid] = copy

    def purge(self, ticket: int) -> None:
        for copy in self.ready.values():
            copy.gone = (ticket, ticket)
        self.ready.clear()

    def check_order(self) -> None:
        """What was taken since the last look was the head of the queue."""
        if not self.taken:
            return
        behind = min(map(self.turn_of, self.ready.values()), default=None)
        last: dict[object, int] = {}
        for channel, turn in self.taken:
            before = last.get(channel, 0)
            assert turn > before or turn == before == 0, f"{self.name} out of order on one channel"
            assert behind is None or turn < behind or turn == 0, f"{self.name} out of order"
            last[channel] = turn

    def turn_of(self, copy: Copy) -> int:
        """What goes first has less. In a quorum queue all that came back goes before the others."""
        return 0 if self.kind.quorum and copy.came_back else copy.place

    def forget(self, ticket: int) -> None:
        """Nothing before the ticket can be undone: what was gone by then cannot come back."""
        for copy in list(self.copies.values()):
            if copy.gone is not None and copy.gone[1] <= ticket:
                del self.copies[copy.uid]

    def restart(self, ticket: int, exact: bool) -> None:
        """The broker is gone, with this ticket committed; `exact` if it has stopped in order."""
        self.may = {
            copy.uid: copy for copy in self.copies.values() if copy.comes_back(ticket) is not False
        }
        self.must = {copy.uid for copy in self.may.values() if copy.comes_back(ticket)}
        for copy in self.may.values():
            if copy.known:
                copy.redelivered = True
            elif self.had_takers and not exact:
                copy.redelivered = None
            copy.added, copy.gone, copy.came_back = 0, None, False
        self.added, self.removed, self.had_takers = 0, None, False
        self.consumers.clear()

    def recovered(self, found: list[tuple[int, bool]]) -> None:
        """What the next broker has, in its order, and what it says of `redelivered`."""
        uids = [uid for uid, _ in found]
        assert len(uids) == len(set(uids)), f"twice in {self.name}: {sorted(uids)}"
        assert self.must <= set(uids), f"lost from {self.name}: {self.must - set(uids)}"
        assert set(uids) <= self.may.keys(), f"in {self.name}: {set(uids) - self.may.keys()}"
        places = [self.may[uid].place for uid in uids]
        assert places == sorted(places), f"{self.name} out of order: {uids}"
        for uid, redelivered in found:
            copy = self.may[uid]
            assert copy.redelivered in (None, redelivered), f"{uid} says {redelivered}"
            copy.redelivered = copy.known = redelivered
        self.copies = {uid: self.may[uid] for uid in uids}
        self.ready, self.unacked = dict(self.copies), {}


Binding = tuple[str, str, str]  # exchange, key, queue


class Ledger:
    """All that was promised.

    Attributes:
        ticket: of the batch that whatever happens now joins.
        exchanges: those that exist.
        history: of each durable thing, the tickets with which it came and went.
    """

    def __init__(self) -> None:
        self.ticket = 0
        self.published: dict[int, Published] = {}
        self.queues: dict[str, QueueModel] = {}
        self.removed: list[QueueModel] = []
        self.exchanges: dict[str, None] = {}
        self.bindings: dict[Binding, None] = {}
        self.history: dict[tuple[str, ...], list[tuple[int, bool]]] = {}
        self._place = 0
        self._safe = 0

    # --- topology -------------------------------------------------------------------------------

    def note(self, thing: tuple[str, ...], exists: bool) -> None:
        self.history.setdefault(thing, []).append((self.ticket, exists))

    def since(self, *thing: str) -> int:
        """The ticket with which a durable thing came or went last; 0 for what is not durable."""
        return self.history[thing][-1][0] if thing in self.history else 0

    def declare(self, queue_id: int, name: str, kind: Kind, owner: object) -> None:
        self.queues[name] = QueueModel(queue_id, name, kind, self.ticket, owner)

    def remove(self, queue: QueueModel) -> None:
        """The queue is gone, with its messages and its bindings."""
        del self.queues[queue.name]
        queue.removed = self.ticket
        if queue.kind.durable:
            self.removed.append(queue)
        queue.ready.clear()
        queue.unacked.clear()
        for binding in [each for each in self.bindings if each[2] == queue.name]:
            self._unbind(binding, queue)

    def declare_exchange(self, name: str) -> None:
        self.exchanges[name] = None
        self.note(("exchange", name), True)

    def remove_exchange(self, name: str) -> None:
        del self.exchanges[name]
        self.note(("exchange", name), False)
        for binding in [each for each in self.bindings if each[0] == name]:
            self.unbind(binding)

    def bind(self, binding: Binding) -> None:
        self.bindings[binding] = None
        if self.queues[binding[2]].kind.durable:
            self.note(("binding", *binding), True)

    def unbind(self, binding: Binding) -> None:
        self._unbind(binding, self.queues[binding[2]])

    def _unbind(self, binding: Binding, queue: QueueModel) -> None:
        del self.bindings[binding]
        if queue.kind.durable:
            self.note(("binding", *binding), False)

    # --- messages -------------------------------------------------------------------------------

    def route(self, exchange: str, key: str) -> list[QueueModel]:
        """The queues to which a publish goes."""
        if not exchange:
            return [self.queues[key]] if key in self.queues else []
        every_key = EXCHANGES[exchange] == "fanout"
        names = dict.fromkeys(
            queue
            for source, bound, queue in self.bindings
            if source == exchange and (every_key or bound == key)
        )
        return [self.queues[name] for name in names]

    def put(self, uid: int, queues: list[QueueModel]) -> int:
        """A publish comes into its queues; the ticket for which its confirm has to wait."""
        persistent, kept = self.published[uid].persistent, False
        for queue in queues:
            if queue.removed is None:
                self._place += 1
                durable = queue.kind.durable and (persistent or queue.kind.quorum)
                queue.put(Copy(uid, durable, self._place, self.ticket))
                kept |= durable
        return self.ticket if kept else 0

    # --- the end of an act and of a life ----------------------------------------------------------

    def check_orders(self, strict: bool) -> None:
        """Looks at what was taken from all queues in this act."""
        for queue in self.queues.values():
            if strict:
                queue.check_order()
            queue.taken.clear()

    def nothing_undone(self, ticket: int) -> None:
        """Nothing up to the ticket can be undone any more."""
        if ticket != self._safe:
            self._safe = ticket
            self.removed = [each for each in self.removed if (each.removed or 0) > ticket]
            for queue in (*self.queues.values(), *self.removed):
                queue.forget(ticket)

    def restart(self, ticket: int, exact: bool) -> None:
        """The broker is gone, with this ticket committed: what the next one must have."""
        things = self._existing(ticket)
        self.history = {thing: [(0, True)] for thing in things}
        self.exchanges = {thing[1]: None for thing in things if thing[0] == "exchange"}
        self.bindings = {
            (thing[1], thing[2], thing[3]): None for thing in things if thing[0] == "binding"
        }
        queues = [*self.queues.values(), *self.removed]
        self.queues = {queue.name: queue for queue in queues if queue.exists(ticket)}
        self.removed.clear()
        for queue in self.queues.values():
            queue.restart(ticket, exact)

    def _existing(self, ticket: int) -> list[tuple[str, ...]]:
        """The durable exchanges and bindings with this ticket committed."""
        found = []
        for thing, events in self.history.items():
            reached = [exists for when, exists in events if when <= ticket]
            if reached and reached[-1]:
                found.append(thing)
        return found

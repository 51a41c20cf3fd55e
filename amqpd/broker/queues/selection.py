"""Which consumer is next: round-robin among those with room, higher priorities first.

A consumer stands in its priority's turn while it may have room. One that turns out to have none
leaves the turn and comes back at its end when it has room again, so that the cost of choosing does
not grow with the consumers that are full or idle.

Where only a single consumer may be active, the others wait until it leaves. On a quorum queue it
also gives way to one of a higher priority, when all that it has unsettled is settled.

Source: RabbitMQ, "Consumer priorities", "Consumer acknowledgements" (round-robin), "Single Active
Consumer".
"""

from bisect import insort
from collections import deque

from amqpd.broker.consumer import Consumer


class Selection:
    """The consumers of one queue.

    Args:
        single: only one of them is active at a time.
        gives_way: it is not active any more when one of a higher priority has come.

    Attributes:
        consumers: all of them, in the order in which they came.
        active: the one that is, where there is a single one.
    """

    __slots__ = ("_gives_way", "_order", "_turns", "active", "consumers", "single")

    def __init__(self, *, single: bool = False, gives_way: bool = False) -> None:
        self.single = single
        self.active: Consumer | None = None
        self._gives_way = gives_way
        self.consumers: dict[Consumer, None] = {}
        # Turns in which someone stands, or the only one, by priority, and their priorities negated:
        # highest first.
        self._turns: dict[int, deque[Consumer]] = {}
        self._order: list[int] = []

    def add(self, consumer: Consumer) -> None:
        self.consumers[consumer] = None
        if not self.single:
            self.rejoin(consumer)
        elif self.active is None:
            self._activate(consumer)
        else:
            self._give_way()

    def remove(self, consumer: Consumer) -> None:
        del self.consumers[consumer]
        self._leave_turn(consumer)
        if consumer is self.active:
            self.active = None
            if self.consumers:
                self._activate(self._next())
        elif self.active is not None:
            self.rejoin(self.active)  # it may have been giving way to the one that is gone

    def _leave_turn(self, consumer: Consumer) -> None:
        if consumer.waiting:
            turn = self._turns[consumer.priority]
            turn.remove(consumer)
            consumer.waiting = False
            self._forget_if_empty(consumer.priority)

    def _activate(self, consumer: Consumer) -> None:
        self.active = consumer
        self.rejoin(consumer)

    def _next(self) -> Consumer:
        """The one that is active next: of the highest priority the one that has come first."""
        return max(self.consumers, key=lambda each: each.priority)

    def _give_way(self) -> bool:
        """Whether the active consumer has to go for another; it does if it has nothing unsettled.

        Until then it gets nothing.
        """
        active = self.active
        if not self._gives_way or active is None:
            return False
        following = self._next()
        if following.priority <= active.priority:
            return False
        self._leave_turn(active)
        if not active.unacked:
            self._activate(following)
        return True

    def clear(self) -> list[Consumer]:
        """Removes all; who they were."""
        gone = list(self.consumers)
        for consumer in gone:
            consumer.waiting = False
        self.consumers.clear()
        self.active = None
        self._turns.clear()
        self._order.clear()
        return gone

    def rejoin(self, consumer: Consumer) -> None:
        """The consumer may have room again."""
        if self.single and (consumer is not self.active or self._give_way()):
            return
        if not consumer.waiting:
            consumer.waiting = True
            self._turn(consumer.priority).append(consumer)

    def takers(self, count: int) -> list[tuple[Consumer, int]]:
        """Up to `count` consumers with their room, in turn, all of the highest priority with room.

        They are out of the turn until `took` puts them back.
        """
        while self._order:
            priority = -self._order[0]
            found = self._with_room(self._turns[priority], count)
            if found or len(self._order) == 1:
                return found
            self._forget_if_empty(priority)
        return []

    def _with_room(self, turn: deque[Consumer], count: int) -> list[tuple[Consumer, int]]:
        found: list[tuple[Consumer, int]] = []
        while turn and len(found) < count:
            consumer = turn[0]
            if consumer.shares_limit and found:
                break
            turn.popleft()
            consumer.waiting = False
            room = consumer.channel.room(consumer)
            if room > 0:
                found.append((consumer, room))
                if consumer.shares_limit:
                    return [(consumer, 1)]
        return found

    def has_room(self) -> bool:
        """Whether there is a consumer that can be given a message now."""
        takers = self.takers(1)
        if takers:
            self.took(takers, 0)
        return bool(takers)

    def took(self, takers: list[tuple[Consumer, int]], count: int) -> None:
        """`count` messages were dealt to `takers` in turn: they stand in line again."""
        turn = self._turn(takers[0][0].priority)
        served = count % len(takers) if count > len(takers) else min(count, len(takers))
        if count < len(takers):
            # Those without a message keep their place at the front.
            for consumer, _ in reversed(takers[served:]):
                consumer.waiting = True
                turn.appendleft(consumer)
            again = takers[:served]
        else:
            again = takers[served:] + takers[:served]
        for consumer, _ in again:
            consumer.waiting = True
            turn.append(consumer)

    def _turn(self, priority: int) -> deque[Consumer]:
        turn = self._turns.get(priority)
        if turn is None:
            turn = self._turns[priority] = deque()
            insort(self._order, -priority)
        return turn

    def _forget_if_empty(self, priority: int) -> None:
        if not self._turns[priority] and len(self._order) > 1:  # the last would soon be made again
            del self._turns[priority]
            self._order.remove(-priority)

"""Which consumer is next: round-robin among those with room, higher priorities first.

A consumer stands in its priority's turn while it may have room. One that turns out to have none
leaves the turn and comes back at its end when it has room again, so that the cost of choosing does
not grow with the consumers that are full or idle.

Source: RabbitMQ, "Consumer priorities" and "Consumer acknowledgements" (round-robin).
"""

from bisect import insort
from collections import deque

from amqpd.broker.consumer import Consumer


class Selection:
    """The consumers of one queue.

    Attributes:
        consumers: all of them, in the order in which they came.
    """

    __slots__ = ("_order", "_turns", "consumers")

    def __init__(self) -> None:
        self.consumers: dict[Consumer, None] = {}
        # Turns in which someone stands, by priority, and their priorities negated: highest first.
        self._turns: dict[int, deque[Consumer]] = {}
        self._order: list[int] = []

    def add(self, consumer: Consumer) -> None:
        self.consumers[consumer] = None
        self.rejoin(consumer)

    def remove(self, consumer: Consumer) -> None:
        del self.consumers[consumer]
        if consumer.waiting:
            turn = self._turns[consumer.priority]
            turn.remove(consumer)
            consumer.waiting = False
            self._forget_if_empty(consumer.priority)

    def clear(self) -> list[Consumer]:
        """Removes all; who they were."""
        gone = list(self.consumers)
        for consumer in gone:
            consumer.waiting = False
        self.consumers.clear()
        self._turns.clear()
        self._order.clear()
        return gone

    def rejoin(self, consumer: Consumer) -> None:
        """The consumer may have room again."""
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
            self._forget_if_empty(priority)
            if found:
                return found
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
        if not self._turns[priority]:
            del self._turns[priority]
            self._order.remove(-priority)

"""Which consumer is next: round-robin among those with room, higher priorities first.

A consumer stands in its priority's turn while it may have room. One that turns out to have none
leaves the turn and comes back at its end when it has room again, so that the cost of choosing does
not grow with the consumers that are full or idle.

Source: RabbitMQ, "Consumer priorities" and "Consumer acknowledgements" (round-robin).
"""

from collections import deque

from amqpd.broker.consumer import Consumer


class Selection:
    """The consumers of one queue.

    Attributes:
        consumers: all of them, in the order in which they came.
    """

    __slots__ = ("_priorities", "_turns", "consumers")

    def __init__(self) -> None:
        self.consumers: dict[Consumer, None] = {}
        self._turns: dict[int, deque[Consumer]] = {}
        self._priorities: list[int] = []  # highest first

    def add(self, consumer: Consumer) -> None:
        self.consumers[consumer] = None
        if consumer.priority not in self._turns:
            self._turns[consumer.priority] = deque()
            self._priorities = sorted(self._turns, reverse=True)
        self.rejoin(consumer)

    def remove(self, consumer: Consumer) -> None:
        del self.consumers[consumer]
        turn = self._turns[consumer.priority]
        if consumer.waiting:
            turn.remove(consumer)
            consumer.waiting = False
        if not any(other.priority == consumer.priority for other in self.consumers):
            del self._turns[consumer.priority]
            self._priorities.remove(consumer.priority)

    def rejoin(self, consumer: Consumer) -> None:
        """The consumer may have room again."""
        if not consumer.waiting:
            consumer.waiting = True
            self._turns[consumer.priority].append(consumer)

    def takers(self, count: int) -> list[tuple[Consumer, int]]:
        """Up to `count` consumers with their room, in turn, all of the highest priority with room.

        They are out of the turn until `took` puts them back.
        """
        for priority in self._priorities:
            turn = self._turns[priority]
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
                if consumer.shares_limit and found:
                    return [(consumer, 1)]
            if found:
                return found
        return []

    def took(self, takers: list[tuple[Consumer, int]], count: int) -> None:
        """`count` messages were dealt to `takers` in turn: they stand in line again."""
        turn = self._turns[takers[0][0].priority]
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

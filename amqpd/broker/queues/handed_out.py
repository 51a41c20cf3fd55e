"""Which messages of a durable queue may have been delivered before a crash: `redelivered`.

Messages are taken in the order of their numbers, so one number says it for all of them: those below
it were handed out. Keeping it up to date for every delivery would cost a write each; instead the
store is told a number that is ahead of what was handed out, and told again before that is reached.
It is ahead by as many as were handed out since the start, and by AHEAD at most; when the last
consumer has gone it is exact again. So many messages too many may count as redelivered after a
crash.
"""

from amqpd.broker.journal import Journal
from amqpd.broker.queues.classic import Run

AHEAD = 4096


class HandedOut:
    """The mark of one queue.

    Args:
        below: the mark as the store has it.
        ahead: how far the mark runs ahead of what is handed out, at most.

    Attributes:
        below: the mark as the journal has it.
    """

    __slots__ = (
        "_ahead",
        "_ahead_max",
        "_fresh_from",
        "_fresh_ticket",
        "_kept_below",
        "_ticket",
        "below",
    )

    def __init__(self, below: int, ahead: int = AHEAD) -> None:
        self.below = below
        self._ahead = 0
        self._ahead_max = ahead
        self._kept_below = below
        self._ticket = 0
        self._fresh_from = 0
        self._fresh_ticket = 0

    def came(self, first: int, journal: Journal) -> None:
        """Messages with this and larger numbers have come into the queue."""
        if self._fresh_ticket != journal.ticket:
            self._fresh_ticket = journal.ticket
            self._fresh_from = first

    def pass_on(self, run: Run, journal: Journal) -> tuple[bool, int]:
        """Messages are about to be delivered, maybe not for the first time.

        Returns whether the mark has moved, and the ticket that their delivery must wait for; 0 for
        none. A message that joins the store together with the mark need not wait. One that was
        delivered before may have to: its first delivery was perhaps held back and never heard.
        """
        if journal.committed >= self._ticket:
            self._kept_below = self.below
        numbers = run.numbers
        last = numbers[-1]
        moved = not run.redelivered and last + self._ahead // 2 >= self.below
        if moved:
            self.below, self._ticket = last + 1 + self._ahead, journal.ticket
        self._ahead = min(self._ahead + len(numbers), self._ahead_max)
        # A store without room would hold consumers up, and they may be who makes room.
        if last < self._kept_below or journal.is_stuck:
            return moved, 0
        fresh = self._fresh_ticket == journal.ticket and numbers[0] >= self._fresh_from
        return moved, 0 if fresh else self._ticket

    def rest(self, head: int) -> bool:
        """Nothing is handed out for now: the mark can be exact; whether it has moved.

        Args:
            head: the number of the first message that was never handed out.
        """
        if self.below == head:
            return False
        self.below, self._kept_below = head, min(head, self._kept_below)
        return True

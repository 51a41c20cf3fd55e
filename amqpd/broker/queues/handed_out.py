"""Which messages of a durable queue may have been delivered before a crash: `redelivered`.

Messages are taken in the order of their numbers, so one number says it for all of them: those below
it were handed out. Keeping it up to date for every delivery would cost a write each; instead the
store is told a number that is ahead of what was handed out, and told again before that is reached.
After a crash up to AHEAD messages too many of a queue that was read count as redelivered.
"""

from amqpd.broker.journal import Journal
from amqpd.broker.queues.window import Run

AHEAD = 4096


class HandedOut:
    """The mark of one queue.

    Args:
        below: the mark as the store has it.
        ahead: how far the mark runs ahead of what is handed out.

    Attributes:
        below: the mark as the journal has it.
    """

    __slots__ = ("_ahead", "_fresh_from", "_fresh_ticket", "_kept_below", "_ticket", "below")

    def __init__(self, below: int, ahead: int = AHEAD) -> None:
        self.below = below
        self._ahead = ahead
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
        last = max(numbers) if run.redelivered else numbers[-1]  # what came back may be in turn
        moved = not run.redelivered and last + self._ahead // 2 >= self.below
        if moved:
            self.below, self._ticket = last + self._ahead, journal.ticket
        if last < self._kept_below:
            return moved, 0
        fresh = self._fresh_ticket == journal.ticket and numbers[0] >= self._fresh_from
        return moved, 0 if fresh else self._ticket

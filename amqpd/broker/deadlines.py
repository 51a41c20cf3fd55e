"""The broker's only timer: one heap of what is due when. Nothing here reads a clock."""

from collections.abc import Callable
from heapq import heapify, heappop, heappush

from amqpd.log import EventLog

log = EventLog("deadlines")


class Deadline:
    """One entry; `cancel` takes it back."""

    __slots__ = ("action", "when")

    def __init__(self, when: float, action: Callable[[], None]) -> None:
        self.when = when
        self.action: Callable[[], None] | None = action


class Deadlines:
    """Actions by the time at which they are due, in seconds on the caller's monotonic clock."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Deadline]] = []
        self._order = 0
        self._cancelled = 0

    def at(self, when: float, action: Callable[[], None]) -> Deadline:
        """Has `action` called by the first `run` at or after `when`."""
        deadline = Deadline(when, action)
        self._order += 1
        heappush(self._heap, (when, self._order, deadline))
        return deadline

    def cancel(self, deadline: Deadline) -> None:
        """Takes a deadline back; one that has run or was cancelled is left alone."""
        if deadline.action is None:
            return
        deadline.action = None
        self._cancelled += 1
        # Bound: cancelled entries never outnumber the live ones by more than a few.
        if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].action is not None]
            heapify(self._heap)
            self._cancelled = 0

    def next(self) -> float | None:
        """When the first live deadline is due, or None."""
        while self._heap and self._heap[0][2].action is None:
            heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0][0] if self._heap else None

    def run(self, now: float) -> None:
        """Calls every action that is due, in the order of their times."""
        while (when := self.next()) is not None and when <= now:
            deadline = heappop(self._heap)[2]
            action, deadline.action = deadline.action, None
            if action is not None:
                try:
                    action()
                except Exception as bug:  # the others must have their turn
                    log.exception("internal error", bug)


class Alarm:
    """One action that is due at one time at most, which may be changed."""

    def __init__(self, deadlines: Deadlines, action: Callable[[], None]) -> None:
        self._deadlines = deadlines
        self._action = action
        self._deadline: Deadline | None = None

    def set(self, when: float | None) -> None:
        """Has the action called at this time alone, or not at all."""
        if self._deadline is not None:
            self._deadlines.cancel(self._deadline)
        self._deadline = None if when is None else self._deadlines.at(when, self._action)

    def set_by(self, when: float) -> None:
        """Has the action called at this time, if not before."""
        deadline = self._deadline
        if deadline is None or deadline.action is None or deadline.when > when:
            self.set(when)

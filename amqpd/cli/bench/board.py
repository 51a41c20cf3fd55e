"""Counters that every process of a run writes into shared memory and the conductor reads.

One row per connection, one writer per row: nothing is locked, and counting costs an assignment.
"""

from enum import IntEnum
from multiprocessing.context import BaseContext
from typing import Any


class Phase(IntEnum):
    """What all processes do at present; only the conductor moves it, and only forward."""

    CONNECT = 0
    CONSUME = 1
    WARM_UP = 2
    MEASURE = 3
    STOP = 4


class Field(IntEnum):
    """The columns of a row."""

    PUBLISHED = 0
    CONFIRMED = 1
    NACKED = 2
    RETURNED = 3
    DELIVERED = 4
    CONSUMING = 5  # 1 once the broker has accepted all consumers of the connection
    DONE = 6  # 1 once a connection has done all that was asked of it
    BLOCKED = 7  # 1 while the broker blocks the publisher
    LAST_NS = 8  # monotonic time of the last publish or delivery


class Board:
    """Shared memory: the phase, and a row of counters for each connection."""

    def __init__(self, context: BaseContext, rows: int) -> None:
        self.rows = rows
        self._shared: Any = context.RawArray("Q", 1 + rows * len(Field))
        self._cells = memoryview(self._shared).cast("B").cast("Q")

    def __getstate__(self) -> tuple[int, Any]:
        return self.rows, self._shared

    def __setstate__(self, state: tuple[int, Any]) -> None:
        self.rows, self._shared = state
        self._cells = memoryview(self._shared).cast("B").cast("Q")

    @property
    def phase(self) -> int:
        return self._cells[0]

    @phase.setter
    def phase(self, phase: Phase) -> None:
        self._cells[0] = phase

    def row(self, index: int) -> memoryview:
        """The counters of one connection, to be indexed by Field."""
        start = 1 + index * len(Field)
        return self._cells[start : start + len(Field)]

    def column(self, field: Field) -> list[int]:
        """One counter of all connections."""
        return self._cells[1 + field :: len(Field)].tolist()

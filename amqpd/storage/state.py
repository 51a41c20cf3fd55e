"""What the file says of itself: whether a broker has it, and how long its WAL is then."""

from __future__ import annotations

import sqlite3
from typing import Final, NamedTuple

_STOPPED: Final = "stopped_cleanly"
_WAL_BYTES: Final = "wal_bytes"


class State(NamedTuple):
    """The state of a file.

    Attributes:
        was_stopped: the process that had it before has closed it in good order, or it is new.
        wal_bytes: if not, how long its WAL must be at least.
    """

    was_stopped: bool = True
    wal_bytes: int = 0


def read_state(connection: sqlite3.Connection) -> State:
    """The state that was written last."""
    found = dict(connection.execute("SELECT key, value FROM main.state"))
    was_stopped, wal_bytes = found.get(_STOPPED, 1) == 1, found.get(_WAL_BYTES)
    return State(was_stopped, wal_bytes if isinstance(wal_bytes, int) else 0)


def write_state(connection: sqlite3.Connection, state: State) -> None:
    """Notes the state, within a transaction."""
    for row in ((_STOPPED, int(state.was_stopped)), (_WAL_BYTES, state.wal_bytes)):
        connection.execute("INSERT OR REPLACE INTO main.state VALUES (?, ?)", row)

"""What a broker needs of the file when it starts: topology and counters, and no message."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from amqpd.broker.journal import (
    Bound,
    ExchangeAdded,
    Operation,
    QueueAdded,
    Standing,
    VhostAdded,
)
from amqpd.broker.restore import Recovered
from amqpd.storage.database import ADVICE, told
from amqpd.storage.errors import StorageError
from amqpd.storage.schema import NUMBER_BITS
from amqpd.storage.writer import row_checksum

# In the order in which they are made again. Truth values are numbers in the file.
_TABLES: Final[tuple[tuple[str, Callable[..., Operation], tuple[int, ...]], ...]] = (
    ("vhosts", VhostAdded, ()),
    ("exchanges", ExchangeAdded, (3, 4)),
    ("queues", QueueAdded, (3,)),
    ("bindings", Bound, ()),
)


def recover(connection: sqlite3.Connection, file: Path) -> Recovered:
    """Reads the topology and the counters.

    Raises:
        StorageError: a row of them is not as it was written; the text says which.
    """
    operations: list[Operation] = []
    with told(file):
        for table, kind, truths in _TABLES:
            for row in connection.execute(f"SELECT * FROM {table}"):
                operations.append(kind(*_checked(file, table, row, truths)))
        standings = {
            row[0]: Standing(*_checked(file, "standings", row, ())[1:])
            for row in connection.execute("SELECT * FROM standings")
        }
        (last,) = connection.execute("SELECT max(last) FROM gone").fetchone()
    last_queue_id = 0 if last is None else last >> NUMBER_BITS
    return Recovered(operations, standings, last_queue_id)


def _checked(file: Path, table: str, row: tuple[Any, ...], truths: tuple[int, ...]) -> list[Any]:
    values = list(row[:-1])
    for place in truths:
        values[place] = bool(values[place])
    if row_checksum(values) != row[-1]:
        raise StorageError(f"{file} is damaged: row {values!r} of table {table}: {ADVICE}")
    return values

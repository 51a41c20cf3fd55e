"""What a broker needs of the file when it starts: topology and counters, and no message."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from amqpd.broker.duplicates import Known
from amqpd.broker.journal import Standing
from amqpd.broker.operations import Bound, ExchangeAdded, Operation, QueueAdded, VhostAdded
from amqpd.broker.queues.retention import Segment
from amqpd.broker.recovered import Recovered
from amqpd.storage.database import damaged_file, told
from amqpd.storage.rows import row_checksum
from amqpd.storage.schema import NUMBER_BITS

# In the order in which they are made again. Truth values are numbers in the file.
_TABLES: Final[tuple[tuple[str, Callable[..., Operation], tuple[int, ...]], ...]] = (
    ("vhosts", VhostAdded, ()),
    ("exchanges", ExchangeAdded, (3, 4)),
    ("queues", QueueAdded, (3,)),
    ("bindings", Bound, ()),
)

_SHARED_ROOTS: Final = (
    "SELECT 1 FROM main.sqlite_schema WHERE rootpage > 0 GROUP BY rootpage HAVING count(*) > 1"
)


def recover(connection: sqlite3.Connection, file: Path) -> Recovered:
    """Reads the topology and the counters.

    Raises:
        StorageError: a row of them is not as it was written; the text says which.
    """
    operations: list[Operation] = []
    with told(file):
        if connection.execute(_SHARED_ROOTS).fetchone() is not None:
            raise damaged_file(file, "two of its tables are in one place")
        for table, kind, truths in _TABLES:
            operations += [kind(*row) for row in _rows(connection, file, table, truths)]
        standings = {row[0]: Standing(*row[1:]) for row in _rows(connection, file, "standings")}
        segments: defaultdict[int, list[Segment]] = defaultdict(list)
        for queue_id, *segment in _rows(connection, file, "segments"):
            segments[queue_id].append(Segment(*segment))
        places: defaultdict[int, dict[str, int]] = defaultdict(dict)
        for queue_id, tag, place in _rows(connection, file, "places"):
            places[queue_id][tag] = place
        keys: defaultdict[int, list[Known]] = defaultdict(list)
        for queue_id, *known in sorted(_rows(connection, file, "keys"), key=itemgetter(0, 2)):
            keys[queue_id].append(Known(*known))
        gone = _rows(connection, file, "gone")
    last_gone = max((last for _, last in gone), default=0)
    return Recovered(operations, standings, last_gone >> NUMBER_BITS, segments, places, keys)


def _rows(
    connection: sqlite3.Connection, file: Path, table: str, truths: tuple[int, ...] = ()
) -> list[list[Any]]:
    """All rows of a table, which must be as they were written, without their checksums."""
    (found,) = connection.execute(f"PRAGMA main.quick_check({table})").fetchone()
    if found != "ok":  # rows may be missing
        raise damaged_file(file, f"table {table}: {found}")
    rows = [list(row) for row in connection.execute(f"SELECT * FROM main.{table}")]
    for row in rows:
        checksum = row.pop()
        for place in truths:
            row[place] = bool(row[place])
        if row_checksum(row) != checksum:
            raise damaged_file(file, f"row {row!r} of table {table}")
    return rows

"""All that can be read of a file that may be damaged.

Messages are read by their ids, some at a time. Where a page is malformed, reading goes on behind
it: at the smallest id from which SQLite finds its way again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from amqpd.storage.reader import is_intact
from amqpd.storage.readonly import UNREADABLE, insist_on_damage, snapshot
from amqpd.storage.rows import queue_ids, row_checksum
from amqpd.storage.schema import NUMBER_BITS

ROWS_MAX: Final = 1000  # read at once
BYTES_MAX: Final = 4_194_304
ID_MIN: Final = -(2**63)
ID_MAX: Final = 2**63 - 1
QUEUE_ID_MAX: Final = ID_MAX >> NUMBER_BITS
LINES_MAX: Final = 256

_BODY: Final = "coalesce(body, (SELECT b.body FROM bodies b WHERE b.id = body_id))"
_COLUMNS: Final = (
    "CAST(exchange AS BLOB)", "CAST(routing_key AS BLOB)", "header", _BODY, "checksum",
    "size", "enqueued_ms", "delivery_count",
)  # fmt: skip
_SOME: Final = (
    f"SELECT id, {', '.join(_COLUMNS)} FROM stored WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?"
)
_NEXT: Final = "SELECT id FROM stored WHERE id BETWEEN ? AND ? ORDER BY id LIMIT 1"
_GONE: Final = "SELECT first, last, checksum FROM gone WHERE first <= ? AND last >= ?"
_CHECKED: Final = 6  # so many values, the id first, are the checksum and what it is of


class Row(NamedTuple):
    """A message as it stands in the file. What cannot be read or is no such thing is None."""

    id: int
    exchange: bytes | None
    routing_key: bytes | None
    header: bytes | None
    body: bytes | None
    checksum: bytes | None
    size: int | None
    enqueued_ms: int | None
    delivery_count: int | None
    is_intact: bool

    @property
    def is_nonsense(self) -> bool:
        """Whether nothing of a message is there, and the id is not to be believed either."""
        return self.header is None and self.body is None and self.checksum is None


class Gap(NamedTuple):
    """A place where nothing can be read.

    Attributes:
        after: id of the last message that was read before it, None if it was none.
        before: id of the first behind it, None if there is none.
    """

    after: int | None
    before: int | None


class Messages:
    """All messages of a file that are not gone, in the order of their ids.

    Iterating gives lists of them; nothing is being read while the caller has one.

    Args:
        queue_id: only of this queue.
    """

    def __init__(
        self, connection: sqlite3.Connection, file: Path, queue_id: int | None = None
    ) -> None:
        self._connection = connection
        self._execute = connection.execute
        self._file = file
        self._first, self._last = (ID_MIN, ID_MAX) if queue_id is None else queue_ids(queue_id)
        self._last_read: int | None = None

    def __iter__(self) -> Iterator[list[Row | Gap]]:
        position: int | None = self._first
        while position is not None and position <= self._last:
            with snapshot(self._connection):
                found, position = self._step(position)
            if found:
                yield found

    def _step(self, position: int) -> tuple[list[Row | Gap], int | None]:
        """What comes next from an id on, and the id to go on with; None at the end."""
        behind_gone = max((last for _, last in self._gone(position, position)), default=None)
        if behind_gone is not None:
            return [], behind_gone + 1
        rows, is_end, is_broken = self._some(position)
        if is_broken and not rows:
            return self._step_over(position)
        if not rows:
            return [], None
        if not is_end:
            rows = _up_to_the_last_intact(rows)
        going_on = None if is_end else max(position, rows[-1].id) + 1
        gone = self._gone(min(row.id for row in rows), max(row.id for row in rows))
        kept = [row for row in rows if not _is_within(gone, row.id)]
        return self._without_nonsense(kept), going_on

    def _without_nonsense(self, rows: list[Row]) -> list[Row | Gap]:
        """Gaps in the place of rows that hold nothing of a message."""
        found: list[Row | Gap] = []
        for row in rows:
            if not row.is_nonsense:
                if found and isinstance(found[-1], Gap):
                    found[-1] = Gap(found[-1].after, row.id)
                self._last_read = row.id
                found.append(row)
            elif not found or isinstance(found[-1], Row):
                found.append(Gap(self._last_read, None))
        return found

    def _some(self, position: int) -> tuple[list[Row], bool, bool]:
        """Messages from an id on; whether they are the last, and whether what follows is broken."""
        rows: list[Row] = []
        size = 0
        try:
            cursor = self._execute(_SOME, (position, self._last, ROWS_MAX))
            for values in cursor:
                row = _row(values)
                if not rows and row.id < position:
                    return [], False, True
                rows.append(row)
                size += len(row.body or b"")
                if size > BYTES_MAX:
                    cursor.close()
                    return rows, False, False
        except UNREADABLE as error:
            insist_on_damage(error, self._file)
            return rows, False, True
        return rows, len(rows) < ROWS_MAX, False

    def _gone(self, first: int, last: int) -> list[tuple[int, int]]:
        """Ranges of what is gone that have to do with a range of ids; those that are as written."""
        try:
            found = self._execute(_GONE, (last, first)).fetchall()
        except UNREADABLE as error:
            insist_on_damage(error, self._file)
            return []
        return [each[:2] for each in found if row_checksum(each[:2]) == each[2]]

    # --- where something is broken ----------------------------------------------------------------

    def _step_over(self, position: int) -> tuple[list[Row | Gap], int | None]:
        """Reads one message column by column, or goes on behind what cannot be read at all."""
        found = self._next(position)
        if found is not None:
            if not found:
                return [], None
            return self._without_nonsense([self._singly(found[0])]), found[0] + 1
        after, behind = self._last_read, self._end_of_gap(position)
        first = self._next(behind) if behind is not None else []
        return [Gap(after, first[0] if first else None)], behind

    def _next(self, position: int) -> list[int] | None:
        """The first id from an id on, or none, in a list; None if SQLite does not find its way."""
        try:
            found = self._execute(_NEXT, (position, self._last)).fetchall()
        except UNREADABLE as error:
            insist_on_damage(error, self._file)
            return None
        ids = [each for (each,) in found]
        return None if ids and ids[0] < position else ids

    def _end_of_gap(self, position: int) -> int | None:
        """The smallest id behind one that cannot be reached, from which on all is well again.

        The steps grow with the gap, but slowly: two bad pages do not hide a good one between them.
        """
        low, step = position, 1
        while True:
            high = min(low + step, self._last)
            if self._next(high) is not None:
                break
            if high == self._last:
                return None
            low, step = high, (high - position) // 8 + 1
        while high - low > 1:
            middle = (low + high) // 2
            if self._next(middle) is None:
                low = middle
            else:
                high = middle
        return high

    def _singly(self, message_id: int) -> Row:
        return _row([message_id, *(self._column(message_id, each) for each in _COLUMNS)])

    def _column(self, message_id: int, column: str) -> Any:
        # A body that is not shared needs no table of shared ones.
        for expression in ("body", column) if column == _BODY else (column,):
            query = f"SELECT {expression} FROM stored WHERE id = ?"
            try:
                found = self._execute(query, (message_id,)).fetchone()
            except UNREADABLE as error:
                insist_on_damage(error, self._file)
                continue
            if found and found[0] is not None:
                return found[0]
        return None


def _row(values: Sequence[Any]) -> Row:
    checked = values[:_CHECKED]
    whole = is_intact(checked)
    if not whole:
        checked = [checked[0], *map(_blob, checked[1:])]
    return Row._make((*checked, *map(_number, values[_CHECKED:]), whole))


def _blob(value: Any) -> bytes | None:
    return value if isinstance(value, bytes) else None


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _up_to_the_last_intact(rows: list[Row]) -> list[Row]:
    """Without damaged ones at the end: the id of such a one is not to be gone on with."""
    for place in range(len(rows), 0, -1):
        if rows[place - 1].is_intact:
            return rows[:place]
    return rows


def _is_within(ranges: list[tuple[int, int]], message_id: int) -> bool:
    return any(first <= message_id <= last for first, last in ranges)


class SetAside(NamedTuple):
    """A message that the broker found damaged, and what was left of it."""

    id: int
    exchange: bytes | None
    routing_key: bytes | None
    header: bytes | None
    body: bytes | None
    noticed_at: str


def set_aside(connection: sqlite3.Connection) -> Iterator[SetAside]:
    """The messages that the broker has set aside; nothing is being read while the caller has one.

    Raises:
        sqlite3.Error: they cannot all be read.
    """
    query = (
        "SELECT rowid, id, CAST(exchange AS BLOB), CAST(routing_key AS BLOB), header, body, "
        "strftime('%Y-%m-%dT%H:%M:%fZ', noticed_ms / 1000.0, 'unixepoch') "
        "FROM damaged WHERE rowid > ? ORDER BY rowid LIMIT 1"
    )
    last = ID_MIN
    while rows := connection.execute(query, (last,)).fetchall():
        rowid, message_id, exchange, key, header, body, noticed_at = rows[0]
        if rowid <= last:
            raise sqlite3.DatabaseError("rows out of order")
        last = rowid
        blobs = _blob(exchange), _blob(key), _blob(header), _blob(body)
        yield SetAside(_number(message_id) or 0, *blobs, as_text(noticed_at))


# --- the topology ---------------------------------------------------------------------------------


class TopologyRow(NamedTuple):
    """A row of the topology, of `standings` or of `gone`, without its checksum."""

    values: tuple[Any, ...]
    is_intact: bool


class TopologyTable(NamedTuple):
    """What can be read of one table.

    Attributes:
        error: why it is not all; empty if it is.
    """

    rows: list[TopologyRow]
    error: str


class TableShape(NamedTuple):
    """What a table of the topology looks like; beside these columns it has a checksum."""

    columns: tuple[str, ...]
    key: tuple[str, ...]
    truths: tuple[str, ...]  # truth values, which are numbers in the file


_BINDING: Final = ("vhost", "source", "destination_kind", "destination", "binding_key", "arguments")
TABLES: Final = {
    "vhosts": TableShape(("name",), ("name",), ()),
    "exchanges": TableShape(
        ("vhost", "name", "type", "auto_delete", "internal", "arguments"),
        ("vhost", "name"),
        ("auto_delete", "internal"),
    ),
    "queues": TableShape(
        ("id", "vhost", "name", "auto_delete", "arguments", "lines"), ("id",), ("auto_delete",)
    ),
    "bindings": TableShape(_BINDING, _BINDING, ()),
    "standings": TableShape(
        ("queue_id", "next_number", "handed_out_below", "messages", "bytes"), ("queue_id",), ()
    ),
    "segments": TableShape(
        ("queue_id", "first", "below", "bytes", "last_ms"), ("queue_id", "first"), ()
    ),
    "places": TableShape(
        ("queue_id", "consumer_tag", "next_offset"), ("queue_id", "consumer_tag"), ()
    ),
    "keys": TableShape(("queue_id", "key", "number", "until_ms"), ("queue_id", "key"), ()),
    "gone": TableShape(("first", "last"), ("first",), ()),
}


def read_topology(connection: sqlite3.Connection, file: Path) -> dict[str, TopologyTable]:
    """All that can be read of the topology, of one moment, by table."""
    with snapshot(connection):
        return {name: _table(connection, file, name) for name in TABLES}


def _table(connection: sqlite3.Connection, file: Path, name: str) -> TopologyTable:
    """A table from its begin to its end; from both sides, if something in it is malformed."""
    shape = TABLES[name]
    query = f"SELECT {', '.join(shape.columns)}, checksum FROM {name} ORDER BY "
    found: dict[tuple[Any, ...], None] = {}
    message = ""
    for direction in ("", " DESC"):
        order = ", ".join(f"{column}{direction}" for column in shape.key)
        try:
            for row in connection.execute(query + order):
                found[row] = None
        except UNREADABLE as error:
            insist_on_damage(error, file)
            message = str(error)
        else:
            break
    return TopologyTable([_topology_row(row, shape) for row in found], message)


def _topology_row(row: tuple[Any, ...], shape: TableShape) -> TopologyRow:
    values = tuple(
        bool(value) if column in shape.truths and isinstance(value, int) else value
        for column, value in zip(shape.columns, row[:-1], strict=True)
    )
    return TopologyRow(values, row_checksum(values) == row[-1])


QueueNames = dict[int, tuple[str, str]]


def queue_names(connection: sqlite3.Connection, file: Path, queues: TopologyTable) -> QueueNames:
    """Vhost and name of each queue by the numbers of its lines, from wherever they can be read."""
    found: QueueNames = {}
    try:
        # The index that keeps names unique has all three, on pages of its own.
        rows = connection.execute("SELECT id, vhost, name, 1 FROM queues").fetchall()
    except UNREADABLE as error:
        insist_on_damage(error, file)
        rows = []
    whole = [(*row.values[:3], row.values[5]) for row in queues.rows]
    for queue_id, vhost, name, lines in [*rows, *whole]:
        if isinstance(queue_id, int) and 0 <= queue_id <= QUEUE_ID_MAX:
            last = queue_id + (lines if isinstance(lines, int) and 0 < lines <= LINES_MAX else 1)
            for each in range(queue_id, last):
                found[each] = as_text(vhost), as_text(name)
    return found


def learn_queue(
    connection: sqlite3.Connection, file: Path, names: QueueNames, queue_id: int
) -> None:
    """Adds the name of a queue that may have been declared since the others were read."""
    if queue_id in names:
        return
    try:
        query = "SELECT vhost, name FROM queues WHERE ? BETWEEN id AND id + lines - 1"
        found = connection.execute(query, (queue_id,)).fetchone()
    except UNREADABLE as error:
        insist_on_damage(error, file)
        return
    if found is not None:
        names[queue_id] = as_text(found[0]), as_text(found[1])


def as_text(value: Any) -> str:
    """A name, whatever stands where one should be."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

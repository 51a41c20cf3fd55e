"""Messages back from the file.

One row comes out of SQLite for each address and header, with the bodies of all their messages in
one piece: a step for each message would take and drop the interpreter's lock each time, and stall
the broker's loop.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import repeat
from operator import itemgetter
from pathlib import Path
from struct import iter_unpack
from typing import Any, Final
from zlib import crc32

from amqpd.broker.fetch import Details, Due, Fetch, Fetched
from amqpd.broker.message import WAS_DEAD, WAS_PUT_OFF, Envelope, Message
from amqpd.storage.database import damaged_file, told
from amqpd.storage.rows import CHECKSUM_BYTES, checksums, row_id, seed
from amqpd.storage.schema import NUMBER_BITS
from amqpd.wire import content

ENVELOPES_MAX: Final = 1024  # remembered
PASTS: Final = range((WAS_DEAD | WAS_PUT_OFF) + 1)
FIRST_LOOK: Final = 128  # messages whose sizes say how many more to look at

_NUMBER: Final = (1 << NUMBER_BITS) - 1
_BODY: Final = "coalesce(body, (SELECT b.body FROM main.bodies b WHERE b.id = body_id))"
_COLUMNS: Final = (
    f"id, exchange, routing_key, header, {_BODY} AS body, checksum, past, enqueued_ms, "
    "delivery_count"
)
_GROUPS: Final = (
    "SELECT group_concat(id), exchange, routing_key, header, group_concat(body, ''), "
    "group_concat(checksum, ''), past, group_concat(enqueued_ms), "
    "group_concat(delivery_count) "
    "FROM ({}) GROUP BY exchange, routing_key, header, past"
)

_DUE: Final = (
    f"SELECT id, exchange, routing_key, header, {_BODY} AS body, checksum, past, due_ms "
    "FROM {schema}.stored s WHERE due_ms IS NOT NULL AND id >> 43 = ?1 AND (due_ms, id) > (?2, ?3) "
    "AND NOT EXISTS (SELECT 1 FROM {schema}.gone g WHERE s.id BETWEEN g.first AND g.last) "
    "ORDER BY due_ms, id"
)
# Whether there is one among messages that is not like one of them.
_OTHER: Final = (
    " AND NOT (exchange = ?3 AND routing_key = ?4 AND header = ?5 AND past = ?6"
    " AND body IS NOT NULL) LIMIT 1"
)
_IS_THERE: Final = "NOT EXISTS (SELECT 1 FROM main.gone WHERE {}.id BETWEEN first AND last)"
_SUPERSEDED: Final = (
    "SELECT s.id, s.size FROM (SELECT DISTINCT key AS k FROM main.stored c "
    f"WHERE c.id BETWEEN ?1 AND ?2 AND key IS NOT NULL AND {_IS_THERE.format('c')}) "
    "JOIN main.stored s ON s.id >> 43 = ?3 AND s.key = k AND s.key IS NOT NULL WHERE s.id <= ("
    "SELECT t.id FROM main.stored t WHERE t.id >> 43 = ?3 AND t.key = k AND t.key IS NOT NULL "
    f"AND {_IS_THERE.format('t')} ORDER BY t.id DESC LIMIT 1 OFFSET ?4) "
    f"AND {_IS_THERE.format('s')} LIMIT ?5"
)
_BOTH: Final = " UNION ALL "  # of what is in the file and what is in the scratch file
_ANY_SPILLED: Final = "SELECT 1 FROM scratch.stored WHERE id BETWEEN ? AND ? LIMIT 1"

Found = tuple[int, Message, int, int]  # id, message, when it was stored, how often it came back

# When a message was stored of which the file does not say it: it must not expire because of that.
_UNKNOWN_MS: Final = 1 << 52


class Reader:
    """Answers fetches through a connection of its own, which is used by one thread at a time."""

    def __init__(self, connection: sqlite3.Connection, file: Path) -> None:
        # Bodies that were put together come as text, which may hold any bytes.
        connection.text_factory = bytes
        self._connection = connection
        self._execute = connection.execute
        self._file = file
        self._detailed = False  # whether the details matter of what is being read
        self._envelopes: dict[tuple[bytes, bytes, int], Envelope] = {}

    def fetch(self, fetch: Fetch) -> Fetched:
        """Reads messages back, as many as the fetch allows; what is damaged is left out.

        Raises:
            StorageError: the file cannot be read, or is damaged as a whole.
        """
        if fetch.after is not None:
            with told(self._file):
                return self._fetch_due(fetch, fetch.after)
        if fetch.newest:
            with told(self._file):
                return self._superseded(fetch)
        first, last = row_id(fetch.queue_id, fetch.first), row_id(fetch.queue_id, fetch.below) - 1
        with told(self._file):
            if fetch.since_ms:
                first = self._first_since(first, last, fetch.since_ms)
            where = self._where(first, last)
            alike = self._fetch_alike(fetch, where, first, last)
            if alike is not None:
                return alike
            end = self._end(fetch, where, first, last)
            self._detailed = fetch.detailed
            found, damaged = self._read(where, first, last if end is None else end)
        found.sort(key=itemgetter(0))
        line = fetch.first & ~_NUMBER
        numbers = [each[0] & _NUMBER | line for each in found]
        if len(set(numbers)) < len(numbers):
            raise damaged_file(self._file, "it has a message twice")
        details = None
        if self._detailed:
            details = Details([each[2] for each in found], [each[3] for each in found])
        return Fetched(
            numbers,
            [each[1] for each in found],
            [message_id & _NUMBER | line for message_id in sorted(damaged)],
            fetch.below if end is None else (end & _NUMBER | line) + 1,
            details,
        )

    def _fetch_due(self, fetch: Fetch, after: Due) -> Fetched:
        """Deferred messages in the order in which they are due."""
        line = fetch.queue_id << NUMBER_BITS
        # All of one line are either in the file or in the scratch file.
        spilled = self._execute(_ANY_SPILLED, (line, line | _NUMBER)).fetchone()
        query = _DUE.format(schema="scratch" if spilled else "main")
        found: list[tuple[int, Message, int]] = []
        damaged: list[int] = []
        size, is_all = 0, True
        for row in self._execute(query, (fetch.queue_id, after.ms, line | after.number)):
            if len(found) == fetch.messages_max or size > fetch.bytes_max:
                is_all = False
                break
            if not is_intact(row[:6]):
                damaged.append(row[0] & _NUMBER)
                continue
            envelope = self._envelope(row[1], row[2], row[6])
            message = (envelope, row[3], row[4], content.is_persistent(row[3]))
            found.append((row[0] & _NUMBER, message, row[7]))
            size += len(row[3]) + len(row[4])
        numbers = [number for number, _, _ in found]
        details = Details([], [], [due_ms for _, _, due_ms in found])
        messages = [message for _, message, _ in found]
        return Fetched(numbers, messages, damaged, fetch.below if is_all else 0, details)

    def _first_since(self, first: int, last: int, since_ms: int) -> int:
        """The first id of a message that was stored at a time or later; those of one queue are in
        the order in which they came."""
        query = (
            "SELECT id, enqueued_ms FROM main.stored WHERE id BETWEEN ? AND ? ORDER BY id LIMIT 1"
        )
        while first <= last:
            middle = (first + last) // 2
            found = self._execute(query, (middle, last)).fetchone()
            if found is None or found[1] >= since_ms:
                last = middle - 1
            else:
                first = found[0] + 1
        return first

    def _superseded(self, fetch: Fetch) -> Fetched:
        """The numbers of messages of which there are enough newer ones with the same key."""
        line = fetch.queue_id
        values = row_id(line, fetch.first), row_id(line, fetch.below) - 1, line
        limits = fetch.newest, fetch.messages_max
        found = self._execute(_SUPERSEDED, (*values, *limits)).fetchall()
        return Fetched(
            [number & _NUMBER for number, _ in found],
            [],
            [],
            fetch.below,
            size=sum([size for _, size in found]),
        )

    def _fetch_alike(self, fetch: Fetch, where: str, first: int, last: int) -> Fetched | None:
        """The same for messages that differ only in their bodies and follow each other without a
        gap; None if these are not of that kind. Most are, and cost half as much this way."""
        if _BOTH in where:
            return None
        query = where.replace("{}", "id, exchange, routing_key, header, past, size")
        head = self._execute(f"{query} ORDER BY id LIMIT 1", (first, last)).fetchone()
        if head is None or fetch.detailed or content.flags(head[3]) & content.EXPIRATION:
            return None
        start, size = head[0], head[5]
        if not isinstance(size, int):  # it is damaged
            return None
        end = min(start + min(fetch.messages_max, fetch.bytes_max // max(size, 1)) - 1, last)
        values = start, end, head[1].decode(), head[2].decode(), *head[3:5]
        if end <= start or self._execute(where.replace("{}", "1") + _OTHER, values).fetchone():
            return None
        query = where.replace("{}", "count(*), group_concat(body, ''), group_concat(checksum, '')")
        count, *pieces = self._execute(query, (start, end)).fetchone()
        if count != end - start + 1:
            return None
        ids = range(start, end + 1)
        bodies = _intact_bodies(ids, (b"", *head[1:4], *pieces))
        if not bodies:
            return None
        envelope, header = self._envelope(head[1], head[2], head[4]), head[3]
        alike = repeat(envelope), repeat(header), bodies, repeat(content.is_persistent(header))
        number = start & _NUMBER | fetch.first & ~_NUMBER
        return Fetched(
            [*range(number, number + count)],
            [*zip(*alike, strict=False)],
            [],
            fetch.below if end == last else number + count,
        )

    def _where(self, first: int, last: int) -> str:
        """The sources of the messages between two ids: a query with their columns to be put in."""
        kept = self._source("main", first, last)
        if self._execute(_ANY_SPILLED, (first, last)).fetchone() is None:
            return kept
        return f"{kept}{_BOTH}{self._source('scratch', first, last)}"

    def _source(self, schema: str, first: int, last: int) -> str:
        source = f"SELECT {{}} FROM {schema}.stored WHERE id BETWEEN ?1 AND ?2"
        gone = f"SELECT 1 FROM {schema}.gone WHERE first <= ? AND last >= ? LIMIT 1"
        if self._execute(gone, (last, first)).fetchone() is None:
            return source
        is_gone = f"SELECT 1 FROM {schema}.gone WHERE id BETWEEN first AND last"
        return f"{source} AND NOT EXISTS ({is_gone})"

    def _end(self, fetch: Fetch, where: str, first: int, last: int) -> int | None:
        """The last id that is within the limits of the fetch; None if all are."""
        query = (
            "SELECT max(id), count(*), CAST(total(size + length(header)) AS INTEGER) FROM ("
            f"{where.replace('{}', 'id, size, header')} ORDER BY id LIMIT ?3)"
        )
        limit, is_too_much = min(FIRST_LOOK, fetch.messages_max), False
        while True:
            end, count, size = self._execute(query, (first, last, limit)).fetchone()
            if count > 1 and size > fetch.bytes_max:
                limit, is_too_much = max(1, min(count - 1, count * fetch.bytes_max // size)), True
            elif count < limit:
                return None
            elif is_too_much or limit == fetch.messages_max:
                return int(end)
            else:
                fitting = count * fetch.bytes_max // max(size, 1)
                limit = min(max(fitting, 2 * limit), fetch.messages_max)

    def _read(self, where: str, first: int, last: int) -> tuple[list[Found], list[int]]:
        """Messages with their ids in any order, and the ids of those that are damaged."""
        found: list[Found] = []
        damaged: list[int] = []
        query = _GROUPS.format(where.replace("{}", _COLUMNS))
        for row in self._execute(query, (first, last)).fetchall():
            ids = [*map(int, row[0].split(b","))]
            if min(ids) < first or max(ids) > last:
                raise damaged_file(self._file, "a message is not in its place")
            bodies = _intact_bodies(ids, row[:6])
            if bodies:
                self._add(found, row, ids, bodies)
            else:
                self._read_singly(where, ids, found, damaged)
        return found, damaged

    def _add(
        self, found: list[Found], row: Sequence[Any], ids: list[int], bodies: list[bytes]
    ) -> None:
        """Messages of one address and header."""
        envelope, header = self._envelope(row[1], row[2], row[6]), row[3]
        persistent = content.is_persistent(header)
        messages: list[Message] = [(envelope, header, body, persistent) for body in bodies]
        moments: Iterable[int] = repeat(_UNKNOWN_MS)
        returned: Iterable[int] = repeat(0)
        if self._detailed or content.flags(header) & content.EXPIRATION:
            self._detailed = True
            moments = _integers(row[7], len(ids), _UNKNOWN_MS)
            returned = _integers(row[8], len(ids), 0)
        found += zip(ids, messages, moments, returned, strict=False)

    def _envelope(self, exchange: bytes, routing_key: bytes, past: int) -> Envelope:
        key = exchange, routing_key, past
        envelope = self._envelopes.get(key)
        if envelope is None:
            if len(self._envelopes) >= ENVELOPES_MAX:
                self._envelopes.clear()
            envelope = self._envelopes[key] = Envelope(
                exchange.decode(), routing_key.decode(), past=past if past in PASTS else 0
            )
        return envelope

    def _read_singly(
        self, where: str, ids: list[int], found: list[Found], damaged: list[int]
    ) -> None:
        """Reads messages of which at least one is damaged."""
        query = where.replace("{}", _COLUMNS)
        for message_id in ids:
            row = self._execute(query, (message_id, message_id)).fetchone()
            if row is not None and is_intact(row[:6]):
                details = [str(each).encode() for each in row[7:]]
                self._add(found, [*row[:7], *details], [message_id], [row[4]])
            else:
                damaged.append(message_id)


def _integers(joined: Any, count: int, otherwise: int) -> list[int]:
    """So many numbers from one piece; something else if they are not there."""
    try:
        found = [*map(int, joined.split(b","))]
    except (AttributeError, ValueError):
        found = []
    return found if len(found) == count else [otherwise] * count


def is_intact(row: Sequence[Any]) -> bool:
    """Whether a message is as it was written.

    Args:
        row: id, exchange, routing key, header, body, checksum, all but the id as bytes.
    """
    message_id, exchange, key, header, body, checksum = row
    if not all(isinstance(each, bytes) for each in row[1:]) or len(checksum) != CHECKSUM_BYTES:
        return False
    found = int.from_bytes(checksum, "little")
    return bool(found == crc32(body, seed(exchange, key, header)) ^ message_id)


def _intact_bodies(ids: Sequence[int], row: Sequence[Any]) -> list[bytes]:
    """The bodies of messages that share all else; none if one of them is not as it was written.

    Args:
        row: as of `is_intact`, with their bodies and their checksums in one piece each.
    """
    _, exchange, key, header, joined, checks = row
    if not all(isinstance(each, bytes) for each in row) or len(header) < content.PROPERTIES_OFFSET:
        return []
    bodies = _cut(joined, len(ids), content.body_size(header))
    return bodies if checks == checksums(ids, bodies, seed(exchange, key, header)) else []


def _cut(joined: bytes, count: int, size: int) -> list[bytes]:
    """The body pieces of so many messages, whose bodies have `size` bytes each."""
    stride = size + 5 if size else 0
    if len(joined) != stride * count:
        return []
    if not stride:
        return [b""] * count
    return [*map(itemgetter(0), iter_unpack(f"{stride}s", joined))]

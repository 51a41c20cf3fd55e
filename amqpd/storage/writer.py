"""Batches into the file, one transaction each.

All that is done for each message is done by SQLite, which runs without the interpreter's lock: a
run of messages is inserted by one statement that cuts their bodies out of one blob.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from amqpd.broker.duplicates import Known
from amqpd.broker.journal import Batch, Changes, Standing
from amqpd.broker.message import BODY, Envelope, Message
from amqpd.broker.operations import (
    Bound,
    ExchangeAdded,
    ExchangeRemoved,
    QueueAdded,
    QueueRemoved,
    Unbound,
    VhostAdded,
)
from amqpd.storage.database import told, transaction
from amqpd.storage.rows import (
    CHECKSUM_BYTES,
    RUN_MESSAGES_MAX,
    MessageRun,
    checksums,
    message_runs,
    plain_body,
    queue_ids,
    row_checksum,
    row_id,
    seed,
)
from amqpd.storage.small import SmallBatches, small_batch
from amqpd.wire import content

SHARED_BYTES_MIN: Final = 4096  # larger bodies that several queues have are stored once
RUN_MESSAGES_MIN: Final = 4  # shorter runs are inserted row by row
ROWS: Final = (64, 16, 4, 1)  # in one statement
ID_MAX: Final = (1 << 63) - 1

_COLUMNS: Final = (
    "id, exchange, routing_key, header, body, body_id, size, enqueued_ms, checksum, past, "
    "due_ms, key"
)
# What is cut out of an empty blob is NULL.
_RUN: Final = (
    ".stored (id, exchange, routing_key, header, body, size, enqueued_ms, checksum, past) "
    "SELECT ?1 + i, ?2, ?3, ?4, coalesce(substr(?5, i * ?6 + 1, ?6), x''), ?7, ?8, "
    f"substr(?9, i * {CHECKSUM_BYTES} + 1, {CHECKSUM_BYTES}), ?11 "
    "FROM temp.series WHERE i < ?10"
)
# What is spilled may be written a second time.
_INTO: Final = {"main": "INSERT INTO main", "scratch": "INSERT OR REPLACE INTO scratch"}
_LISTED: Final = "IN (SELECT value FROM json_each(?))"

Row = tuple[Any, ...]


class Writer:
    """Applies batches through a connection of its own.

    Args:
        sync: "full", "normal" or "off", as the setting `storage.sync`.

    Attributes:
        swept: False while ranges wait that are gone and not yet deleted.
    """

    def __init__(self, connection: sqlite3.Connection, file: Path, sync: str) -> None:
        self._connection = connection
        self._execute = connection.execute
        self._file = file
        self._sync = sync
        self._synced = ""
        self.swept = False  # what an earlier process left is not known
        with told(file):
            self._execute("CREATE TEMP TABLE series (i INTEGER PRIMARY KEY)")
            self._execute(
                "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
                "INSERT INTO series SELECT i FROM n",
                (RUN_MESSAGES_MAX,),
            )
            self._small = SmallBatches(self._execute)
            found = self._execute("SELECT max(id) FROM main.bodies").fetchone()
            self._last_body_id = found[0] or 0
        self._appliers: dict[type, Callable[[Any], None]] = {
            VhostAdded: self._insert("vhosts"),
            ExchangeAdded: self._insert("exchanges"),
            ExchangeRemoved: self._remove_exchange,
            QueueAdded: self._add_queue,
            QueueRemoved: self._remove_queue,
            Bound: self._insert("bindings"),
            Unbound: self._unbind,
        }

    def commit(self, batch: Batch) -> None:
        """Makes a batch durable.

        Raises:
            StoreFull: there is no room; nothing of it was written, and it can be tried again.
            StorageError: it cannot be said whether it was written. Nothing more may be promised.
        """
        if not batch.operations and not batch.changes:
            return
        small = small_batch(batch)
        if small is not None:
            self._synchronous(batch.promised)
            with told(self._file):
                self._small.commit(small)
            return
        self._commit_scratch(batch)
        with self.transaction(synced=batch.promised):
            for operation in batch.operations:
                self._appliers[type(operation)](operation)
            shared = self._store_shared(batch)
            for queue_id, changes in batch.changes.items():
                self._change(queue_id, changes, shared, batch.wall_ms)

    def _commit_scratch(self, batch: Batch) -> None:
        """What goes into the scratch file goes before the rest, and alone.

        A commit of two files is not one: where the second has no room, the first cannot be taken
        back. What is in the scratch file does not count until all is committed.
        """
        removed = [each for each in batch.operations if isinstance(each, QueueRemoved)]
        if removed and not self._has_spilled():
            removed = []
        changed = [
            (queue_id, changes)
            for queue_id, changes in batch.changes.items()
            if changes.spilled or changes.unspilled or changes.unspilled_below
        ]
        if not removed and not changed:
            return
        with transaction(self._connection, self._file):
            for each in removed:
                self._drop("scratch", *queue_ids(each.queue_id, each.lines))
            for queue_id, changes in changed:
                self._spill(queue_id, changes, batch.wall_ms)
                if changes.unspilled:
                    self._delete("scratch", queue_id, changes.unspilled)
                if changes.unspilled_below:
                    last = row_id(queue_id, changes.unspilled_below) - 1
                    self._drop("scratch", row_id(queue_id, 0), last)

    def _spill(self, queue_id: int, changes: Changes, wall_ms: int) -> None:
        messages = changes.spilled
        if not messages:
            return
        self._clear("scratch", row_id(queue_id, min(messages)), row_id(queue_id, max(messages)))
        if changes.due_ms:
            self._add_deferred("scratch", queue_id, messages, changes.due_ms, wall_ms)
        else:
            self._add("scratch", queue_id, messages, {}, wall_ms)

    def _has_spilled(self) -> bool:
        return self._execute("SELECT 1 FROM scratch.stored LIMIT 1").fetchone() is not None

    def transaction(self, *, synced: bool) -> AbstractContextManager[None]:
        """A transaction; without `synced` the disk need not have it when it ends."""
        self._synchronous(synced)
        return transaction(self._connection, self._file)

    def _synchronous(self, synced: bool) -> None:
        """Whether what is committed next is synced."""
        wanted = self._sync if synced else "off" if self._sync == "off" else "normal"
        if wanted != self._synced:
            with told(self._file):
                self._execute(f"PRAGMA main.synchronous = {wanted}")
            self._synced = wanted

    # --- topology ---------------------------------------------------------------------------------

    def _insert(self, table: str) -> Callable[[Any], None]:
        """Inserts operations that add something; their fields are the columns of a table."""

        def insert(operation: tuple[Any, ...]) -> None:
            marks = ", ".join("?" * (len(operation) + 1))
            self._execute(
                f"INSERT OR REPLACE INTO main.{table} VALUES ({marks})",
                (*operation, row_checksum(operation)),
            )

        return insert

    def _remove_exchange(self, removed: ExchangeRemoved) -> None:
        self._execute("DELETE FROM main.exchanges WHERE vhost = ? AND name = ?", removed)
        self._execute("DELETE FROM main.bindings WHERE vhost = ? AND source = ?", removed)

    def _add_queue(self, added: QueueAdded) -> None:
        self._clear("main", *queue_ids(added.queue_id, added.lines))
        self._insert("queues")(added)

    def _remove_queue(self, removed: QueueRemoved) -> None:
        first, lines = removed
        self._execute("DELETE FROM main.queues WHERE id = ?", (first,))
        for table in ("standings", "segments", "places", "keys"):
            self._execute(
                f"DELETE FROM main.{table} WHERE queue_id BETWEEN ? AND ?",
                (first, first + lines - 1),
            )
        self._drop("main", *queue_ids(first, lines))

    def _unbind(self, unbound: Unbound) -> None:
        self._execute(
            "DELETE FROM main.bindings WHERE vhost = ? AND source = ? AND destination_kind = ? "
            "AND destination = ? AND binding_key = ? AND arguments = ?",
            unbound,
        )

    # --- messages ---------------------------------------------------------------------------------

    def _change(
        self, queue_id: int, changes: Changes, shared: dict[int, int], wall_ms: int
    ) -> None:
        if changes.added:
            if changes.due_ms:
                self._add_deferred("main", queue_id, changes.added, changes.due_ms, wall_ms)
            elif changes.message_keys:
                self._add_keyed(queue_id, changes, wall_ms)
            else:
                self._add("main", queue_id, changes.added, shared, wall_ms)
        if changes.returned:
            first = next(iter(changes.returned))
            base = row_id(queue_id, first) - first
            times = [f'"{base + number}":{count}' for number, count in changes.returned.items()]
            self._execute(
                "UPDATE main.stored SET delivery_count = delivery_count + value FROM "
                "json_each(?) WHERE stored.id = CAST(json_each.key AS INTEGER)",
                (f"{{{','.join(times)}}}",),
            )
        if changes.damaged:
            self._set_aside(queue_id, changes.damaged, wall_ms)
        if changes.settled:
            self._delete("main", queue_id, changes.settled)
        for first, last in changes.dropped:
            self._drop("main", row_id(queue_id, first), row_id(queue_id, last))
        if changes.standing is not None:
            self._stand(queue_id, changes.standing)
        if changes.full or changes.places or changes.dropped:
            self._change_stream(queue_id, changes)
        if changes.keys:
            self._change_keys(queue_id, changes.keys)

    def _stand(self, queue_id: int, standing: Standing) -> None:
        values = (queue_id, *standing)
        self._execute(
            "INSERT OR REPLACE INTO main.standings VALUES (?, ?, ?, ?, ?, ?)",
            (*values, row_checksum(values)),
        )

    def _change_stream(self, queue_id: int, changes: Changes) -> None:
        for segment in changes.full:
            self._insert("segments")((queue_id, *segment))
        for first, last in changes.dropped:
            self._execute(
                "DELETE FROM main.segments WHERE queue_id = ? AND first BETWEEN ? AND ?",
                (queue_id, first, last),
            )
        for tag, place in changes.places.items():
            if place is not None:
                self._insert("places")((queue_id, tag, place))
            else:
                self._execute(
                    "DELETE FROM main.places WHERE queue_id = ? AND consumer_tag = ?",
                    (queue_id, tag),
                )

    def _change_keys(self, queue_id: int, keys: dict[str, Known | None]) -> None:
        gone = json.dumps([key for key, known in keys.items() if known is None])
        self._execute(
            f"DELETE FROM main.keys WHERE queue_id = ? AND key {_LISTED}", (queue_id, gone)
        )
        rows = [(queue_id, *known) for known in keys.values() if known is not None]
        told = json.dumps([[*row[1:], row_checksum(row)] for row in rows])
        self._execute(
            "INSERT OR REPLACE INTO main.keys SELECT ?, json_extract(value, '$[0]'), "
            "json_extract(value, '$[1]'), json_extract(value, '$[2]'), "
            "json_extract(value, '$[3]') FROM json_each(?)",
            (queue_id, told),
        )

    def _add(
        self,
        schema: str,
        queue_id: int,
        messages: dict[int, Message],
        shared: dict[int, int],
        wall_ms: int,
    ) -> None:
        rows: list[Row] = []
        for run in message_runs(messages):
            may_be_shared = shared and len(run.bodies[0]) > SHARED_BYTES_MIN
            if len(run.bodies) >= RUN_MESSAGES_MIN and not may_be_shared:
                self._insert_run(schema, queue_id, run, wall_ms)
                continue
            for number, body in enumerate(run.bodies, run.first):
                message_id = row_id(queue_id, number)
                rows.append(_row(message_id, run.envelope, run.header, body, shared, wall_ms))
        self._insert_rows(schema, rows)

    def _add_deferred(
        self,
        schema: str,
        queue_id: int,
        messages: dict[int, Message],
        due_ms: dict[int, int],
        wall_ms: int,
    ) -> None:
        self._insert_rows(
            schema,
            [
                _row(row_id(queue_id, number), *message[:3], {}, wall_ms, due_ms[number])
                for number, message in messages.items()
            ],
        )

    def _add_keyed(self, queue_id: int, changes: Changes, wall_ms: int) -> None:
        keys = changes.message_keys
        self._insert_rows(
            "main",
            [
                _row(row_id(queue_id, number), *message[:3], {}, wall_ms, key=keys.get(number))
                for number, message in changes.added.items()
            ],
        )

    def _insert_run(self, schema: str, queue_id: int, run: MessageRun, wall_ms: int) -> None:
        bodies = [
            plain_body(body) if isinstance(body, content.LargeBody) else body for body in run.bodies
        ]
        first = row_id(queue_id, run.first)
        exchange, key = run.envelope.exchange, run.envelope.routing_key
        start = seed(exchange.encode(), key.encode(), run.header)
        self._execute(
            f"{_INTO[schema]}{_RUN}",
            (
                first,
                exchange,
                key,
                run.header,
                b"".join(bodies),
                len(bodies[0]),
                content.body_size(run.header),
                wall_ms,
                checksums(range(first, first + len(bodies)), bodies, start),
                len(bodies),
                run.envelope.past,
            ),
        )

    def _insert_rows(self, schema: str, rows: list[Row]) -> None:
        place = 0
        for count in ROWS:
            marks = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"] * count)
            statement = f"{_INTO[schema]}.stored ({_COLUMNS}) VALUES {marks}"
            while len(rows) - place >= count:
                values = [value for row in rows[place : place + count] for value in row]
                self._execute(statement, values)
                place += count

    def _store_shared(self, batch: Batch) -> dict[int, int]:
        """Stores large bodies that come into several queues; their ids by their messages' ids."""
        if len(batch.changes) < 2:
            return {}
        seen: dict[int, int] = {}
        shared: dict[int, int] = {}
        for changes in batch.changes.values():
            for message in changes.added.values():
                body = message[BODY]
                if len(body) <= SHARED_BYTES_MIN:
                    continue
                key = id(body)
                seen[key] = seen.get(key, 0) + 1
                if seen[key] == 2:
                    self._last_body_id += 1
                    self._execute(
                        "INSERT INTO main.bodies VALUES (?, ?)",
                        (self._last_body_id, plain_body(body)),
                    )
                    shared[key] = self._last_body_id
        return shared

    def _delete(self, schema: str, queue_id: int, numbers: list[int]) -> None:
        numbers = sorted(numbers)
        if numbers[-1] - numbers[0] == len(numbers) - 1:
            self._execute(
                f"DELETE FROM {schema}.stored WHERE id BETWEEN ? AND ?",
                (row_id(queue_id, numbers[0]), row_id(queue_id, numbers[-1])),
            )
        else:
            self._execute(
                f"DELETE FROM {schema}.stored WHERE id {_LISTED}", (_listed(queue_id, numbers),)
            )

    def _set_aside(self, queue_id: int, numbers: list[int], wall_ms: int) -> None:
        listed = _listed(queue_id, numbers)
        self._execute(
            "INSERT INTO main.damaged SELECT s.id, exchange, routing_key, header, "
            "coalesce(s.body, (SELECT body FROM main.bodies b WHERE b.id = s.body_id)), ? "
            f"FROM main.stored s WHERE s.id {_LISTED}",
            (wall_ms, listed),
        )
        self._execute(f"DELETE FROM main.stored WHERE id {_LISTED}", (listed,))

    # --- what is gone as a whole ------------------------------------------------------------------

    def _drop(self, schema: str, first: int, last: int) -> None:
        """All messages of a range are gone; their rows are swept up later."""
        values = first, last
        self._execute(
            f"INSERT INTO {schema}.gone VALUES (?, ?, ?) ON CONFLICT (first) DO UPDATE "
            "SET last = excluded.last, checksum = excluded.checksum WHERE excluded.last > last",
            (*values, row_checksum(values)),
        )
        self.swept = False

    def sweep(self) -> None:
        """Deletes some of what is gone; `swept` says if that was the last."""
        with self.transaction(synced=False):
            found = self._sweep_some("main") or self._sweep_some("scratch")
        self.swept = not found

    def _clear(self, schema: str, first: int, last: int) -> None:
        """Makes a range of ids free: a queue may have had its number long ago, and what it had may
        not be swept up yet."""
        while not self.swept and self._sweep_some(schema, first, last):
            pass

    def _sweep_some(self, schema: str, first: int = 0, last: int = ID_MAX) -> bool:
        """Deletes some of what is gone within a range of ids; whether there was anything."""
        found = self._execute(
            f"SELECT first, last FROM {schema}.gone WHERE first <= ? AND last >= ? LIMIT 1",
            (last, first),
        ).fetchone()
        if found is None:
            return False
        deleted = self._execute(
            f"DELETE FROM {schema}.stored WHERE id IN (SELECT id FROM {schema}.stored "
            "WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?)",
            (*found, RUN_MESSAGES_MAX),
        ).rowcount
        if deleted < RUN_MESSAGES_MAX:
            self._execute(f"DELETE FROM {schema}.gone WHERE first = ?", found[:1])
        return True


def _listed(queue_id: int, numbers: list[int]) -> str:
    base = row_id(queue_id, numbers[0]) - numbers[0]
    return f"[{','.join([str(base + number) for number in numbers])}]"


def _row(
    message_id: int,
    envelope: Envelope,
    header: bytes,
    body: content.Body,
    shared: dict[int, int],
    wall_ms: int,
    due_ms: int | None = None,
    key: str | None = None,
) -> Row:
    body_id = shared.get(id(body)) if shared else None
    piece = plain_body(body)
    start = seed(envelope.exchange.encode(), envelope.routing_key.encode(), header)
    return (
        message_id,
        envelope.exchange,
        envelope.routing_key,
        header,
        None if body_id else piece,
        body_id,
        content.body_size(header),
        wall_ms,
        checksums((message_id,), (piece,), start),
        envelope.past,
        due_ms,
        key,
    )

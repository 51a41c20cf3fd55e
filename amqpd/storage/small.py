"""Small batches as one statement, which is also their transaction.

A batch of a few messages of one queue that somebody waits for costs five statements: begin, insert,
delete, standing, commit. Each takes and drops the interpreter's lock three times, and where the
broker's loop is busy that takes longer than the disk. A trigger on a view does all of it in one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from amqpd.broker.journal import Batch, Changes
from amqpd.storage.rows import (
    CHECKSUM_BYTES,
    checksums,
    message_runs,
    plain_body,
    row_checksum,
    row_id,
    seed,
)
from amqpd.wire import content

MESSAGES_MAX: Final = 256  # larger batches do not notice what statements cost

_VIEW: Final = """
CREATE TEMP VIEW small_batch AS SELECT 0 AS first, '' AS exchange, '' AS routing_key, x'' AS header,
    x'' AS bodies, 0 AS stride, 0 AS size, 0 AS enqueued_ms, x'' AS checksums, 0 AS count,
    0 AS past, 0 AS settled_first, 0 AS settled_last, 0 AS queue_id, 0 AS next_number,
    0 AS handed_out_below, 0 AS messages, 0 AS bytes, 0 AS checksum
"""
# Names in a trigger are never qualified; they are looked for in the file before the scratch file.
_TRIGGER: Final = f"""
CREATE TEMP TRIGGER small_batch_comes INSTEAD OF INSERT ON small_batch BEGIN
    INSERT INTO stored (
            id, exchange, routing_key, header, body, size, enqueued_ms, checksum, past
        ) SELECT NEW.first + i, NEW.exchange, NEW.routing_key, NEW.header,
            substr(NEW.bodies, i * NEW.stride + 1, NEW.stride), NEW.size, NEW.enqueued_ms,
            substr(NEW.checksums, i * {CHECKSUM_BYTES} + 1, {CHECKSUM_BYTES}), NEW.past
        FROM series WHERE i < NEW.count;
    DELETE FROM stored WHERE id BETWEEN NEW.settled_first AND NEW.settled_last;
    INSERT OR REPLACE INTO standings VALUES
        (NEW.queue_id, NEW.next_number, NEW.handed_out_below, NEW.messages, NEW.bytes,
            NEW.checksum);
END
"""
_INSERT: Final = f"INSERT INTO small_batch VALUES ({', '.join('?' * 19)})"

Values = tuple[Any, ...]
_NO_RUN: Final[Values] = (0, "", "", b"", b"", 0, 0, 0, b"", 0, 0)
_NONE_SETTLED: Final[Values] = (0, -1)


class SmallBatches:
    """Commits small batches; needs the writer's table `series`.

    Args:
        execute: of the writer's connection.
    """

    def __init__(self, execute: Callable[..., Any]) -> None:
        self._execute = execute
        execute(_VIEW)
        execute(_TRIGGER)

    def commit(self, values: Values) -> None:
        """Commits what `small_batch` has made of a batch."""
        self._execute(_INSERT, values)


def small_batch(batch: Batch) -> Values | None:
    """The values of the one statement for a batch; None if it is not of that kind."""
    if batch.operations or len(batch.changes) != 1:
        return None
    ((queue_id, changes),) = batch.changes.items()
    standing = changes.standing
    few = len(changes.added) <= MESSAGES_MAX and len(changes.settled) <= MESSAGES_MAX
    if standing is None or not few:
        return None
    if changes.spilled or changes.unspilled or changes.unspilled_below:
        return None
    if changes.returned or changes.damaged or changes.dropped:
        return None
    if changes.due_ms or changes.message_keys:
        return None
    if changes.full or changes.places or changes.keys:
        return None
    run, settled = _run(queue_id, changes, batch.wall_ms), _settled(queue_id, changes)
    if run is None or settled is None:
        return None
    row = (queue_id, *standing)
    return (*run, *settled, *row, row_checksum(row))


def _run(queue_id: int, changes: Changes, wall_ms: int) -> Values | None:
    """What came, which must be one run."""
    if not changes.added:
        return _NO_RUN
    run, *more = message_runs(changes.added)
    if more or not run.bodies[0]:  # SQLite cuts nothing out of nothing
        return None
    bodies = [plain_body(body) for body in run.bodies]
    first, count = row_id(queue_id, run.first), len(bodies)
    exchange, key = run.envelope.exchange, run.envelope.routing_key
    start = seed(exchange.encode(), key.encode(), run.header)
    checks = checksums(range(first, first + count), bodies, start)
    return (
        *(first, exchange, key, run.header, b"".join(bodies), len(bodies[0])),
        *(content.body_size(run.header), wall_ms, checks, count, run.envelope.past),
    )


def _settled(queue_id: int, changes: Changes) -> Values | None:
    """What was settled, which must be without a gap."""
    if not changes.settled:
        return _NONE_SETTLED
    first, last = min(changes.settled), max(changes.settled)
    if last - first != len(changes.settled) - 1:
        return None
    return row_id(queue_id, first), row_id(queue_id, last)

"""The tables of the file and their versions; `docs/DATA_FILE.md` is their description for users.

A new version is one more function in `migrations`, in order; those that have been released are
never changed. sqlite-utils applies them and keeps the list of those that were; it is imported only
when there is something to apply, since the broker starts in half the time without it.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Final

from amqpd.broker.queues.fifo import LINE_BITS

if TYPE_CHECKING:
    from sqlite_utils import Migrations

VERSION: Final = 1
APPLICATION_ID: Final = 0x616D7170  # "amqp": what `file` and SQLite tell the file by

# A message's id is its queue's and its number in it, so that a queue's messages lie together and in
# order.
NUMBER_BITS: Final = LINE_BITS

_TOPOLOGY: Final = """
CREATE TABLE vhosts (name TEXT PRIMARY KEY, checksum INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE exchanges (
    vhost TEXT NOT NULL, name TEXT NOT NULL, type TEXT NOT NULL, auto_delete INTEGER NOT NULL,
    internal INTEGER NOT NULL, arguments BLOB NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (vhost, name)
) WITHOUT ROWID;
CREATE TABLE queues (
    id INTEGER PRIMARY KEY, vhost TEXT NOT NULL, name TEXT NOT NULL, auto_delete INTEGER NOT NULL,
    arguments BLOB NOT NULL, lines INTEGER NOT NULL, checksum INTEGER NOT NULL,
    UNIQUE (vhost, name)
);
CREATE TABLE standings (
    queue_id INTEGER PRIMARY KEY, next_number INTEGER NOT NULL, handed_out_below INTEGER NOT NULL,
    messages INTEGER NOT NULL, bytes INTEGER NOT NULL, checksum INTEGER NOT NULL
);
CREATE TABLE segments (
    queue_id INTEGER NOT NULL, first INTEGER NOT NULL, below INTEGER NOT NULL,
    bytes INTEGER NOT NULL, last_ms INTEGER NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (queue_id, first)
) WITHOUT ROWID;
CREATE TABLE places (
    queue_id INTEGER NOT NULL, consumer_tag TEXT NOT NULL, next_offset INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (queue_id, consumer_tag)
) WITHOUT ROWID;
CREATE TABLE keys (
    queue_id INTEGER NOT NULL, key TEXT NOT NULL, number INTEGER NOT NULL,
    until_ms INTEGER NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (queue_id, key)
) WITHOUT ROWID;
CREATE TABLE bindings (
    vhost TEXT NOT NULL, source TEXT NOT NULL, destination_kind TEXT NOT NULL,
    destination TEXT NOT NULL, binding_key TEXT NOT NULL, arguments BLOB NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (vhost, source, destination_kind, destination, binding_key, arguments)
) WITHOUT ROWID;
CREATE TABLE state (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
"""

# The same in the file and in the scratch file.
MESSAGES: Final = """
CREATE TABLE stored (
    id INTEGER PRIMARY KEY, exchange TEXT NOT NULL, routing_key TEXT NOT NULL,
    header BLOB NOT NULL, body BLOB, body_id INTEGER, size INTEGER NOT NULL,
    enqueued_ms INTEGER NOT NULL, delivery_count INTEGER NOT NULL DEFAULT 0,
    past INTEGER NOT NULL DEFAULT 0, due_ms INTEGER, key TEXT, checksum BLOB NOT NULL
);
CREATE INDEX stored_by_key ON stored (id >> 43, key, id) WHERE key IS NOT NULL;
CREATE INDEX stored_by_due ON stored (id >> 43, due_ms, id) WHERE due_ms IS NOT NULL;
CREATE TABLE gone (
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, checksum INTEGER NOT NULL
);
"""

_BODIES: Final = """
CREATE TABLE bodies (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE INDEX stored_by_body ON stored (body_id) WHERE body_id IS NOT NULL;
CREATE TRIGGER shared_body_is_gone AFTER DELETE ON stored WHEN old.body_id IS NOT NULL BEGIN
    DELETE FROM bodies WHERE id = old.body_id
        AND NOT EXISTS (SELECT 1 FROM stored WHERE body_id = old.body_id);
END;
CREATE TABLE damaged (
    id INTEGER, exchange TEXT, routing_key TEXT, header BLOB, body BLOB, noticed_ms INTEGER
);
"""

_NUMBER: Final = f"s.id & {(1 << NUMBER_BITS) - 1}"
# The lines of a queue have the numbers behind its own.
_IS_OF_QUEUE: Final = (
    f"s.id BETWEEN q.id << {NUMBER_BITS} AND (q.id + q.lines << {NUMBER_BITS}) - 1"
)
_IS_GONE: Final = "EXISTS (SELECT 1 FROM gone g WHERE s.id BETWEEN g.first AND g.last)"
_ENQUEUED_AT: Final = "strftime('%Y-%m-%d %H:%M:%f', s.enqueued_ms / 1000.0, 'unixepoch')"

# The body is no TEXT: tools refuse a whole answer with one text in it that is not UTF-8. CROSS JOIN
# has SQLite go queue by queue, so that what is asked of one queue does not read the others.
_VIEWS: Final = f"""
CREATE VIEW messages AS
SELECT q.vhost AS vhost, q.name AS queue, {_NUMBER} AS number,
    s.exchange AS exchange, s.routing_key AS routing_key, s.size AS size,
    {_ENQUEUED_AT} AS enqueued_at,
    ({_NUMBER}) < coalesce(t.handed_out_below, 0) AS redelivered,
    s.delivery_count AS delivery_count,
    CASE WHEN s.size = 0 THEN x'' ELSE substr(coalesce(s.body, b.body), 5, s.size) END AS body,
    s.header AS header
FROM queues q
CROSS JOIN stored s ON {_IS_OF_QUEUE}
LEFT JOIN standings t ON t.queue_id = s.id >> {NUMBER_BITS}
LEFT JOIN bodies b ON b.id = s.body_id
WHERE NOT {_IS_GONE};
CREATE VIEW queue_lengths AS
SELECT q.vhost AS vhost, q.name AS queue, (
    SELECT coalesce(sum(t.messages), 0) FROM standings t
    WHERE t.queue_id BETWEEN q.id AND q.id + q.lines - 1
) AS messages, (
    SELECT {_ENQUEUED_AT} FROM stored s
    WHERE {_IS_OF_QUEUE} AND NOT {_IS_GONE} ORDER BY s.id LIMIT 1
) AS oldest_at
FROM queues q;
"""


def migrations() -> Migrations:
    """All versions of the schema, in order."""
    from sqlite_utils import Migrations

    found = Migrations("amqpd")

    @found()
    def version_1(database: Any) -> None:
        for script in (_TOPOLOGY, MESSAGES, _BODIES, _VIEWS):
            _run(database.conn, script)
        database.conn.execute("PRAGMA user_version = 1")

    return found


def migrate(connection: sqlite3.Connection) -> None:
    """Brings a file to the newest version."""
    from sqlite_utils import Database

    migrations().apply(Database(connection))


def _run(connection: sqlite3.Connection, script: str) -> None:
    """Statement by statement, since executescript would commit what is open."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""


def make_scratch(connection: sqlite3.Connection) -> None:
    """The tables of a new scratch file."""
    script = MESSAGES.replace("CREATE TABLE ", "CREATE TABLE scratch.")
    _run(connection, script.replace("CREATE INDEX ", "CREATE INDEX scratch."))


def empty_scratch(connection: sqlite3.Connection) -> None:
    """Forgets what a scratch file holds; writes nothing, which may need room, if it is nothing."""
    for table in ("stored", "gone"):
        if connection.execute(f"SELECT 1 FROM scratch.{table} LIMIT 1").fetchone():
            connection.execute(f"DELETE FROM scratch.{table}")

"""Whether a file is as its broker wrote it, and what is not; also while the broker runs.

Every row has a checksum, SQLite knows how its pages belong together, and the WAL is a chain: so
damage is found wherever it is. What is told is for a person.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from amqpd.storage.database import ADVICE, BUSY_S
from amqpd.storage.readonly import (
    UNREADABLE,
    connect_read_only,
    identify,
    insist_on_damage,
    snapshot,
)
from amqpd.storage.rows import queue_ids
from amqpd.storage.salvage import (
    ID_MIN,
    Gap,
    Messages,
    QueueNames,
    Row,
    TopologyTable,
    as_text,
    learn_queue,
    queue_names,
    read_topology,
    set_aside,
)
from amqpd.storage.schema import APPLICATION_ID, NUMBER_BITS, VERSION
from amqpd.storage.state import read_state
from amqpd.storage.told import Told, gap_words, message_words, queue_words, some
from amqpd.storage.wal import read_wal, shortness
from amqpd.storage.wal_chain import find_damage
from amqpd.wire import content

STRUCTURE_LINES_MAX: Final = 20
_NOT_GONE: Final = "NOT EXISTS (SELECT 1 FROM gone WHERE id BETWEEN first AND last)"


class Check:
    """One look at a file.

    Args:
        say: takes each sentence.
        patience_s: how long another process may hold a lock.

    Attributes:
        damaged: how many things are.
    """

    def __init__(self, file: Path, say: Callable[[str], None], patience_s: float = BUSY_S) -> None:
        self._file = file
        self._patience_s = patience_s
        self._say = say
        self._told = Told(lambda text: say(f"damaged: {text}"))
        self._topology: dict[str, TopologyTable] = {}
        self._names: QueueNames = {}
        self._lengths: dict[int, int | None] = {}  # None if they cannot be counted
        self._kept: Counter[int] = Counter()
        self._last_id = ID_MIN

    @property
    def damaged(self) -> int:
        return self._told.count

    def run(self) -> None:
        """Looks at everything.

        Raises:
            StorageError: it cannot be looked at: not allowed, or of a newer version.
        """
        connection = connect_read_only(self._file, self._patience_s)
        try:
            if not self._identify(connection):
                return
            self._check_structure(connection)
            self._check_wal(connection)
            self._check_topology(connection)
            self._check_messages(connection)
            self._check_counts(connection)
            self._check_bodies(connection)
            self._check_set_aside(connection)
        finally:
            connection.close()
        self._told.rest()
        self._summarize()

    def _fine(self, text: str) -> None:
        self._say(f"fine: {text}")

    def _unreadable(self, what: str, error: BaseException) -> None:
        insist_on_damage(error, self._file)
        self._told("other things", f"{what} cannot be read: {error}")

    # --- the file ---------------------------------------------------------------------------------

    def _identify(self, connection: sqlite3.Connection) -> bool:
        """Whether it is a file that can be looked into."""
        try:
            found = identify(connection, self._file)
        except UNREADABLE as error:
            self._unreadable("it", error)
            return False
        if not found.tables:
            self._told("other things", "there is nothing in it")
            return False
        if found.application != APPLICATION_ID:
            self._told(
                "other things",
                f"it is not marked as a file of amqpd (application id {found.application:#x}"
                f" instead of {APPLICATION_ID:#x})",
            )
        elif found.version < VERSION:
            self._told("other things", f"its schema is {found.version}, which has never been")
        else:
            self._fine(f"it is a file of amqpd (schema {found.version})")
        return True

    def _check_structure(self, connection: sqlite3.Connection) -> None:
        query = f"PRAGMA integrity_check({STRUCTURE_LINES_MAX})"
        lines: list[str] = []
        try:
            for (text,) in connection.execute(query):
                lines += as_text(text).splitlines()
        except UNREADABLE as error:
            insist_on_damage(error, self._file)
            lines.append(str(error))
        if lines == ["ok"]:
            self._fine("SQLite finds all pages and indexes in order")
            return
        for line in lines:
            if not line.startswith("***"):
                self._told("things in its structure", f"its structure: {line}")

    def _check_wal(self, connection: sqlite3.Connection) -> None:
        try:
            damage = find_damage(self._file) or self._cut(connection)
        except OSError as error:
            damage = f"the WAL cannot be read: {error.strerror or error}"
        if damage:
            self._told("other things", damage)
        else:
            self._fine("the WAL is whole")

    def _cut(self, connection: sqlite3.Connection) -> str:
        """Whether the WAL is shorter than it was; looked at anew if a broker starts or stops."""
        try:
            state = read_state(connection)
            while True:
                found = read_wal(self._file)
                before, state = state, read_state(connection)
                if state == before:
                    break
        except UNREADABLE as error:
            insist_on_damage(error, self._file)
            return f"table state cannot be read: {error}"
        short = "" if state.was_stopped else shortness(found, state.wal_bytes, self._file)
        if short and not found.size:
            self._say(f"unclear: {short}")  # a backup is like that, and whole
            return ""
        return short

    # --- the topology -----------------------------------------------------------------------------

    def _check_topology(self, connection: sqlite3.Connection) -> None:
        before = self.damaged
        self._topology = read_topology(connection, self._file)
        self._names = queue_names(connection, self._file, self._topology["queues"])
        for name, table in self._topology.items():
            if table.error:
                self._told("rows", f"table {name} cannot be read as a whole: {table.error}")
            for row in table.rows:
                if not row.is_intact:
                    self._told("rows", f"row {row.values!r} of table {name} is not as written")
        self._check_ends()
        if self.damaged == before:
            counts = {name: len(table.rows) for name, table in self._topology.items()}
            self._fine(
                f"{some(counts['vhosts'], 'virtual host')}, "
                f"{some(counts['exchanges'], 'exchange')}, {some(counts['queues'], 'queue')} and "
                f"{some(counts['bindings'], 'binding')} are as written"
            )

    def _check_ends(self) -> None:
        """That what a row names is there; only where all can be read."""
        if any(table.error for table in self._topology.values()):
            return
        rows = {name: [row.values for row in table.rows] for name, table in self._topology.items()}
        vhosts = {values[0] for values in rows["vhosts"]}
        exchanges = {values[:2] for values in rows["exchanges"]}
        queues = {values[1:3] for values in rows["queues"]}
        for kind, names in (("exchange", exchanges), ("queue", queues)):
            for vhost, name in names:
                if vhost not in vhosts:
                    self._told("rows", f"{kind} '{name}' is in vhost '{vhost}': there is no such")
        for vhost, source, kind, name, *_ in rows["bindings"]:
            words = f"from exchange '{source}' to {kind} '{name}' in vhost '{vhost}'"
            for what, end in (("exchange", source), (kind, name)):
                if what == "exchange" and as_text(end).startswith("amq."):
                    continue  # those are always there
                if (vhost, end) not in (queues if what == "queue" else exchanges):
                    self._told("rows", f"a binding leads {words}: there is no such {what}")

    # --- messages ---------------------------------------------------------------------------------

    def _check_messages(self, connection: sqlite3.Connection) -> None:
        before = self.damaged
        for rows in Messages(connection, self._file):
            self._learn_queues(connection, rows)
            for row in rows:
                if isinstance(row, Gap):
                    self._told("gaps", f"{gap_words(row, self._names)} nothing can be read")
                else:
                    self._check_message(row)
        if self.damaged == before:
            count = some(self._kept.total(), "message")
            self._fine(f"{count} are as written, each in a queue")

    def _check_message(self, row: Row) -> None:
        self._kept[row.id >> NUMBER_BITS] += 1
        if not row.is_intact:
            self._tell(row, "{} is not as written")
            return
        if row.id >> NUMBER_BITS not in self._names:
            self._tell(row, "there is {}")
        if row.size != content.body_size(row.header or b""):
            self._tell(row, "the size of {} is not as written")
        if row.id <= self._last_id:
            self._tell(row, "{} is out of its order, or there twice")
        self._last_id = row.id

    def _tell(self, row: Row, text: str) -> None:
        self._told("messages", text.format(message_words(row.id, self._names)))

    def _learn_queues(self, connection: sqlite3.Connection, rows: list[Row | Gap]) -> None:
        for queue_id in {row.id >> NUMBER_BITS for row in rows if isinstance(row, Row)}:
            learn_queue(connection, self._file, self._names, queue_id)

    def _check_counts(self, connection: sqlite3.Connection) -> None:
        """That each queue has as many messages as it says, each within one moment."""
        before = self.damaged
        for queue_id in sorted(self._names.keys() | self._kept.keys()):
            words = queue_words(queue_id, self._names)
            try:
                with snapshot(connection):
                    is_there, said, found = self._count(connection, queue_id)
            except UNREADABLE as error:
                insist_on_damage(error, self._file)
                self._lengths[queue_id] = None
                self._told("counts", f"the messages of {words} cannot be counted: {error}")
                continue
            if is_there:
                self._lengths[queue_id] = found
                if found != said:
                    self._told("counts", f"{words} has {some(found, 'message')} and says {said}")
        if self.damaged == before:
            self._fine("each queue has as many messages as it says")

    def _count(self, connection: sqlite3.Connection, queue_id: int) -> tuple[bool, int, int]:
        """Whether a queue is there, how many messages it says that it has, and how many it has."""
        is_there = connection.execute(
            "SELECT 1 FROM queues WHERE ? BETWEEN id AND id + lines - 1", (queue_id,)
        ).fetchone()
        said = connection.execute(
            "SELECT messages FROM standings WHERE queue_id = ?", (queue_id,)
        ).fetchone()
        first, last = queue_ids(queue_id)
        where = "WHERE id BETWEEN ?1 AND ?2"
        gone = connection.execute(
            "SELECT 1 FROM gone WHERE first <= ?2 AND last >= ?1 LIMIT 1", (first, last)
        ).fetchone()
        if gone:
            where += f" AND {_NOT_GONE}"
        (found,) = connection.execute(
            f"SELECT count(*) FROM stored {where}", (first, last)
        ).fetchone()
        return is_there is not None, said[0] if said else 0, found

    def _check_bodies(self, connection: sqlite3.Connection) -> None:
        orphan = "NOT EXISTS (SELECT 1 FROM stored s WHERE s.body_id = b.id)"
        try:
            with snapshot(connection):
                (bodies,) = connection.execute("SELECT count(*) FROM bodies").fetchone()
                (orphans,) = connection.execute(
                    f"SELECT count(*) FROM bodies b WHERE {orphan}"
                ).fetchone()
        except UNREADABLE as error:
            self._unreadable("table bodies", error)
            return
        if orphans:
            self._told("other things", f"{_bodies(orphans)} of no message")
        elif bodies:
            self._fine(f"{_bodies(bodies)}, none of them without a message")

    def _check_set_aside(self, connection: sqlite3.Connection) -> None:
        before = self.damaged
        try:
            for row in set_aside(connection):
                words = message_words(row.id, self._names)
                text = f"{words} was set aside by the broker at {row.noticed_at}"
                self._told("messages that were set aside", text)
        except UNREADABLE as error:
            self._unreadable("table damaged", error)
        if self.damaged == before:
            self._fine("the broker has not met a damaged message")

    # --- the end ----------------------------------------------------------------------------------

    def _summarize(self) -> None:
        empty = 0
        for queue_id, length in self._lengths.items():
            words = queue_words(queue_id, self._names)
            if length is None:
                self._say(f"{words}: {some(self._kept[queue_id], 'message')} can be read")
            elif length:
                self._say(f"{words}: {some(length, 'message')}")
            else:
                empty += 1
        if empty:
            self._say(f"{some(empty, 'queue')} without a message")
        if self.damaged:
            self._say(f"{some(self.damaged, 'thing')} damaged: {ADVICE}")
        else:
            self._say("all is fine")


def _bodies(count: int) -> str:
    return some(count, "shared body", "shared bodies")

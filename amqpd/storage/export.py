"""Everything that a file holds, or what can be got out of it, as lines of JSON.

The first line is the definitions, named as in those of RabbitMQ, which can import it; then comes a
line for each message, named as in RabbitMQ's HTTP API. What JSON cannot tell is beside it: see
`amqpd/wire/plain.py`.
"""

from __future__ import annotations

import sqlite3
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from amqpd.broker.topology.delaying import OF_EXCHANGE, OF_QUEUE
from amqpd.storage.errors import StorageError
from amqpd.storage.readonly import UNREADABLE, connect_read_only, identify, insist_on_damage
from amqpd.storage.salvage import (
    TABLES,
    Gap,
    Messages,
    QueueNames,
    Row,
    TopologyRow,
    TopologyTable,
    as_text,
    learn_queue,
    queue_names,
    read_topology,
    set_aside,
)
from amqpd.storage.schema import NUMBER_BITS
from amqpd.storage.told import Told, gap_words, message_words, some
from amqpd.wire.plain import plain_properties, plain_table

REMEMBERED: Final = 256  # headers and moments; messages that came together share them

_NUMBER: Final = (1 << NUMBER_BITS) - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
LINES: Final = (OF_EXCHANGE, OF_QUEUE)
_DEFINED: Final = ("vhosts", "exchanges", "queues", "bindings")
_RENAMED: Final = {"destination_kind": "destination_type", "binding_key": "routing_key"}


class Selection(NamedTuple):
    """What of a file is wanted.

    Attributes:
        vhost: only what is in this virtual host.
        queue: only messages of queues of this name.
        definitions_only: no messages.
        payloads: with the bodies of messages.
    """

    vhost: str | None = None
    queue: str | None = None
    definitions_only: bool = False
    payloads: bool = True


class Export:
    """One reading of a file.

    Args:
        say: takes a sentence for each thing that is damaged or left out.

    Attributes:
        messages: how many have been exported.
        damaged: things that were exported and are not as written.
        left_out: things that could not be exported, or not as a whole.
    """

    def __init__(self, file: Path, selection: Selection, say: Callable[[str], None]) -> None:
        self._file = file
        self._selection = selection
        self._say = say
        self._names: QueueNames = {}
        self._standings: dict[Any, tuple[Any, ...]] = {}
        self._read: Counter[int] = Counter()
        self._gaps = 0
        self.messages = 0
        self.damaged = Told(say)
        self.left_out = Told(say)

    def lines(self) -> Iterator[bytes]:
        """The lines, each with its end. Nothing is being read while the caller has one.

        Raises:
            StorageError: it cannot be read now or by this amqpd, or has nothing that is wanted.
        """
        connection = connect_read_only(self._file)
        try:
            try:
                identify(connection, self._file)
            except UNREADABLE as error:
                insist_on_damage(error, self._file)
                self.left_out("files", f"nothing of {self._file} can be read: {error}")
                return
            yield from self._lines(connection)
        finally:
            connection.close()

    def _lines(self, connection: sqlite3.Connection) -> Iterator[bytes]:
        topology = read_topology(connection, self._file)
        self._names = queue_names(connection, self._file, topology["queues"])
        self._standings = {row.values[0]: row.values for row in topology["standings"].rows}
        self._insist_on_selected(topology)
        yield _line(self._definitions(topology))
        if not self._selection.definitions_only:
            yield from self._messages(connection)
            yield from self._set_aside(connection)
        self.damaged.rest()
        self.left_out.rest()

    # --- what is wanted ---------------------------------------------------------------------------

    def _insist_on_selected(self, topology: dict[str, TopologyTable]) -> None:
        vhost, queue, _, _ = self._selection
        vhosts = {as_text(row.values[0]) for row in topology["vhosts"].rows}
        if vhost is not None and vhost not in vhosts | {name for name, _ in self._names.values()}:
            raise StorageError(f"{self._file} has no vhost '{vhost}'")
        if queue is not None and not any(map(self._is_selected, self._names)):
            where = f" in vhost '{vhost}'" if vhost is not None else ""
            raise StorageError(f"{self._file} has no queue '{queue}'{where}")

    @property
    def _is_everything(self) -> bool:
        return self._selection.vhost is None and self._selection.queue is None

    def _is_selected(self, queue_id: int) -> bool:
        """Whether a queue's messages are wanted; all of a queue without a name, or none."""
        vhost, queue = self._names.get(queue_id, (None, None))
        return self._is_everything or (
            self._selection.vhost in (None, vhost) and self._selection.queue in (None, queue)
        )

    # --- definitions ------------------------------------------------------------------------------

    def _definitions(self, topology: dict[str, TopologyTable]) -> dict[str, Any]:
        for name, table in topology.items():
            if table.error:
                self.left_out("tables", f"table {name} cannot be read as a whole: {table.error}")
        found: dict[str, Any] = {"type": "definitions"}
        for name in _DEFINED:
            defined = [
                self._definition(name, row)
                for row in topology[name].rows
                # What waits for an exchange or a queue is none that could be declared.
                if name != "queues" or not as_text(row.values[2]).startswith(LINES)
            ]
            key = "name" if name == "vhosts" else "vhost"
            vhost = self._selection.vhost
            found[name] = [each for each in defined if vhost in (None, each[key])]
        return found

    def _definition(self, table: str, row: TopologyRow) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for column, value in zip(TABLES[table].columns, row.values, strict=True):
            if column == "arguments":
                self._define_arguments(found, table, value)
            elif column not in ("id", "lines"):
                is_truth = column in TABLES[table].truths
                name = _RENAMED.get(column, column)
                found[name] = value is True if is_truth else as_text(value)
        if table in ("exchanges", "queues"):
            found["durable"] = True
        if not row.is_intact:
            self.damaged("rows", f"row {row.values!r} of table {table} is not as written")
            found["damaged"] = True
        return found

    def _define_arguments(self, found: dict[str, Any], table: str, value: Any) -> None:
        try:
            values, types = plain_table(value)
        except (ValueError, TypeError):
            self.left_out("arguments", f"arguments in table {table} cannot be read: {value!r}")
            values, types = {}, {}
        found["arguments"] = values
        if types:
            found["types"] = types

    # --- messages ---------------------------------------------------------------------------------

    def _messages(self, connection: sqlite3.Connection) -> Iterator[bytes]:
        if self._is_everything:
            yield from self._messages_of(Messages(connection, self._file), connection)
        else:
            for queue_id in sorted(filter(self._is_selected, self._names)):
                messages = Messages(connection, self._file, queue_id)
                yield from self._messages_of(messages, connection)
        if self._gaps:
            self._say(f"about {some(self._missing(), 'message')} cannot be read")

    def _messages_of(self, messages: Messages, connection: sqlite3.Connection) -> Iterator[bytes]:
        for rows in messages:
            for row in rows:
                if isinstance(row, Gap):
                    self._gaps += 1
                    words = gap_words(row, self._names)
                    self.left_out("gaps", f"{words} nothing can be read")
                    continue
                learn_queue(connection, self._file, self._names, row.id >> NUMBER_BITS)
                self._read[row.id >> NUMBER_BITS] += 1
                yield _line(self._message(row))

    def _missing(self) -> int:
        """How many messages the queues say that they have and were not read; about, while a broker
        works."""
        missing = 0
        for queue_id in filter(self._is_selected, self._names):
            said = self._standings.get(queue_id, (0, 0, 0, 0, 0))[3]
            if isinstance(said, int):
                missing += max(0, said - self._read[queue_id])
        return missing

    def _set_aside(self, connection: sqlite3.Connection) -> Iterator[bytes]:
        try:
            for each in set_aside(connection):
                learn_queue(connection, self._file, self._names, each.id >> NUMBER_BITS)
                if self._is_selected(each.id >> NUMBER_BITS):
                    row = Row(*each[:5], None, None, None, None, is_intact=False)
                    yield _line(self._message(row) | {"noticed_at": each.noticed_at})
        except UNREADABLE as error:
            insist_on_damage(error, self._file)
            self.left_out("tables", f"table damaged cannot be read as a whole: {error}")

    def _message(self, row: Row) -> dict[str, Any]:
        queue_id, number = row.id >> NUMBER_BITS, row.id & _NUMBER
        vhost, queue = self._names.get(queue_id, (None, None))
        found: dict[str, Any] = {"type": "message", "vhost": vhost, "queue": queue}
        if queue is None:
            found["queue_id"] = queue_id
        below = self._standings.get(queue_id, (0, 0, 0, 0, 0))[2]
        found |= {
            "number": number,
            "exchange": as_text(row.exchange or b""),
            "routing_key": as_text(row.routing_key or b""),
            "redelivered": isinstance(below, int) and number < below,
            "delivery_count": row.delivery_count,
            "enqueued_at": _moment(row.enqueued_ms),
            **_properties(row.header),
            **self._payload(row),
        }
        if not row.is_intact:
            self._tell_damaged(row)
            found["damaged"] = True
        self.messages += 1
        return found

    def _payload(self, row: Row) -> dict[str, Any]:
        if row.body is None:
            return {"payload_bytes": row.size, "payload": None, "payload_encoding": None}
        payload = row.body[4:-1]
        size = {"payload_bytes": len(payload)}
        if not self._selection.payloads:
            return size
        try:
            return size | {"payload": payload.decode(), "payload_encoding": "string"}
        except UnicodeDecodeError:
            encoded = b64encode(payload).decode()
            return size | {"payload": encoded, "payload_encoding": "base64"}

    def _tell_damaged(self, row: Row) -> None:
        words = message_words(row.id, self._names)
        parts = ("exchange", "routing_key", "header", "body")
        missing = [part for part in parts if getattr(row, part) is None]
        if missing:
            self.left_out("parts of messages", f"of {words} cannot be read: {', '.join(missing)}")
        else:
            self.damaged("messages", f"{words} is damaged")


@lru_cache(REMEMBERED)
def _properties(header: bytes | None) -> dict[str, Any]:
    """The properties; of a header that makes no sense, its bytes."""
    if header is None:
        return {"properties": None}
    try:
        properties, types = plain_properties(header)
    except ValueError:
        return {"properties": None, "header": b64encode(header).decode()}
    return {"properties": properties, "types": types} if types else {"properties": properties}


@lru_cache(REMEMBERED)
def _moment(milliseconds: int | None) -> str | None:
    """A moment as ISO 8601 has it; None if there is none like that."""
    if milliseconds is None:
        return None
    try:
        moment = _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _line(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"

"""Batches as a journal makes them, for queues that need not exist, and what a store has of them."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from amqpd.broker.fetch import Fetch
from amqpd.broker.journal import Batch, Changes, Standing
from amqpd.broker.message import BODY, ENVELOPE, HEADER, PERSISTENT, Envelope, Message
from amqpd.broker.operations import Operation, QueueAdded, VhostAdded
from amqpd.storage.sqlite import SqliteStore
from amqpd.storage.upkeep import Sizes
from amqpd.testing.harness import Store
from amqpd.wire.content import body_payload, body_piece
from amqpd.wire.methods import Basic, encode_header

SMALL = Sizes(wal_bytes_high=131_072, free_bytes_min=65_536)
FRAME_START = 3  # type and channel
NO_TABLE = b"\x00\x00\x00\x00"
EVERYTHING = 1 << 40
STORED_MS = 1_700_000_000_000  # and one more for each later ticket
EMPTY = Standing(1, 0, 0)
TO_Q = Envelope("", "q")

Plain = tuple[str, str, bytes, bytes, bool]


def opened(directory: Path, sync: str = "off", sizes: Sizes = SMALL) -> SqliteStore:
    """The store in a directory."""
    return SqliteStore(directory / "amqpd.db", sync, sizes)


def message(body: bytes = b"", envelope: Envelope = TO_Q, mode: int = 2, **properties: Any) -> Any:
    """A message as it comes out of a publish."""
    properties["delivery_mode"] = mode
    header = encode_header(0, len(body), Basic.Properties(**properties))[FRAME_START:]
    return envelope, header, body_piece([body], len(body)), mode == 2


def messages(count: int, first: int = 1, size: int = 10, **properties: Any) -> dict[int, Message]:
    """Messages that share their header object, as a run of publishes does, by number."""
    header = message(bytes(size), **properties)[HEADER]
    envelope, persistent = properties.get("envelope", TO_Q), properties.get("mode", 2) == 2
    return {
        number: (envelope, header, body_piece([b"%0*d" % (size, number)], size), persistent)
        for number in range(first, first + count)
    }


def changed(standing: Standing | None = EMPTY, **what: Any) -> Changes:
    """What has happened to a queue; without a standing it is not durable."""
    changes = Changes(None)  # type: ignore[arg-type]  # nobody but the journal asks for it
    changes.standing = standing
    for name, value in what.items():
        if name == "returned":
            value = dict(Counter(value))
        setattr(changes, name, value)
    return changes


def batch(
    *operations: Operation, promised: bool = True, ticket: int = 1, **queues: Changes
) -> Batch:
    """A batch with changes by the names q1, q2, … of their queues."""
    changes = {int(name[1:]): each for name, each in queues.items()}
    return Batch(ticket, STORED_MS + ticket - 1, list(operations), changes, promised)


def in_words(batch: Batch) -> str:
    """A batch with all that changes."""
    said = [f"{batch.ticket}: {batch.operations}"]
    for queue_id, changes in batch.changes.items():
        values = {name: getattr(changes, name) for name in Changes.__slots__ if name != "queue"}
        for name in ("added", "spilled"):
            values[name] = [*values[name]]
        said.append(f"  {queue_id}: { {name: each for name, each in values.items() if each} }")
    return "\n".join(said)


def queue_added(queue_id: int = 1, name: str | None = None) -> QueueAdded:
    """A durable queue `q<id>`."""
    return QueueAdded(queue_id, "/", name or f"q{queue_id}", False, NO_TABLE)


def filled(store: Store, count: int, queue_id: int = 1, **properties: Any) -> dict[int, Message]:
    """Declares a queue with so many messages; what was written."""
    written = messages(count, **properties)
    changes = {f"q{queue_id}": changed(Standing(count + 1, 0, count), added=written)}
    store.commit(batch(VhostAdded("/"), queue_added(queue_id), **changes))
    return written


def plain(message: Message) -> Plain:
    """A message in values that can be compared."""
    envelope: Any = message[ENVELOPE]
    body = bytes(body_payload(message[BODY]))
    return envelope.exchange, envelope.routing_key, message[HEADER], body, message[PERSISTENT]


def plainly(messages: dict[int, Message]) -> dict[int, Plain]:
    """Messages by number in values that can be compared."""
    return {number: plain(each) for number, each in messages.items()}


def read_all(
    store: Store, queue_id: int = 1, messages_max: int = 1000, bytes_max: int = 2_097_152
) -> dict[int, Plain]:
    """All messages of a queue, fetched as a broker does; none of them may be damaged."""
    found: dict[int, Plain] = {}
    for answer in answers(store, queue_id, messages_max, bytes_max):
        assert answer.damaged == []
        found.update(zip(answer.numbers, map(plain, answer.messages), strict=True))
    return found


def answers(
    store: Store, queue_id: int = 1, messages_max: int = 1000, bytes_max: int = 2_097_152
) -> Iterator[Any]:
    """The answers to fetches from the first message to the last."""
    first = 0
    while first < EVERYTHING:
        answer = store.fetch(Fetch(queue_id, first, EVERYTHING, messages_max, bytes_max))
        assert answer.read_below > first
        yield answer
        first = answer.read_below


def rows(store: SqliteStore, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """What SQL says of the file, through the connection that writes."""
    return store._writing.execute(query, values).fetchall()


def without(found: dict[int, Any], gone: Iterable[int]) -> dict[int, Any]:
    """The same without some numbers."""
    left_out = set(gone)
    return {number: each for number, each in found.items() if number not in left_out}

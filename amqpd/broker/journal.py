"""What must become durable, in order: the seam between the broker and its store.

The broker appends operations while it works; the server hands what has gathered to the store as one
batch and tells the core when its ticket is committed. A promise (a confirm, a declare-ok of
something durable) waits for the ticket of the batch that holds it.
"""

from typing import NamedTuple

from amqpd.broker.message import Message


class ExchangeAdded(NamedTuple):
    """A durable exchange was declared.

    Arguments here and below are encoded field tables, so that no type is lost.
    """

    vhost: str
    name: str
    type: str
    auto_delete: bool
    internal: bool
    arguments: bytes


class ExchangeRemoved(NamedTuple):
    """A durable exchange is gone, and the bindings that leave from it."""

    vhost: str
    name: str


class QueueAdded(NamedTuple):
    """A durable queue was declared."""

    queue_id: int
    vhost: str
    name: str
    auto_delete: bool
    arguments: bytes


class QueueRemoved(NamedTuple):
    """A durable queue is gone, and its messages."""

    queue_id: int


class Bound(NamedTuple):
    """A binding between durable ends was made."""

    vhost: str
    source: str
    destination_kind: str
    destination: str
    binding_key: str
    arguments: bytes


class Unbound(NamedTuple):
    """A binding between durable ends is gone."""

    vhost: str
    source: str
    destination_kind: str
    destination: str
    binding_key: str
    arguments: bytes


class Enqueued(NamedTuple):
    """Persistent messages of a durable queue; `numbers` and `messages` run side by side."""

    queue_id: int
    numbers: list[int]
    messages: list[Message]


class Settled(NamedTuple):
    """Messages that are gone: acknowledged, rejected, purged."""

    queue_id: int
    numbers: list[int]


Operation = (
    ExchangeAdded
    | ExchangeRemoved
    | QueueAdded
    | QueueRemoved
    | Bound
    | Unbound
    | Enqueued
    | Settled
)


class Batch(NamedTuple):
    """A hand-over: operations in the order in which they happened, and its number."""

    ticket: int
    operations: list[Operation]


class Journal:
    """Durable operations since the last hand-over.

    Bound: a batch is handed over at the end of every turn, and a turn is one read of one client.

    Attributes:
        ticket: of the open batch, the one that the next operation joins.
        committed: the last ticket that is durable.
    """

    def __init__(self) -> None:
        self.ticket = 1
        self.committed = 0
        self._operations: list[Operation] = []

    def append(self, operation: Operation) -> None:
        self._operations.append(operation)

    def last_ticket(self) -> int:
        """The ticket after which all that was appended so far is durable."""
        return self.ticket if self._operations else self.ticket - 1

    def hand_over(self) -> Batch | None:
        """The open batch, or None if nothing has happened."""
        if not self._operations:
            return None
        batch = Batch(self.ticket, self._operations)
        self.ticket += 1
        self._operations = []
        return batch

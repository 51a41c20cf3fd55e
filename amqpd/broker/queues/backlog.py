"""The seam between a queue and its ready messages: what each kind of queue keeps in its own way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from amqpd.broker.fetch import Fetch, Fetched
from amqpd.broker.message import Message
from amqpd.broker.queues.fifo import Fifo, Placed
from amqpd.broker.queues.stream import Stream
from amqpd.broker.queues.window import Run


class Backlog(Protocol):
    """The ready messages of one queue, in the order in which consumers get them.

    A message has a number, which no other message of the queue has while it is there. The backlog
    tells the journal what the store has to keep.
    """

    @property
    def lines(self) -> Sequence[Fifo | Stream]:
        """The lines in which messages stand or have stood, what goes first in the first of them."""

    @property
    def ready(self) -> int:
        """How many messages there are."""

    @property
    def ready_bytes(self) -> int:
        """The size of their bodies."""

    @property
    def at_hand(self) -> int:
        """How many of them are in memory and may be taken now."""

    @property
    def can_drop(self) -> bool:
        """Whether the message that goes first is in memory, so that it can be dropped."""

    @property
    def behind(self) -> int:
        """How many of them are in the store alone."""

    @property
    def is_coming(self) -> bool:
        """Whether some will be at hand without anybody's doing: they come from the store."""

    @property
    def window_bytes(self) -> int:
        """What is held in memory, about."""

    def put(self, messages: list[Message], size: int, *, tell: bool = False) -> Sequence[Placed]:
        """Appends messages, whose bodies have `size` bytes.

        The list is the backlog's from here on. Returns those that are in memory, if asked to tell.
        """

    def take(self, limit: int) -> Run:
        """Removes at least one and at most `limit` messages, to be handed out; some are at hand."""

    def drop(self, limit: int) -> Run:
        """Removes at least one and at most `limit` of the messages that go first, for good."""

    def overdue(self, deadlines: Mapping[int, float], now: float, limit: int) -> Run | None:
        """Removes at most `limit` messages that go first and whose deadlines have passed, or None.

        There may be more of them.
        """

    def first_deadline(self, deadlines: Mapping[int, float]) -> float | None:
        """The deadline of the message that goes first; None if it has none or is not in memory."""

    def give_back(self, deliveries: Sequence[tuple[int, Message]]) -> None:
        """Puts messages that were handed out back at their places."""

    def settle(self, numbers: Sequence[int], messages: Sequence[Message]) -> None:
        """Messages that were taken are gone for good."""

    def purge(self) -> tuple[int, list[Sequence[int]]]:
        """Removes all ready messages; how many, and their numbers."""

    def fetched(self, fetch: Fetch, answer: Fetched) -> tuple[Placed, int] | None:
        """The answer to a fetch: what came into memory, and how many messages are lost.

        None if it is not wanted any more.
        """

    def stopped(self) -> None:
        """The broker stops and nothing is unacknowledged."""

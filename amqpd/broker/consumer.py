"""A consumer: who takes from a queue, and how much more it may be given."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from amqpd.broker.message import Message
    from amqpd.broker.queues.cursor import Cursor
    from amqpd.broker.queues.pace import Pace
    from amqpd.broker.queues.queue import Queue

# The most that a consumer without a prefetch limit is given in one go. With the byte limit of a run
# it bounds how far one dispatch can fill a session's output.
RUN_MESSAGES_MAX = 2048


class Receiver(Protocol):
    """The channel that a consumer belongs to, as far as a queue needs to know it."""

    @property
    def name(self) -> str:
        """What it is called where people look."""

    def room(self, consumer: Consumer) -> int:
        """How many more messages the consumer may be given now."""

    def takes_replies(self) -> bool:
        """Whether the client still reads, so that replies to its requests are of use."""

    def hold(self, ticket: int) -> None:
        """Nothing more may be said to the client before the ticket is committed."""

    def deliver(
        self,
        consumer: Consumer,
        numbers: Sequence[int],
        messages: Sequence[Message],
        redelivered: bool,
    ) -> None:
        """Hands messages to the client."""

    def terms_changed(self, consumer: Consumer) -> None:
        """The consumer's queue has other terms: its deliveries may have another time."""

    def cancelled(self, consumer: Consumer) -> None:
        """The queue is gone: tells the client, if it wants to know."""


class Consumer:
    """One basic.consume.

    Attributes:
        prefetch: most unacknowledged messages, 0 for no limit.
        unacked: messages given and not settled.
        counts: what it has unsettled counts against its channel's limit.
        shares_limit: its channel limits all its consumers together, so it takes one at a time.
        pace: how fast it is given messages; None for as fast as it takes them.
        cursor: where it reads, if its queue is a stream.
        ack_timeout_s: how long its deliveries may be unsettled.
        gives_back: what it has for longer goes back to the queue, and nothing else happens.
        waiting: it stands in its queue's turn for messages.
        prefixes: starts of its basic.deliver frames by the length of the envelope's suffix; at most
            one for each of the 512 lengths that two short strings can have.
    """

    __slots__ = (
        "ack_timeout_s",
        "arguments",
        "channel",
        "counts",
        "cursor",
        "exclusive",
        "gives_back",
        "no_ack",
        "pace",
        "prefetch",
        "prefixes",
        "priority",
        "queue",
        "shares_limit",
        "tag",
        "unacked",
        "waiting",
    )

    def __init__(
        self,
        tag: str,
        queue: Queue,
        channel: Receiver,
        *,
        no_ack: bool,
        exclusive: bool,
        prefetch: int,
        priority: int,
        arguments: dict[str, Any],
        ack_timeout_s: float = inf,
        gives_back: bool = False,
        cursor: Cursor | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.cursor = cursor
        self.pace = pace
        self.tag = tag
        self.queue = queue
        self.channel = channel
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.prefetch = 0 if no_ack else prefetch
        self.priority = priority
        self.arguments = arguments
        self.gives_back = gives_back
        self.ack_timeout_s = inf if no_ack else ack_timeout_s
        self.shares_limit = False
        self.counts = not no_ack
        self.unacked = 0
        self.waiting = False
        self.prefixes: dict[int, bytes] = {}

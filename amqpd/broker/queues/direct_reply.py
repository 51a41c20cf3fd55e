"""Direct reply-to: what a requester consumes from instead of a queue of its own.

A reply goes straight to the requester's channel: nothing is stored, and a reply for a requester
that has gone is dropped. To routing it looks like a queue, so that replies take the same way as all
publishes.

Source: RabbitMQ, "Direct reply-to".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amqpd.broker.queues.terms import NO_TERMS

if TYPE_CHECKING:
    from amqpd.broker.consumer import Consumer
    from amqpd.broker.message import Message

REPLY_QUEUE = "amq.rabbitmq.reply-to"
REPLY_PREFIX = REPLY_QUEUE + "."


class DirectReply:
    """The reply address of one channel. Offers the part of `Queue` that publishes need."""

    kind = "queue"
    durable = False
    exclusive_owner = None
    crowded = heavy = False
    terms = NO_TERMS

    def __init__(self, address: str) -> None:
        self.name = address
        self.consumer: Consumer | None = None
        self.inbox: list[Message] = []
        self.inbox_bytes = 0
        self.inbox_expires = False
        self.touched = False
        self.incoming: dict[Any, None] = {}

    def refuses(self, message: Message) -> bool:
        """It takes all."""
        return False

    def is_duplicate(self, message: Message) -> bool:
        """It takes all."""
        return False

    def absorb(self) -> None:
        """Hands the replies on to the requester; drops them if it has long stopped reading."""
        messages, self.inbox, self.inbox_bytes = self.inbox, [], 0
        if self.consumer is not None and messages and self.consumer.channel.takes_replies():
            self.consumer.channel.deliver(self.consumer, range(len(messages)), messages, False)

    def dispatch(self) -> None:
        """Nothing waits here."""

"""Direct reply-to: what a requester consumes from instead of a queue of its own.

A reply goes straight to the requester's channel: nothing is stored, and a reply for a requester
that has gone is dropped. To routing it looks like a queue, so that replies take the same way as all
publishes.

Source: RabbitMQ, "Direct reply-to".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqpd.broker.queues.inbox import Inbox

if TYPE_CHECKING:
    from amqpd.broker.consumer import Consumer

REPLY_QUEUE = "amq.rabbitmq.reply-to"
REPLY_PREFIX = REPLY_QUEUE + "."


class DirectReply(Inbox):
    """The reply address of one channel."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.name = address
        self.consumer: Consumer | None = None

    def absorb(self) -> None:
        """Hands the replies on to the requester; drops them if it has long stopped reading."""
        messages = self.emptied()
        if self.consumer is not None and messages and self.consumer.channel.takes_replies():
            self.consumer.channel.deliver(self.consumer, range(len(messages)), messages, False)

"""What messages go to that is no queue, and looks like one to routing and to publishes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amqpd.broker.queues.terms import NO_TERMS, Terms

if TYPE_CHECKING:
    from amqpd.broker.message import Message
    from amqpd.broker.permissions import Owner


class Inbox:
    """The part of `Queue` that publishes need; the attributes are those of `Queue`."""

    kind = "queue"
    name = ""
    durable = False
    exclusive_owner: Owner | None = None
    crowded = heavy = False
    terms: Terms = NO_TERMS

    def __init__(self) -> None:
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
        """Takes the inbox."""
        raise NotImplementedError

    def dispatch(self) -> None:
        """Nobody takes from it."""

    def emptied(self) -> list[Message]:
        """What was in the inbox."""
        messages, self.inbox, self.inbox_bytes = self.inbox, [], 0
        return messages

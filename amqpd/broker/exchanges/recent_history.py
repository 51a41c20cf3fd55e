"""Exchanges that give the last messages to whatever is newly bound: `x-recent-history`.

Messages go to all that is bound, as behind a fanout exchange. What they leave behind stands in a
history, to which the exchange routes as if it were one more queue; it is gone with the process.

Source: RabbitMQ's plugin rabbitmq_recent_history_exchange.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from amqpd import errors
from amqpd.broker.exchanges.binding import Destination
from amqpd.broker.exchanges.fanout import Fanout
from amqpd.broker.message import Message, bodies_size, body_bytes
from amqpd.broker.queues.inbox import Inbox
from amqpd.wire.arguments import Arguments
from amqpd.wire.erlang import binary
from amqpd.wire.tables import INTEGER_TYPES

RECENT_HISTORY: Final = "x-recent-history"
LENGTH: Final = "x-recent-history-length"
NO_STORE: Final = "x-recent-history-no-store"
LENGTH_DEFAULT: Final = 20
HISTORY_BYTES_MAX: Final = 16_777_216  # of bodies; of more, the oldest go, but for the last one


class History(Inbox):
    """The last messages of an exchange. To routing it looks like a queue, the last one.

    Attributes:
        messages: the oldest first.
    """

    kind = "history"

    def __init__(self, length: int) -> None:
        super().__init__()
        self.messages: deque[Message] = deque()
        self._length = length
        self._size = 0

    def absorb(self) -> None:
        """Takes the inbox; what is too old goes."""
        messages = self.emptied()
        self.messages.extend(messages)
        self._size += bodies_size(messages)
        while len(self.messages) > max(1, self._length) or (
            self._size > HISTORY_BYTES_MAX and len(self.messages) > 1
        ):
            self._size -= body_bytes(self.messages.popleft())


class RecentHistory(Fanout):
    """The router of `x-recent-history` exchanges.

    Attributes:
        history: what the next binding gets.
    """

    uses_headers = True

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        self.history = History(arguments.values.get(LENGTH, LENGTH_DEFAULT))

    def route(
        self, routing_keys: list[str], headers: Mapping[str, Any], header: bytes
    ) -> list[Destination]:
        found = super().route(routing_keys, headers, header)
        return found if headers.get(NO_STORE) is True else [*found, self.history]


def check_length(arguments: Arguments) -> None:
    """Refuses a length that cannot be; ChannelException 406."""
    value = arguments.values.get(LENGTH, LENGTH_DEFAULT)
    is_integer = arguments.types.get(LENGTH, b"I") in INTEGER_TYPES
    if not is_integer or value < 1:
        shown = value if is_integer else binary(str(value).encode())
        raise errors.precondition_failed(
            f"Invalid argument {shown}, '{LENGTH}' must be a positive integer"
        )

"""Exchanges that let a message with a key through once: `x-message-deduplication`.

What is let through goes to all that is bound, as behind a fanout exchange; a duplicate goes
nowhere.

Source: the plugin rabbitmq-message-deduplication, exchange level.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from amqpd import errors
from amqpd.broker.duplicates import SIZE, SIZE_MAX, TTL, Duplicates, headers_of, key_of
from amqpd.broker.exchanges.binding import Destination
from amqpd.broker.exchanges.fanout import Fanout
from amqpd.broker.message import Message
from amqpd.broker.queues.inbox import Inbox
from amqpd.broker.queues.terms import Terms
from amqpd.wire.arguments import Arguments
from amqpd.wire.tables import INTEGER_TYPES

DEDUPLICATION: Final = "x-message-deduplication"
PERSISTENCE: Final = "x-cache-persistence"
MEMORY: Final = "memory"


class Gate(Inbox):
    """What knows the keys of an exchange. To routing it looks like a queue, which takes nothing.

    A key is known when its message has gone to its queues, and not when they were looked up: it may
    be refused, or its transaction be rolled back.
    """

    kind = "gate"
    terms = Terms(deduplicates=True)

    def __init__(self, window: Duplicates) -> None:
        super().__init__()
        self._window = window

    def knows(self, message: Message) -> bool:
        """Whether a message with its key has gone through."""
        return self._window.knows(headers_of(message))

    def is_duplicate(self, message: Message) -> bool:
        """The key of the message is known from now on; the message is not for the gate itself."""
        self._window.is_known(headers_of(message))
        return True

    def absorb(self) -> None:
        """Nothing comes."""


class Deduplication(Fanout):
    """The router of `x-message-deduplication` exchanges.

    Attributes:
        window: the keys that are known; it is there before the first message comes.
        gate: that of the window.
    """

    uses_headers = True

    def __init__(self) -> None:
        super().__init__()
        self.window: Duplicates | None = None
        self.gate: Gate | None = None

    def open(self, window: Duplicates) -> None:
        """Messages can come."""
        self.window, self.gate = window, Gate(window)

    def route(
        self, routing_keys: list[str], headers: Mapping[str, Any], header: bytes
    ) -> list[Destination]:
        """All that is bound and the gate; for a duplicate the gate alone."""
        found: list[Destination] = super().route(routing_keys, headers, header)
        if self.window is None or self.gate is None or not found or key_of(headers) is None:
            return found
        return [self.gate] if self.window.knows(headers) else [*found, self.gate]


def check_window(arguments: Arguments) -> None:
    """Refuses a window that cannot be; ChannelException 406."""
    size = arguments.values.get(SIZE)
    if arguments.types.get(SIZE) not in INTEGER_TYPES or not 0 < _number(size) <= SIZE_MAX:
        raise errors.precondition_failed(
            f"Missing or invalid argument, '{SIZE}' must be an integer greater than 0"
            + (f" and at most {SIZE_MAX}" if _number(size) > SIZE_MAX else "")
        )
    ttl = arguments.values.get(TTL)
    if ttl is not None and (arguments.types[TTL] not in INTEGER_TYPES or _number(ttl) <= 0):
        raise errors.precondition_failed(
            f"Invalid argument, '{TTL}' must be an integer greater than 0"
        )
    if arguments.values.get(PERSISTENCE, MEMORY) not in (MEMORY, "disk"):
        raise errors.precondition_failed(
            f"Invalid argument, '{PERSISTENCE}' must be either 'memory' or 'disk'"
        )


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0

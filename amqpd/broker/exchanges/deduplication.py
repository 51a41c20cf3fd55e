"""Exchanges that let a message with a key through once: `x-message-deduplication`.

What is let through goes to all that is bound, as behind a fanout exchange; a duplicate goes
nowhere.

Source: the plugin rabbitmq-message-deduplication, exchange level.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from amqpd import errors
from amqpd.broker.duplicates import SIZE, SIZE_MAX, TTL, Duplicates
from amqpd.broker.exchanges.binding import Destination
from amqpd.broker.exchanges.fanout import Fanout
from amqpd.wire.arguments import Arguments
from amqpd.wire.tables import INTEGER_TYPES

DEDUPLICATION: Final = "x-message-deduplication"
PERSISTENCE: Final = "x-cache-persistence"
MEMORY: Final = "memory"


class Deduplication(Fanout):
    """The router of `x-message-deduplication` exchanges.

    Attributes:
        window: the keys that are known; it is there before the first message comes.
    """

    uses_headers = True

    def __init__(self) -> None:
        super().__init__()
        self.window: Duplicates | None = None

    def route(
        self, routing_keys: list[str], headers: Mapping[str, Any], header: bytes
    ) -> list[Destination]:
        if self.window is not None and self.window.is_known(headers):
            return []
        return super().route(routing_keys, headers, header)


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

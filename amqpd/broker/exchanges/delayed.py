"""Delayed message exchanges: a message with the header `x-delay` waits before it is routed.

Where it goes then is the business of another type, which `x-delayed-type` names. What waits stands
in a deferred line; the exchange routes a message that is to wait there, as if it were a queue.

Source: the plugin rabbitmq_delayed_message_exchange.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from amqpd import errors
from amqpd.broker.exchanges.binding import Binding, Destination
from amqpd.broker.message import HEADER, Message
from amqpd.wire import content, fields
from amqpd.wire.arguments import Arguments
from amqpd.wire.tables import INTEGER_TYPES

if TYPE_CHECKING:
    from amqpd.broker.exchanges.exchange import Router
    from amqpd.broker.queues.deferred import Deferred

DELAY: Final = "x-delay"
TYPE: Final = "x-delayed-type"
DELAYED_MESSAGE: Final = "x-delayed-message"
DELAY_MS_MAX: Final = 1 << 60


class Delayed:
    """The router of `x-delayed-message` exchanges.

    Args:
        router: of the type that says where messages go.

    Attributes:
        line: what waits; it is there before the first message comes.
    """

    uses_headers = True

    def __init__(self, router: Router) -> None:
        self.line: Deferred | None = None
        self.varies = router.varies
        self._router = router

    def check_binding(self, key: str, arguments: Arguments) -> None:
        """Raises ChannelException 406 for what the other type does not take."""
        self._router.check_binding(key, arguments)

    def bind(self, binding: Binding) -> None:
        self._router.bind(binding)

    def unbind(self, binding: Binding) -> None:
        self._router.unbind(binding)

    def route(
        self, routing_keys: list[str], headers: Mapping[str, Any], header: bytes
    ) -> list[Destination]:
        if self.line is not None and _milliseconds(headers.get(DELAY)) > 0:
            return [self.line]
        return self._router.route(routing_keys, headers, header)


def check_delayed_type(arguments: Arguments) -> str:
    """The type that says where messages go; raises ChannelException 406 if it cannot be one."""
    kind, value = arguments.types.get(TYPE), arguments.values.get(TYPE)
    if kind != b"S" or not isinstance(value, str):
        raise errors.precondition_failed(
            f"Invalid argument, '{TYPE}' must be an existing exchange type"
        )
    return value


def cannot_be(value: str) -> str:
    """What is said of a type that has something of its own beside its routing."""
    return f"Invalid argument, '{value}' can't be used for '{TYPE}'"


def delay_ms(message: Message) -> int:
    """How long a message wants to wait, in milliseconds."""
    return _milliseconds(content.headers(message[HEADER]).values.get(DELAY))


def _milliseconds(value: Any) -> int:
    """A delay as clients write it: a number, or the text of one; 0 for anything else."""
    if isinstance(value, bool):
        return 0
    try:
        number = int(float(value)) if isinstance(value, float) else int(value)
    except (TypeError, ValueError, OverflowError):
        return 0
    return min(number, DELAY_MS_MAX)


def released(header: bytes) -> bytes:
    """The header of a message that has waited: its delay is negative."""
    found = content.headers(header)
    value, kind = found.values.get(DELAY), found.types.get(DELAY, b"l")
    number = -_milliseconds(value)
    size = _SIZES.get(kind, 8) if kind in INTEGER_TYPES else 8
    if size == 8:
        kind = b"l"
    encoded = number.to_bytes(size, "big", signed=True)
    return content.with_header_entry(header, DELAY, fields.entry(DELAY, kind, encoded))


_SIZES: Final = {b"b": 1, b"s": 2, b"I": 4}  # of signed numbers; the others become long ones

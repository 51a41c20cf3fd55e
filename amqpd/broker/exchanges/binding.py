"""A binding: what leads from an exchange to a queue or to another exchange."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from amqpd.wire.arguments import Arguments

if TYPE_CHECKING:
    from amqpd.broker.exchanges.exchange import Exchange

Identity = tuple[str, str, str, bytes]


class Destination(Protocol):
    """What a binding leads to: a queue or an exchange.

    Attributes:
        kind: "queue" or "exchange".
        incoming: the bindings that lead here, in the order in which they came.
    """

    kind: str
    name: str
    durable: bool
    incoming: dict[Binding, None]


class Binding:
    """One binding of an exchange.

    Its identity within its source is the destination, the binding key and the arguments, as in
    RabbitMQ: the same key may be bound twice with other arguments, or other types of them.
    """

    __slots__ = ("arguments", "destination", "identity", "key", "source")

    def __init__(
        self, source: Exchange, destination: Destination, key: str, arguments: Arguments
    ) -> None:
        self.source = source
        self.destination = destination
        self.key = key
        self.arguments = arguments
        self.identity = identity(destination, key, arguments)

    @property
    def durable(self) -> bool:
        """Both ends are durable, so the binding is kept."""
        return self.source.durable and self.destination.durable


def identity(destination: Destination, key: str, arguments: Arguments) -> Identity:
    """What tells two bindings of one exchange apart."""
    return destination.kind, destination.name, key, arguments.encoded

"""Fanout exchanges: every binding matches."""

from collections.abc import Mapping
from typing import Any

from amqpd.broker.exchanges.binding import Binding, Destination
from amqpd.wire.arguments import Arguments


class Fanout:
    """The router of fanout exchanges."""

    uses_headers = False
    varies = False

    def __init__(self) -> None:
        self._bound: dict[Binding, None] = {}

    def check_binding(self, key: str, arguments: Arguments) -> None:
        """Takes any binding."""

    def bind(self, binding: Binding) -> None:
        self._bound[binding] = None

    def unbind(self, binding: Binding) -> None:
        del self._bound[binding]

    def route(
        self, routing_keys: list[str], headers: Mapping[str, Any], header: bytes
    ) -> list[Destination]:
        return [binding.destination for binding in self._bound]

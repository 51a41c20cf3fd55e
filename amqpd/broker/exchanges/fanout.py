"""Fanout exchanges: every binding matches."""

from typing import Any

from amqpd.broker.exchanges.binding import Binding, Destination


class Fanout:
    """The router of fanout exchanges."""

    uses_headers = False

    def __init__(self) -> None:
        self._bound: dict[Binding, None] = {}

    def bind(self, binding: Binding) -> None:
        self._bound[binding] = None

    def unbind(self, binding: Binding) -> None:
        del self._bound[binding]

    def route(self, routing_keys: list[str], headers: dict[str, Any]) -> list[Destination]:
        return [binding.destination for binding in self._bound]

"""Direct exchanges: the binding key is the routing key."""

from collections.abc import Mapping
from typing import Any

from amqpd.broker.exchanges.binding import Binding, Destination
from amqpd.wire.arguments import Arguments


class Direct:
    """The router of direct exchanges."""

    uses_headers = False
    varies = False

    def __init__(self) -> None:
        self._by_key: dict[str, dict[Binding, None]] = {}

    def check_binding(self, key: str, arguments: Arguments) -> None:
        """Takes any binding."""

    def bind(self, binding: Binding) -> None:
        self._by_key.setdefault(binding.key, {})[binding] = None

    def unbind(self, binding: Binding) -> None:
        bound = self._by_key[binding.key]
        del bound[binding]
        if not bound:
            del self._by_key[binding.key]

    def route(
        self, routing_keys: list[str], headers: Mapping[str, Any], header: bytes
    ) -> list[Destination]:
        return [
            binding.destination for key in routing_keys for binding in self._by_key.get(key, ())
        ]

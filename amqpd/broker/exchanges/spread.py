"""Exchanges that spread messages over what is bound to them: each goes to one destination.

By a hash: `x-consistent-hash`, where a binding key is a weight and keys move only to a destination
that is new or from one that goes, and `x-modulus-hash`. By chance: `x-random` and `x-local-random`.

Source: RabbitMQ's plugins consistent hash exchange, sharding, random exchange; "Local Random
Exchange".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from math import log
from typing import Any, Final, Protocol, TypeVar

from amqpd import errors
from amqpd.broker.exchanges.binding import Binding, Destination
from amqpd.broker.printed import printed
from amqpd.wire import content
from amqpd.wire.arguments import Arguments
from amqpd.wire.erlang import binary
from amqpd.wire.tables import TYPE_NAMES

Value = TypeVar("Value")

HASH_HEADER: Final = "hash-header"
HASH_PROPERTY: Final = "hash-property"
PROPERTIES: Final = {
    "correlation_id": content.CORRELATION_ID,
    "message_id": content.MESSAGE_ID,
    "timestamp": content.TIMESTAMP,
}


class Chance(Protocol):
    """A random source that is handed in."""

    def choice(self, values: Sequence[Value], /) -> Value:
        """One of the values."""


class Spread:
    """What these exchanges share: what is bound to them."""

    uses_headers = False
    varies = False

    def __init__(self) -> None:
        self._bindings: dict[Destination, dict[Binding, None]] = {}

    def check_binding(self, key: str, arguments: Arguments) -> None:
        """Takes any binding."""

    def bind(self, binding: Binding) -> None:
        self._bindings.setdefault(binding.destination, {})[binding] = None

    def unbind(self, binding: Binding) -> None:
        bound = self._bindings[binding.destination]
        del bound[binding]
        if not bound:
            del self._bindings[binding.destination]


class ConsistentHash(Spread):
    """The router of `x-consistent-hash` exchanges.

    A message goes to the destination with the highest score: a hash of the message's key and the
    destination's name, weighed with the key of its first binding. So the shares are those of the
    weights, and where a destination comes or goes only its own keys move.
    """

    def __init__(self, arguments: Arguments) -> None:
        super().__init__()
        self._header = arguments.values.get(HASH_HEADER)
        self._property = PROPERTIES.get(arguments.values.get(HASH_PROPERTY, ""))
        self.uses_headers = self._header is not None
        self.varies = self._property is not None

    def check_binding(self, key: str, arguments: Arguments) -> None:
        """Raises ChannelException 406 unless the key is a weight."""
        try:
            weight = int(key)
        except ValueError:
            raise errors.precondition_failed(
                f"The binding key must be an integer: {binary(key.encode())}"
            ) from None
        if weight < 1:
            raise errors.precondition_failed("The binding key must be greater than 0")

    def route(
        self, routing_keys: list[str], headers: Mapping[str, Any], header: bytes
    ) -> list[Destination]:
        if not self._bindings:
            return []
        key = self._key(routing_keys, headers, header)
        return [max(self._bindings, key=lambda each: self._score(each, key))]

    def _key(self, routing_keys: list[str], headers: Mapping[str, Any], header: bytes) -> bytes:
        if self._header is not None:
            return printed(headers.get(self._header, "")).encode()
        if self._property is not None:
            place = content.locate(header, self._property) if header else None
            return b"" if place is None else header[place[0] : place[1]]
        return routing_keys[0].encode()

    def _score(self, destination: Destination, key: bytes) -> float:
        first = next(iter(self._bindings[destination]))
        return int(first.key) / -log(_share(destination, key))


class ModulusHash(Spread):
    """The router of `x-modulus-hash` exchanges: a hash of the routing key counts them off."""

    def route(
        self, routing_keys: list[str], headers: Mapping[str, Any], header: bytes
    ) -> list[Destination]:
        found = sorted(self._bindings, key=lambda each: (each.kind, each.name))
        if not found:
            return []
        number = int.from_bytes(blake2b(routing_keys[0].encode(), digest_size=8).digest(), "big")
        return [found[number % len(found)]]


class ByChance(Spread):
    """The router of `x-random` and `x-local-random` exchanges: one binding out of all."""

    varies = True

    def __init__(self, random: Chance) -> None:
        super().__init__()
        self._random = random

    def route(
        self, routing_keys: list[str], headers: Mapping[str, Any], header: bytes
    ) -> list[Destination]:
        bound = [each for bindings in self._bindings.values() for each in bindings]
        return [self._random.choice(bound).destination] if bound else []


def check_hash_arguments(arguments: Arguments) -> None:
    """Refuses arguments that a consistent hash exchange cannot go by; ChannelException 406."""
    for name in (HASH_HEADER, HASH_PROPERTY):
        kind = arguments.types.get(name, b"S")
        if kind != b"S":
            raise errors.precondition_failed(
                f"Invalid value for {name}: expected longstr, got {TYPE_NAMES[kind]}"
            )
    by_property = arguments.values.get(HASH_PROPERTY)
    if by_property is not None and HASH_HEADER in arguments.values:
        raise errors.precondition_failed("hash-header and hash-property are mutually exclusive")
    if by_property is not None and by_property not in PROPERTIES:
        raise errors.precondition_failed(f"Unsupported property: {by_property}")


def _share(destination: Destination, key: bytes) -> float:
    """A number between 0 and 1 for a destination and a key."""
    name = f"{destination.kind}/{destination.name}/".encode()
    number = int.from_bytes(blake2b(name + key, digest_size=8).digest(), "big")
    return (number + 0.5) / (1 << 64)

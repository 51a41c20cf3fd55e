"""Headers exchanges: bindings match on the headers table of a message.

`x-match` is `all` (default), `any`, `all-with-x` or `any-with-x`; binding arguments whose name
begins with `x-` are looked at only in the `-with-x` modes; a void value matches any value.

Source: RabbitMQ, "Headers exchange".
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from amqpd import errors
from amqpd.broker.exchanges.binding import Binding, Destination
from amqpd.broker.printed import printed
from amqpd.wire.arguments import Arguments
from amqpd.wire.erlang import binary
from amqpd.wire.tables import TYPE_NAMES

MODES = ("all", "any", "all-with-x", "any-with-x")


class Headers:
    """The router of headers exchanges."""

    uses_headers = True
    varies = False

    def __init__(self) -> None:
        self._bound: dict[Binding, Pattern] = {}

    def check_binding(self, key: str, arguments: Arguments) -> None:
        """Raises ChannelException 406 for an `x-match` that does not exist."""
        check_match_argument(arguments)

    def bind(self, binding: Binding) -> None:
        self._bound[binding] = Pattern(binding.arguments.values)

    def unbind(self, binding: Binding) -> None:
        del self._bound[binding]

    def route(
        self, routing_keys: list[str], headers: Mapping[str, Any], header: bytes
    ) -> list[Destination]:
        plain = {name: _plain(value) for name, value in headers.items()}
        return [
            binding.destination for binding, pattern in self._bound.items() if pattern.takes(plain)
        ]


class Pattern:
    """What a binding wants of a message's headers.

    Args:
        arguments: the binding's.
    """

    __slots__ = ("_all", "_wanted")

    def __init__(self, arguments: dict[str, Any]) -> None:
        mode = arguments.get("x-match", "all")
        with_x = mode.endswith("-with-x")
        self._all = mode.startswith("all")
        self._wanted = [
            (name, _plain(value))
            for name, value in arguments.items()
            if name != "x-match" and (with_x or not name.startswith("x-"))
        ]

    def takes(self, headers: dict[str, Any]) -> bool:
        """Whether a message with these headers, made plain, goes through the binding."""
        found = (name in headers and _same(wanted, headers[name]) for name, wanted in self._wanted)
        return all(found) if self._all else any(found)


def check_match_argument(arguments: Arguments) -> None:
    """Refuses a binding whose `x-match` is not one of the four modes.

    Raises:
        ChannelException: 406.
    """
    if "x-match" not in arguments.values:
        return
    mode, kind = arguments.values["x-match"], arguments.types["x-match"]
    if kind != b"S":
        raise errors.precondition_failed(
            f"Invalid x-match field type {TYPE_NAMES[kind]} (value {printed(mode)}); expected "
            "longstr"
        )
    if mode not in MODES:
        raise errors.precondition_failed(
            f"Invalid x-match field value {binary(_plain(mode))}; expected all, any, all-with-x, "
            "or any-with-x"
        )


def _same(wanted: Any, value: Any) -> bool:
    """Equal in value and in kind; void wants only that the header is there."""
    return wanted is None or bool(type(wanted) is type(value) and wanted == value)


def _plain(value: Any) -> Any:
    """Strings and byte arrays are binaries to RabbitMQ, timestamps are integers."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, datetime):
        return int(value.timestamp())
    return value

"""The arguments of a method (its field table) with their values, their types and their bytes."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from amqpd.wire import tables
from amqpd.wire.methods import BY_INDEX, decode_table

SECONDS_MAX: Final = 253_402_300_799  # the end of the year 9999


class Arguments(NamedTuple):
    """A field table.

    Attributes:
        values: Python values by name.
        types: field type letters by name.
        encoded: the table as bytes, entries sorted by name; what tells two tables apart.
    """

    values: dict[str, Any]
    types: dict[str, bytes]
    encoded: bytes


def arguments_at(data: bytes, offset: int) -> Arguments:
    """The table at `offset`; raises ValueError if it is not well formed."""
    entries, _ = tables.entries(data, offset)
    if not entries:
        return NO_ARGUMENTS
    first = {entry.name: entry for entry in reversed(entries)}  # of a name given twice
    body = b"".join(data[first[name].start : first[name].end] for name in sorted(first))
    encoded = len(body).to_bytes(4, "big") + body
    types = {name: entry.type for name, entry in first.items()}
    values = {name: _text(value) for name, value in decode_table(encoded).items()}
    return Arguments(values, types, encoded)


def with_entry(arguments: Arguments, entry: bytes) -> Arguments:
    """The table with one entry more, as it stands in a table."""
    body = arguments.encoded[4:] + entry
    return arguments_at(len(body).to_bytes(4, "big") + body, 0)


def seconds_of(arguments: Arguments, name: str) -> int:
    """An entry that is a timestamp, in seconds since 1970; of those that no calendar has, the last.

    pamqp takes what is beyond 2106 for milliseconds.
    """
    entries, _ = tables.entries(arguments.encoded, 0)
    (found,) = [entry for entry in entries if entry.name == name]
    return min(int.from_bytes(arguments.encoded[found.value : found.end], "big"), SECONDS_MAX)


def _text(value: Any) -> Any:
    """A long string that is no UTF-8 as text all the same, so that strings are of one kind."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def method_arguments(payload: bytes) -> Arguments:
    """The table that ends the payload of a method frame.

    Only for methods whose last field is a table and whose payload was decoded before: the declares,
    binds and unbinds, and basic.consume.
    """
    method_class = BY_INDEX[int.from_bytes(payload[:4], "big")]
    offset, in_bits = 4, False
    for field in method_class.__slots__[:-1]:
        kind = method_class.amqp_type(field)
        if kind == "bit":
            offset += not in_bits
            in_bits = True
            continue
        in_bits = False
        offset += 1 + payload[offset] if kind == "shortstr" else 2
    return arguments_at(payload, offset)


NO_ARGUMENTS = Arguments({}, {}, b"\x00\x00\x00\x00")

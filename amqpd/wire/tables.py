"""Field tables as they stand in the buffer: where each entry is and of which type.

pamqp decodes tables into Python values but forgets the field types and does not notice when a
value runs over the end. RabbitMQ's texts name the types, a broken table must be refused, and CC/BCC
are taken out of a table without touching the rest, so this module walks the raw bytes.

Source: AMQP 0-9-1 section 4.2.5.5 and RabbitMQ's errata (the dialect of field types).
"""

from typing import NamedTuple

DEPTH_MAX = 64  # nested tables and arrays; clients use two or three

_FIXED_SIZES = {
    b"t": 1, b"b": 1, b"B": 1, b"s": 2, b"u": 2, b"I": 4, b"i": 4, b"l": 8, b"L": 8,
    b"f": 4, b"d": 8, b"D": 5, b"T": 8, b"V": 0,
}  # fmt: skip
# By the octet of the type; -1 for those that say their size themselves, and unknown ones.
_SIZES = [_FIXED_SIZES.get(bytes((octet,)), -1) for octet in range(256)]
_LONG_STRING = ord("S")

# RabbitMQ's names of the field types, as its reply texts print them.
TYPE_NAMES = {
    b"t": "bool", b"b": "byte", b"B": "unsignedbyte", b"s": "short", b"u": "unsignedshort",
    b"I": "signedint", b"i": "unsignedint", b"l": "long", b"L": "long", b"f": "float",
    b"d": "double", b"D": "decimal", b"T": "timestamp", b"V": "void", b"S": "longstr",
    b"A": "array", b"F": "table", b"x": "binary",
}  # fmt: skip

INTEGER_TYPES = frozenset((b"b", b"B", b"s", b"u", b"I", b"i", b"l", b"L"))


class Entry(NamedTuple):
    """One entry of a table. Offsets are into the buffer that holds the table.

    `start` is where the entry's name begins, `value` where its value (behind the type letter)
    begins, `end` the byte behind it.
    """

    name: str
    type: bytes
    start: int
    value: int
    end: int


def entries(data: bytes, offset: int) -> tuple[list[Entry], int]:
    """The entries of the table at `offset` (its four-byte length first), and the byte behind it.

    Raises:
        ValueError: the table is not well formed.
    """
    return _entries(data, offset, 0)


def _entries(data: bytes, offset: int, depth: int) -> tuple[list[Entry], int]:
    offset, end = _sized(data, offset, len(data))
    found = []
    while offset < end:
        start = offset
        value = start + 2 + data[start]
        if value > end:
            raise ValueError("a field name runs over the end of its table")
        name = data[start + 1 : value - 1].decode("utf-8")
        octet = data[value - 1]
        if octet == _LONG_STRING:
            offset = value + 4 + int.from_bytes(data[value : value + 4], "big")
        elif (size := _SIZES[octet]) >= 0:
            offset = value + size
        else:
            offset = _skip(data, data[value - 1 : value], value, end, depth)
        if offset > end:
            raise ValueError("a field value runs over the end of its table")
        found.append(Entry(name, data[value - 1 : value], start, value, offset))
    return found, end


def _skip(data: bytes, kind: bytes, offset: int, end: int, depth: int) -> int:
    """The byte behind the value of type `kind` at `offset`, which must not be behind `end`."""
    size = _FIXED_SIZES.get(kind)
    if size is not None:
        behind = offset + size
    elif kind in (b"S", b"x"):
        _, behind = _sized(data, offset, end)
    elif kind in (b"F", b"A"):
        if depth >= DEPTH_MAX:
            raise ValueError(f"tables and arrays are nested more than {DEPTH_MAX} deep")
        behind = _skip_nested(data, kind, offset, end, depth + 1)
    else:
        raise ValueError(f"unknown field type {kind!r}")
    if behind > end:
        raise ValueError("a field value runs over the end of its table")
    return behind


def _skip_nested(data: bytes, kind: bytes, offset: int, end: int, depth: int) -> int:
    if kind == b"F":
        return check(data, offset, end, depth)
    start, inner_end = _sized(data, offset, end)
    while start < inner_end:
        start = _skip(data, data[start : start + 1], start + 1, inner_end, depth)
    return inner_end


def items(data: bytes, offset: int) -> list[tuple[bytes, int, int]]:
    """Type, start and end of each value of the array at `offset` (its four-byte length first).

    Raises:
        ValueError: the array is not well formed.
    """
    start, end = _sized(data, offset, len(data))
    found = []
    while start < end:
        kind, value = data[start : start + 1], start + 1
        start = _skip(data, kind, value, end, 0)
        found.append((kind, value, start))
    return found


def _sized(data: bytes, offset: int, end: int) -> tuple[int, int]:
    """Start and end of what a four-byte length at `offset` announces."""
    start = offset + 4
    behind = start + int.from_bytes(data[offset:start], "big")
    if start > end or behind > end:
        raise ValueError("a length runs over the end")
    return start, behind


def check(data: bytes, offset: int, limit: int, depth: int = 0) -> int:
    """The byte behind the table at `offset`, which is well formed and ends before `limit`.

    `entries` without the entries, for every message with headers.

    Raises:
        ValueError: the table is not well formed.
    """
    start, end = _sized(data, offset, limit)
    while start < end:
        name = data[start + 1 : start + 1 + data[start]]
        if not name.isascii():
            name.decode()
        start += 2 + data[start]
        if start > end:
            raise ValueError("a field name runs over the end of its table")
        kind = data[start - 1]
        if kind == _LONG_STRING:
            start += 4 + int.from_bytes(data[start : start + 4], "big")
        elif (size := _SIZES[kind]) >= 0:
            start += size
        else:
            start = _skip(data, data[start - 1 : start], start, end, depth)
    if start != end:
        raise ValueError("a field runs over the end of its table")
    return end


def timestamps(data: bytes, offset: int) -> list[int]:
    """Where the type letters of all timestamps in the table at `offset` are, nested ones too.

    Raises:
        ValueError: the table is not well formed.
    """
    found: list[int] = []
    for entry in entries(data, offset)[0]:
        _find_timestamps(data, entry.value - 1, entry.end, found)
    return found


def _find_timestamps(data: bytes, letter: int, end: int, found: list[int]) -> None:
    """Looks into one value, whose type letter is at `letter` and which ends at `end`."""
    kind, value = data[letter : letter + 1], letter + 1
    if kind == b"T":
        found.append(letter)
    elif kind == b"F":
        found += timestamps(data, value)
    elif kind == b"A":
        item = value + 4
        while item < end:
            behind = _skip(data, data[item : item + 1], item + 1, end, 0)
            _find_timestamps(data, item, behind, found)
            item = behind

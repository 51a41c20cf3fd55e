"""Entries of field tables as bytes, for what the broker itself writes into the headers of messages.

Source: AMQP 0-9-1 section 4.2.5.5 and RabbitMQ's errata (the dialect of field types).
"""

from collections.abc import Iterable


def entry(name: str, kind: bytes, value: bytes) -> bytes:
    """One entry of a table: its name, the letter of its type, its value as it stands there."""
    encoded = name.encode()
    return bytes((len(encoded),)) + encoded + kind + value


def sized(data: bytes) -> bytes:
    """Data behind its size in four bytes: the value of a longstr, a table, an array or bytes."""
    return len(data).to_bytes(4, "big") + data


def text(name: str, value: str) -> bytes:
    """An entry with a longstr."""
    return entry(name, b"S", sized(value.encode()))


def boolean(name: str, value: bool) -> bytes:
    """An entry with a truth value."""
    return entry(name, b"t", bytes((value,)))


def table(name: str, entries: Iterable[bytes]) -> bytes:
    """An entry with a table of these entries."""
    return entry(name, b"F", sized(b"".join(entries)))


def long(name: str, value: int) -> bytes:
    """An entry with a signed number of 64 bits."""
    return entry(name, b"l", value.to_bytes(8, "big", signed=True))


def timestamp(name: str, seconds: int) -> bytes:
    """An entry with a time, in seconds since 1970."""
    return entry(name, b"T", seconds.to_bytes(8, "big"))


def texts(name: str, values: Iterable[str]) -> bytes:
    """An entry with an array of longstrs."""
    return entry(name, b"A", sized(b"".join([b"S" + sized(each.encode()) for each in values])))


def tables(name: str, values: Iterable[bytes]) -> bytes:
    """An entry with an array of tables, each of which begins with its size."""
    return entry(name, b"A", sized(b"".join([b"F" + each for each in values])))

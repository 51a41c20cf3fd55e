"""A message as a row: its id, its checksum, and runs of messages that differ only in their bodies.

The checksum of a row is 8 bytes, little-endian: the CRC-32 of exchange, routing key, header and
body, xor the row's id.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, repeat
from operator import itemgetter, xor
from typing import Any, Final, NamedTuple
from zlib import crc32

from amqpd.broker.message import BODY, ENVELOPE, HEADER, Envelope, Message
from amqpd.storage.schema import NUMBER_BITS
from amqpd.wire import content

CHECKSUM_BYTES: Final = 8
NUMBER_MAX: Final = (1 << NUMBER_BITS) - 1
RUN_MESSAGES_MAX: Final = 4096
RUN_BYTES_MAX: Final = 2_097_152

Piece = bytes | memoryview


def row_id(queue_id: int, number: int) -> int:
    """The id of a message. What its number says of its line, its queue id says already."""
    return queue_id << NUMBER_BITS | number & NUMBER_MAX


def queue_ids(queue_id: int, lines: int = 1) -> tuple[int, int]:
    """The first and the last id that messages of a queue, or of a line of it, can have."""
    return row_id(queue_id, 0), row_id(queue_id + lines, 0) - 1


def seed(exchange: bytes, routing_key: bytes, header: bytes) -> int:
    """What checksums of messages begin with that share all but their bodies."""
    return crc32(header, crc32(routing_key, crc32(b"\0", crc32(exchange))))


def checksums(ids: Sequence[int], bodies: Sequence[Piece], start: int) -> bytes:
    """The checksums of messages that share a seed, one behind the other."""
    found = array("Q", map(xor, map(crc32, bodies, repeat(start)), ids))
    if sys.byteorder == "big":
        found.byteswap()
    return found.tobytes()


def row_checksum(values: Iterable[Any]) -> int:
    """The checksum of a row of the topology: the CRC-32 of its values as Python's `ascii` prints
    them. `repr` would print new characters otherwise in the next Python."""
    return crc32(ascii(tuple(values)).encode())


def plain_body(body: content.Body) -> Piece:
    """The body piece as one piece of bytes."""
    if isinstance(body, content.LargeBody):
        size = (len(body) - 5).to_bytes(4, "big")
        return b"".join((size, *body.parts, b"\xce"))
    return body


class MessageRun(NamedTuple):
    """Messages with consecutive numbers that differ only in their bodies."""

    first: int
    envelope: Envelope
    header: bytes
    bodies: list[content.Body]


def message_runs(messages: dict[int, Message]) -> Iterator[MessageRun]:
    """The messages, which are in the order of their numbers, in as few runs as they make."""
    numbers = list(messages)
    place = 0
    for (envelope, header), group in groupby(messages.values(), itemgetter(ENVELOPE, HEADER)):
        bodies = [message[BODY] for message in group]
        step = min(RUN_MESSAGES_MAX, max(1, RUN_BYTES_MAX // (len(bodies[0]) or 1)))
        for start, end in _stretches(numbers, place, place + len(bodies), step):
            yield MessageRun(numbers[start], envelope, header, bodies[start - place : end - place])
        place += len(bodies)


def _stretches(numbers: list[int], start: int, end: int, step: int) -> Iterator[tuple[int, int]]:
    """Where in the list numbers follow each other without a gap, `step` at most."""
    while start < end:
        stop = min(start + step, end)
        if numbers[stop - 1] - numbers[start] != stop - 1 - start:
            stop = start + 1
            while numbers[stop] == numbers[stop - 1] + 1:
                stop += 1
        yield start, stop
        start = stop

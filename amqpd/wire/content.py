"""Questions to raw content, and content as frames again.

Inside the broker a message's content is two pieces of the frames it came in, without their type and
channel, so that it can leave on any channel:

    header   size(4) class(2) weight(2) body-size(8) flags(2) properties… end octet
    body     size(4) payload… end octet, as if all of it had come in one frame; empty without one

The body piece may be a view into what was read from the socket, and a large body is its payloads as
they came: passing those on is faster than putting them together.

Source: AMQP 0-9-1 sections 2.3.5 and 4.2.6.
"""

from collections.abc import Sequence
from functools import cache

from amqpd.wire import fields, tables
from amqpd.wire.arguments import NO_ARGUMENTS, Arguments, arguments_at
from amqpd.wire.constants import (
    CLASS_BASIC,
    FRAME_END,
    FRAME_END_BYTE,
    FRAME_OVERHEAD_BYTES,
)

FLAGS_OFFSET = 16
PROPERTIES_OFFSET = 18
BODY_SIZE = slice(8, 16)
BASIC_WEIGHT_0 = CLASS_BASIC.to_bytes(2, "big") + b"\x00\x00"

# Property bits, in the order in which the properties stand in the header, and how each is encoded:
# "s" short string, "t" table, or a number of bytes.
CONTENT_TYPE = 0x8000
CONTENT_ENCODING = 0x4000
HEADERS = 0x2000
DELIVERY_MODE = 0x1000
PRIORITY = 0x0800
CORRELATION_ID = 0x0400
REPLY_TO = 0x0200
EXPIRATION = 0x0100
MESSAGE_ID = 0x0080
TIMESTAMP = 0x0040
TYPE = 0x0020
USER_ID = 0x0010
APP_ID = 0x0008
CLUSTER_ID = 0x0004
LAYOUT: tuple[tuple[int, str | int], ...] = (
    (CONTENT_TYPE, "s"), (CONTENT_ENCODING, "s"), (HEADERS, "t"), (DELIVERY_MODE, 1), (PRIORITY, 1),
    (CORRELATION_ID, "s"), (REPLY_TO, "s"), (EXPIRATION, "s"), (MESSAGE_ID, "s"), (TIMESTAMP, 8),
    (TYPE, "s"), (USER_ID, "s"), (APP_ID, "s"), (CLUSTER_ID, "s"),
)  # fmt: skip
NAMES = (
    "content_type", "content_encoding", "headers", "delivery_mode", "priority", "correlation_id",
    "reply_to", "expiration", "message_id", "timestamp", "type", "user_id", "app_id", "cluster_id",
)  # fmt: skip
KNOWN_FLAGS = 0xFFFC

PERSISTENT = 2  # the delivery mode
LARGE_BODY_BYTES = 1_048_576
PIECE_OVERHEAD_BYTES = 5  # of a body piece: the size before the payload, and the end octet


def headers_only(entries: Sequence[bytes], size: int) -> bytes:
    """The header piece of a message of the broker's own with nothing but headers.

    Args:
        size: of its body.
    """
    table = b"".join(entries)
    return header_piece(
        BASIC_WEIGHT_0
        + size.to_bytes(8, "big")
        + HEADERS.to_bytes(2, "big")
        + len(table).to_bytes(4, "big")
        + table
    )


def event_header(entries: Sequence[bytes], second: int) -> bytes:
    """The header piece of a persistent message with headers and a time, and without a body."""
    header = headers_only(entries, 0)
    header = with_property(header, DELIVERY_MODE, bytes((PERSISTENT,)))
    return with_property(header, TIMESTAMP, second.to_bytes(8, "big"))


def properties_table(header: bytes) -> list[bytes]:
    """The properties as entries of a table, as RabbitMQ names them."""
    found: list[bytes] = []
    for (bit, kind), name in zip(LAYOUT, NAMES, strict=True):
        place = locate(header, bit)
        if place is None:
            continue
        start, end = place
        if kind == "s":
            found.append(fields.entry(name, b"S", fields.sized(header[start + 1 : end])))
        elif kind == "t":
            found.append(fields.entry(name, b"F", header[start:end]))
        elif kind == 1:
            found.append(fields.entry(name, b"I", b"\x00\x00\x00" + header[start:end]))
        else:
            found.append(fields.entry(name, b"l", header[start:end]))
    return found


def header_piece(payload: bytes) -> bytes:
    """The header piece for the payload of a content header frame."""
    return len(payload).to_bytes(4, "big") + payload + FRAME_END_BYTE


class LargeBody:
    """The payloads of the body frames of one large content.

    Its length is that of the body piece that it stands for.
    """

    __slots__ = ("_length", "parts")

    def __init__(self, parts: list[bytes | memoryview], size: int) -> None:
        self.parts = parts
        self._length = size + 5

    def __len__(self) -> int:
        return self._length


Body = bytes | memoryview | LargeBody


def body_piece(parts: list[bytes | memoryview], size: int) -> Body:
    """The body piece for the payloads of all body frames, which have `size` bytes together."""
    if size >= LARGE_BODY_BYTES:
        return LargeBody(parts, size)
    return b"".join((size.to_bytes(4, "big"), *parts, FRAME_END_BYTE)) if size else b""


def body_payload(body: Body) -> bytes | memoryview:
    """The bytes of the message body."""
    return b"".join(body.parts) if isinstance(body, LargeBody) else body[4:-1]


def body_size(header: bytes) -> int:
    """The body size that the header announces, in bytes."""
    return int.from_bytes(header[BODY_SIZE], "big")


def flags(header: bytes) -> int:
    """The property bits."""
    return header[FLAGS_OFFSET] << 8 | header[FLAGS_OFFSET + 1]


def locate(header: bytes, bit: int) -> tuple[int, int] | None:
    """Start and end of one property's encoding in the header, or None if it is not there."""
    present = flags(header)
    if not present & bit:
        return None
    offset = PROPERTIES_OFFSET
    for this, kind in LAYOUT:
        if present & this:
            end = _end_of(header, kind, offset)
            if this == bit:
                return offset, end
            offset = end
    return None


@cache  # at most one entry for each of the 2**14 sets of properties
def _kinds(present: int) -> tuple[str | int, ...]:
    """How the properties are encoded that the bits say are there, in their order."""
    return tuple(kind for bit, kind in LAYOUT if present & bit)


def _end_of(header: bytes, kind: str | int, offset: int) -> int:
    if kind == "s":
        return offset + 1 + header[offset]
    if kind == "t":
        return offset + 4 + int.from_bytes(header[offset : offset + 4], "big")
    return offset + int(kind)


def check(header: bytes) -> None:
    """Raises ValueError unless the header is well formed, its headers table included."""
    if header[4:8] != BASIC_WEIGHT_0:
        raise ValueError(f"content of class and weight {header[4:8].hex()}")
    if header[-1] != FRAME_END:
        raise ValueError("a wrong end octet")
    present = flags(header)
    if present & ~KNOWN_FLAGS:
        raise ValueError("property flags that AMQP 0-9-1 does not have")
    offset, end = PROPERTIES_OFFSET, len(header) - 1
    for kind in _kinds(present):
        if kind == "s":
            offset += 1 + header[offset]
        elif kind == "t":
            offset = tables.check(header, offset, end)
        else:
            offset += int(kind)
    if offset != end:
        raise ValueError("the properties do not fill their frame")


def short_string(header: bytes, bit: int) -> str | None:
    """The value of a short-string property, or None."""
    place = locate(header, bit)
    return None if place is None else header[place[0] + 1 : place[1]].decode("utf-8", "replace")


def octet(header: bytes, bit: int) -> int | None:
    """The value of a one-byte property (delivery mode, priority), or None."""
    place = locate(header, bit)
    return None if place is None else header[place[0]]


def is_persistent(header: bytes) -> bool:
    """Whether the delivery mode is 2."""
    return octet(header, DELIVERY_MODE) == PERSISTENT


def headers(header: bytes) -> Arguments:
    """The headers table; empty if there is none."""
    place = locate(header, HEADERS)
    return NO_ARGUMENTS if place is None else arguments_at(header, place[0])


def with_short_string(header: bytes, bit: int, value: str) -> bytes:
    """The header with another value of a short-string property."""
    data = value.encode()
    return with_property(header, bit, bytes((len(data),)) + data)


def with_property(header: bytes, bit: int, encoded: bytes) -> bytes:
    """The header with a property as it is encoded here, instead of the one that it has, if any."""
    return _spliced(header, bit, flags(header) | bit, encoded)


def without_property(header: bytes, bit: int) -> bytes:
    """The header without a property; all other bytes as they were."""
    return _spliced(header, bit, flags(header) & ~bit, b"")


def _spliced(header: bytes, bit: int, present: int, encoded: bytes) -> bytes:
    start = end = PROPERTIES_OFFSET
    had = flags(header)
    for this, kind in LAYOUT:
        if this == bit:
            end = _end_of(header, kind, start) if had & this else start
            break
        if had & this:
            start = _end_of(header, kind, start)
    new_flags = present.to_bytes(2, "big")
    return _resized(
        header[:FLAGS_OFFSET] + new_flags + header[PROPERTIES_OFFSET:start] + encoded + header[end:]
    )


def header_entries(header: bytes) -> list[tuple[str, bytes]]:
    """The entries of the headers table by name, each with all of its bytes."""
    place = locate(header, HEADERS)
    if place is None:
        return []
    found, _ = tables.entries(header, place[0])
    return [(entry.name, header[entry.start : entry.end]) for entry in found]


def all_header_entries(header: bytes) -> list[bytes]:
    """The bytes of all entries of the headers table in one piece; empty if there is none."""
    place = locate(header, HEADERS)
    return [] if place is None else [header[place[0] + 4 : place[1]]]


def with_header_entries(header: bytes, entries: Sequence[bytes]) -> bytes:
    """The header with a headers table of just these entries; without one if there are none."""
    if not entries:
        return without_property(header, HEADERS)
    table = b"".join(entries)
    return with_property(header, HEADERS, len(table).to_bytes(4, "big") + table)


def with_header_entry(header: bytes, name: str, entry: bytes) -> bytes:
    """The header with an entry of its headers table, instead of one of that name, if there is."""
    kept = [data for other, data in header_entries(header) if other != name]
    return with_header_entries(header, [*kept, entry])


def without_header_entry(header: bytes, name: str) -> bytes:
    """The header without one entry of its headers table; all other bytes as they were."""
    place = locate(header, HEADERS)
    if place is None:
        return header
    found, end = tables.entries(header, place[0])
    kept = b"".join(header[entry.start : entry.end] for entry in found if entry.name != name)
    table = len(kept).to_bytes(4, "big") + kept
    return _resized(header[: place[0]] + table + header[end:])


def _resized(header: bytes) -> bytes:
    return (len(header) - 5).to_bytes(4, "big") + header[4:]


def content_frames(
    header: bytes, body: Body, channel: int, frame_bytes_max: int
) -> list[bytes | memoryview]:
    """Header and body pieces as frames for a channel, in pieces that share the body's bytes.

    Args:
        frame_bytes_max: negotiated frame-max of the receiver, in bytes.
    """
    number = channel.to_bytes(2, "big")
    start = b"\x02" + number + header
    if not body:
        return [start]
    if not isinstance(body, LargeBody) and len(body) <= frame_bytes_max - 3:
        return [start + b"\x03" + number, body]
    pieces: list[bytes | memoryview] = [start]
    for part in _payloads(body, frame_bytes_max - FRAME_OVERHEAD_BYTES):
        pieces += (b"\x03" + number + len(part).to_bytes(4, "big"), part, FRAME_END_BYTE)
    return pieces


def _payloads(body: Body, step: int) -> Sequence[bytes | memoryview]:
    """The body in payloads of `step` bytes, of which the last may be shorter."""
    if isinstance(body, LargeBody):
        *firsts, last = body.parts
        if len(last) <= step and all(len(part) == step for part in firsts):
            return body.parts
    payload = memoryview(body_payload(body))
    return [payload[offset : offset + step] for offset in range(0, len(payload), step)]

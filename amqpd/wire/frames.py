"""Cuts a buffer into AMQP frames (AMQP 0-9-1 section 2.3) and makes frames from payloads."""

from struct import Struct
from typing import NamedTuple

from amqpd import errors
from amqpd.wire.constants import (
    FRAME_BODY,
    FRAME_END,
    FRAME_END_BYTE,
    FRAME_OVERHEAD_BYTES,
    FRAME_PREFIX_BYTES,
)
from amqpd.wire.erlang import describe_payload

PREFIX = Struct(">BHI")


class Frame(NamedTuple):
    """One frame in the buffer it was cut from.

    Attributes:
        start: offset of the payload.
        end: offset of the byte behind the frame's end octet.
    """

    type: int
    channel: int
    buffer: bytes
    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes of payload."""
        return self.end - 1 - self.start

    @property
    def payload(self) -> bytes:
        """The payload, copied."""
        return self.buffer[self.start : self.end - 1]

    def view(self) -> memoryview:
        """The payload as it stands in the buffer: bodies are copied only into their message."""
        return memoryview(self.buffer)[self.start : self.end - 1]


def cut(data: bytes, offset: int, payload_bytes_max: int) -> Frame | None:
    """The frame at `offset`, or None while its bytes are not all there.

    Args:
        payload_bytes_max: the longest payload allowed; 0 for no limit.

    Raises:
        ConnectionException: 501 for a payload over the limit (as soon as its size is known, so that
            no client can make the buffer grow) or a wrong end octet.
    """
    if len(data) - offset < FRAME_PREFIX_BYTES:
        return None
    kind, channel, size = PREFIX.unpack_from(data, offset)
    start = offset + FRAME_PREFIX_BYTES
    end = start + size
    if payload_bytes_max and size > payload_bytes_max:
        limit = payload_bytes_max - FRAME_OVERHEAD_BYTES
        described = describe_payload(b"")  # what has come of it does not matter
        raise errors.frame_error(f"type {kind}, {described}: {{frame_too_large,{size},{limit}}}")
    if len(data) <= end:
        return None
    if data[end] != FRAME_END:
        described = describe_payload(data[start:end])
        raise errors.frame_error(
            f"type {kind}, {described}: {{invalid_frame_end_marker,{data[end]}}}"
        )
    return Frame(kind, channel, data, start, end + 1)


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """The bytes of one frame."""
    return PREFIX.pack(kind, channel, len(payload)) + payload + FRAME_END_BYTE


def body_frames(channel: int, body: bytes, frame_bytes_max: int) -> list[bytes]:
    """The body frames for a body of any size: none for an empty one.

    Args:
        frame_bytes_max: negotiated frame-max of the receiver, in bytes; 0 for no limit.
    """
    step = frame_bytes_max - FRAME_OVERHEAD_BYTES if frame_bytes_max else len(body)
    return [
        frame(FRAME_BODY, channel, body[start : start + step])
        for start in range(0, len(body), step or 1)
    ]


def missing_bytes(data: bytes) -> int:
    """How many bytes the last frame in the buffer, which begins with one, still lacks.

    0 where that is not known, because less than the start of the frame is there.
    """
    offset = 0
    while len(data) - offset >= FRAME_PREFIX_BYTES:
        _, _, size = PREFIX.unpack_from(data, offset)
        offset += FRAME_OVERHEAD_BYTES + size
    return max(offset - len(data), 0)

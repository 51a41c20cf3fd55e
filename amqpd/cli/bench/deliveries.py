"""Counts deliveries in a consumer's input, at the speed of C where they are all alike.

The first delivery is taken apart frame by frame. What follows is expected to have the same shape
(the same lengths of method, header and body frame), so that the places of the next ones are known:
a few strided slices prove it for all that are in the buffer. Whatever does not fit is taken apart
frame by frame again; the bytes of large bodies are passed over without being kept.
"""

from collections.abc import Callable
from typing import NamedTuple

from amqpd.cli.bench.errors import BenchError
from amqpd.cli.bench.frames import STAMP_BYTES, STAMP_FLAG, STAMPED
from amqpd.wire.constants import (
    FRAME_BODY,
    FRAME_END,
    FRAME_HEADER,
    FRAME_METHOD,
    FRAME_OVERHEAD_BYTES,
    FRAME_PREFIX_BYTES,
)

READ_BYTES = 256 * 1024
# Room for what a read may leave behind: one frame before its end has come.
BUFFER_BYTES = 3 * READ_BYTES
# Longer deliveries are passed over faster than they would be kept until they are whole.
SHAPE_BYTES_MAX = 16 * 1024
DELIVER = b"\x00\x3c\x00\x3c"
CONTENT_METHODS = (DELIVER, b"\x00\x3c\x00\x32", b"\x00\x3c\x00\x47")  # and return, get-ok
CONSUMER_TAG_OFFSET = FRAME_PREFIX_BYTES + len(DELIVER)
BODY_SIZE_OFFSET = FRAME_PREFIX_BYTES + 4
TAG_BYTES = 8
# So many deliveries are compared one by one; for more, slices across all of them cost less.
FEW = 12


class Shape(NamedTuple):
    """The layout that a run of deliveries shares; offsets are from a delivery's first byte."""

    length: int
    tag: int
    body: int  # of the body's first byte, or of the end if there is no body
    stamped: bool  # whether the body has room for a stamp
    prefix: bytes  # up to the tag
    middle: bytes  # from behind the tag to the body
    checks: tuple[tuple[int, bytes], ...]  # bytes that must be the same in each


def shape_of(delivery: bytes) -> Shape | None:
    """The layout of one whole delivery, or None if runs of such deliveries are not worth knowing.

    Args:
        delivery: method, header and body frames; only those with one body frame or none repeat.
    """
    method = int.from_bytes(delivery[3:7], "big") + FRAME_OVERHEAD_BYTES
    header = int.from_bytes(delivery[method + 3 : method + 7], "big") + FRAME_OVERHEAD_BYTES
    body = method + header
    body_frame = int.from_bytes(delivery[body + 3 : body + 7], "big") + FRAME_OVERHEAD_BYTES
    if len(delivery) > SHAPE_BYTES_MAX or len(delivery) not in (body, body + body_frame):
        return None
    tag = CONSUMER_TAG_OFFSET + 1 + delivery[CONSUMER_TAG_OFFSET]
    alike = [
        0,
        5,
        6,
        8,
        10,
        CONSUMER_TAG_OFFSET,
        method - 1,
        method,
        method + 5,
        method + 6,
        body - 1,
    ]
    alike += range(method + BODY_SIZE_OFFSET + 5, method + BODY_SIZE_OFFSET + 8)
    if len(delivery) > body:
        alike += [body, *range(body + 3, body + FRAME_PREFIX_BYTES), len(delivery) - 1]
        body += FRAME_PREFIX_BYTES
    return Shape(
        length=len(delivery),
        tag=tag,
        body=body,
        stamped=len(delivery) > body + STAMP_BYTES,
        prefix=delivery[:tag],
        middle=delivery[tag + TAG_BYTES : body],
        checks=tuple((offset, delivery[offset : offset + 1]) for offset in alike),
    )


class DeliveryReader:
    """What one channel's consumer has received.

    Attributes:
        last_tag: the delivery tag of the last whole delivery; tags begin with 1 and have no gaps.
        stamps: the stamps found since the caller last cleared the list, in nanoseconds.
    """

    def __init__(self, on_method: Callable[[bytes], None]) -> None:
        """`on_method` is called with the payload of each method frame that is no delivery."""
        self.last_tag = 0
        self.stamps: list[int] = []
        self._on_method = on_method
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._end = 0
        self._shape: Shape | None = None
        # The content under way:
        self._open = False
        self._tag = 0  # 0 for a content that is no delivery
        self._start = -1  # where it begins in the buffer; -1 when a part is gone already
        self._body_left = 0  # bytes of body in frames to come
        self._body_begun = False
        self._skip = 0  # bytes of the current body frame that are still to come

    def room(self) -> memoryview:
        """Where the next read goes."""
        return self._view[self._end : self._end + READ_BYTES]

    def received(self, count: int) -> int:
        """Takes in what a read has put into `room()`; returns how many deliveries it completed.

        Raises:
            BenchError: the bytes are not AMQP, or a delivery tag is not the next one.
        """
        before = self.last_tag
        end = self._end + count
        position = 0
        while position < end:
            start = position
            if self._skip:
                position = self._pass_over(position, end)
                continue
            if self._shape and not self._open:
                position = self._run(position, end, self._shape)
                if position == start and self._begun(position, end, self._shape):
                    break
            if position == start:
                position = self._frame(position, end)
            if position == start:
                break
        self._start = -1
        self._end = end - position
        if position and self._end:
            self._view[: self._end] = self._view[position:end]
        return self.last_tag - before

    def _run(self, position: int, end: int, shape: Shape) -> int:
        """Counts the whole deliveries at `position` that are alike; returns where they end."""
        count = (end - position) // shape.length
        while count and not self._alike(position, count, shape):
            count //= 2
        if not count:
            return position
        length = shape.length
        stop = position + count * length
        self._arrived(self._number(position + shape.tag, TAG_BYTES))
        if count > 1:
            self.last_tag += count - 2
            self._arrived(self._number(stop - length + shape.tag, TAG_BYTES))
        if shape.stamped:
            flags = self._buffer[position + shape.body : stop : length]
            found = flags.find(STAMP_FLAG)
            while found >= 0:
                self._stamp(position + found * length + shape.body)
                found = flags.find(STAMP_FLAG, found + 1)
        return stop

    def _alike(self, position: int, count: int, shape: Shape) -> bool:
        """Whether all of `count` deliveries at `position` have the shape."""
        stop = position + count * shape.length
        if count <= FEW:
            starts = self._buffer.startswith
            behind_tag, last = shape.tag + TAG_BYTES, shape.length - 1
            for start in range(position, stop, shape.length):
                if not (
                    starts(shape.prefix, start)
                    and starts(shape.middle, start + behind_tag)
                    and self._buffer[start + last] == FRAME_END
                ):
                    return False
            return True
        return all(
            self._buffer[position + offset : stop : shape.length] == value * count
            for offset, value in shape.checks
        )

    def _begun(self, position: int, end: int, shape: Shape) -> bool:
        """Whether what is left is the beginning of one more such delivery.

        As far as it goes it must be the same: then it cannot be a whole delivery of another size.
        """
        left = self._buffer[position:end]
        rest = left[shape.tag + TAG_BYTES : shape.body]
        return (
            len(left) < shape.length
            and left[: shape.tag] == shape.prefix[: len(left)]
            and rest == shape.middle[: len(rest)]
        )

    def _arrived(self, tag: int) -> None:
        self.last_tag += 1
        if tag != self.last_tag:
            raise BenchError(f"the broker sent delivery tag {tag} where {self.last_tag} was due")

    def _number(self, offset: int, size: int) -> int:
        return int.from_bytes(self._view[offset : offset + size], "big")

    def _stamp(self, offset: int) -> None:
        stamp = self._number(offset, STAMP_BYTES)
        if stamp & STAMPED:
            self.stamps.append(stamp ^ STAMPED)

    def _frame(self, position: int, end: int) -> int:
        """Takes the frame at `position`; returns where it ends, or `position` while it is cut.

        Of a body frame only the prefix is taken, the rest is passed over.
        """
        if end - position < FRAME_PREFIX_BYTES:
            return position
        kind = self._buffer[position]
        size = self._number(position + 3, 4)
        if kind == FRAME_BODY:
            return self._body(position, end, size)
        if size > READ_BYTES:
            raise BenchError(f"the broker sent a frame of type {kind} with {size} bytes")
        stop = position + size + FRAME_OVERHEAD_BYTES
        if end < stop:
            return position
        self._check_end(stop)
        if kind == FRAME_METHOD:
            self._method(position, stop)
        elif kind == FRAME_HEADER:
            self._body_left = self._number(position + BODY_SIZE_OFFSET, 8)
            if not self._body_left:
                self._complete(stop)
        return stop

    def _method(self, position: int, stop: int) -> None:
        payload = bytes(self._view[position + FRAME_PREFIX_BYTES : stop - 1])
        if payload.startswith(CONTENT_METHODS):
            self._open = True
            self._body_begun = False
        if payload.startswith(DELIVER):
            offset = 5 + payload[4]
            self._tag = int.from_bytes(payload[offset : offset + 8], "big")
            self._start = position
        else:
            self._on_method(payload)

    def _body(self, position: int, end: int, size: int) -> int:
        if self._body_left < size:
            raise BenchError("the broker sent more body than the header announced")
        offset = position + FRAME_PREFIX_BYTES
        if size >= STAMP_BYTES and not self._body_begun:
            if end < offset + STAMP_BYTES:
                return position
            self._stamp(offset)
        self._body_begun = True
        self._body_left -= size
        self._skip = size + 1
        return offset

    def _pass_over(self, position: int, end: int) -> int:
        """Drops bytes of a body frame; the end of the last one completes the content."""
        step = min(self._skip, end - position)
        self._skip -= step
        position += step
        if not self._skip:
            self._check_end(position)
            if not self._body_left:
                self._complete(position)
        return position

    def _check_end(self, stop: int) -> None:
        if self._buffer[stop - 1] != FRAME_END:
            raise BenchError("the broker sent a frame without its end octet")

    def _complete(self, stop: int) -> None:
        """The content under way has come to its end."""
        self._open = False
        if self._tag:
            self._arrived(self._tag)
            self._tag = 0
            if self._start >= 0:
                self._shape = shape_of(bytes(self._view[self._start : stop])) or self._shape

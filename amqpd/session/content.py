"""A publish whose content is still coming: its method, then its header, then its body frames."""

from __future__ import annotations

from struct import unpack_from

from amqpd import errors
from amqpd.wire import content
from amqpd.wire.constants import CLASS_BASIC, FRAME_BODY, FRAME_HEADER
from amqpd.wire.frames import Frame
from amqpd.wire.methods import Basic

BODY_BYTES_MAX = 536_870_912  # RabbitMQ's, beyond which no setting goes
VIEW_SHARE = 16
PARTS_MAX = 8192


class Assembly:
    """Collects the content of one basic.publish.

    Bound: the body that the header announces, which is refused over `message.size_bytes_max` before
    a byte of it is kept; times VIEW_SHARE at the very worst, for the reads that its parts are in.

    Attributes:
        frame: the payload of the method frame.
        too_large: the announced body size, where it is over the limit; the body is dropped as it
            comes, and the publish refused when all of it was there.
    """

    __slots__ = ("_limit", "_missing", "_parts", "frame", "header", "method", "too_large")

    def __init__(self, method: Basic.Publish, frame: bytes, limit: int) -> None:
        self.method = method
        self.frame = frame
        self.header = b""
        self.too_large = 0
        self._parts: list[bytes | memoryview] = []
        self._missing = 0
        self._limit = limit

    def add(self, frame: Frame) -> bool:
        """Takes the next frame of the channel; whether the content is complete.

        Raises:
            ConnectionException: 505 for a frame of another type or class than must come, 501 for a
                header that cannot be decoded or a body longer than announced.
        """
        if not self.header:
            self._add_header(frame)
        else:
            self._add_body(frame)
        return self._missing == 0

    def _add_header(self, frame: Frame) -> None:
        if frame.type != FRAME_HEADER:
            raise errors.unexpected_frame(
                f"expected content header for class {CLASS_BASIC}, got non content header frame "
                "instead"
            )
        class_id, weight, size = unpack_from(">HHQ", frame.payload)
        if weight:  # RabbitMQ does not take it for a header at all
            raise errors.unexpected_frame(
                f"expected content header for class {CLASS_BASIC}, got non content header frame "
                "instead"
            )
        if class_id != CLASS_BASIC:
            raise errors.unexpected_frame(
                f"expected content header for class {CLASS_BASIC}, got one for class {class_id} "
                "instead"
            )
        if size > BODY_BYTES_MAX:
            raise errors.frame_error(
                f"content body size {size} exceeds maximum allowed size {BODY_BYTES_MAX}"
            )
        self.header = content.header_piece(frame.payload)
        self._missing = size
        if size > self._limit:
            self.too_large = size

    def _add_body(self, frame: Frame) -> None:
        if frame.type != FRAME_BODY:
            raise errors.unexpected_frame(
                "expected content body, got non content body frame instead"
            )
        size = frame.size
        if size > self._missing:
            raise errors.frame_error("content body frame exceeds remaining content size")
        self._missing -= size
        if self.too_large or not size:
            return
        # A view keeps the whole read of the socket: a small part of it is copied instead, and many
        # small ones are put together.
        large = size * VIEW_SHARE > len(frame.buffer)
        self._parts.append(frame.view() if large else frame.payload)
        if len(self._parts) > PARTS_MAX:
            self._parts = [b"".join(self._parts)]

    def body(self) -> content.Body:
        """The body piece, once the content is complete."""
        return content.body_piece(self._parts, content.body_size(self.header))

"""Bytes of a client that do not make a whole frame yet."""

from __future__ import annotations

from collections.abc import Iterator

from amqpd.wire.frames import missing_bytes


class Input:
    """Puts what was left over before what comes next, without copying more than what was cut.

    Bound: one frame of frame-max, or one message of which the hot path waits for the end, and one
    read of the socket.

    Attributes:
        size: bytes left over.
    """

    __slots__ = ("_rest", "size")

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self.size = 0

    def gather(self, data: bytes, in_frames: bool) -> Iterator[tuple[bytes, int]]:
        """Buffers and where in them to begin; after each, `append` what of it is left over.

        Args:
            in_frames: what was left over begins with a frame (and not in the protocol header).
        """
        offset = 0
        if self._rest:
            start = self._rest[0]
            missing = missing_bytes(start) - (self.size - len(start)) if in_frames else 0
            if missing > len(data):
                self._rest.append(data)
                self.size += len(data)
                return
            if missing > 0:
                frame = b"".join((*self._rest, memoryview(data)[:missing]))
                self.clear()
                yield frame, 0
                offset = missing
            if self._rest:
                data, offset = b"".join((*self._rest, data[offset:])), 0
                self.clear()
        yield data, offset

    def append(self, data: bytes) -> None:
        """Keeps what is left over, or comes while nothing is worked off."""
        self._rest.append(data)
        self.size += len(data)

    def again(self) -> Iterator[tuple[bytes, int]]:
        """What was left over, from its begin."""
        if self._rest:
            data = b"".join(self._rest)
            self.clear()
            yield data, 0

    def clear(self) -> None:
        """Forgets what was left over."""
        self._rest, self.size = [], 0

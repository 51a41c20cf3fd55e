"""Prepared bytes: a run of publishes and a run of acks, made once and sent by slices."""

from collections.abc import Sequence

from amqpd.wire import methods
from amqpd.wire.frames import body_frames
from amqpd.wire.methods import Basic

CHANNEL = 1
WRITE_BYTES = 64 * 1024
STAMP_BYTES = 8
# A stamp's first bit says that it is one: bodies that carry none begin with a zero byte.
STAMPED = 1 << 63
STAMP_FLAG = b"\x80"
ACK_BYTES = 21
ACKS_PER_BLOCK = 4096
FRAME_PREFIX_BYTES = 7


class PublishRun:
    """As many publishes as fit into one write, one behind the other, over and over.

    Attributes:
        buffer: the bytes; writable, because stamps are written into them.
        offsets: where each message begins, and behind the last where the run ends.
        stamps: where the body of each message begins, or -1 if it has no room for a stamp.
    """

    def __init__(
        self,
        exchange: str,
        routing_keys: Sequence[str],
        size_bytes: int,
        frame_bytes_max: int,
        *,
        persistent: bool = False,
        mandatory: bool = False,
        write_bytes: int = WRITE_BYTES,
    ) -> None:
        properties = Basic.Properties(delivery_mode=2 if persistent else None)
        filler = b"x" * max(size_bytes - STAMP_BYTES, 0)
        body = b"\x00" * min(size_bytes, STAMP_BYTES) + filler
        header = methods.encode_header(CHANNEL, size_bytes, properties)
        content = header + b"".join(body_frames(CHANNEL, body, frame_bytes_max))
        cycle = [
            methods.encode_method(
                CHANNEL,
                Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory),
            )
            for routing_key in routing_keys
        ]
        cycle_bytes = sum(map(len, cycle)) + len(content) * len(cycle)
        publishes = cycle * max(write_bytes // cycle_bytes, 1)
        self.buffer = bytearray(content.join([*publishes, b""]))
        self.offsets = [0]
        self.stamps = []
        for method in publishes:
            start = self.offsets[-1]
            stamp = start + len(method) + len(header) + FRAME_PREFIX_BYTES
            self.stamps.append(stamp if size_bytes >= STAMP_BYTES else -1)
            self.offsets.append(start + len(method) + len(content))
        self.messages = len(publishes)


class AckRun:
    """`basic.ack` frames for consecutive delivery tags, without work per tag.

    A block holds the frames for 4,096 tags; moving to another block rewrites the upper bytes of all
    its tags, one strided assignment a byte.
    """

    def __init__(self) -> None:
        frame = methods.encode_method(CHANNEL, Basic.Ack(delivery_tag=0))
        assert len(frame) == ACK_BYTES
        self._block = bytearray(frame * ACKS_PER_BLOCK)
        self._tag_offset = ACK_BYTES - 10
        self._base = -1
        self._column(7, bytes(range(256)) * (ACKS_PER_BLOCK // 256))
        self._load(0)

    def _column(self, position: int, values: bytes) -> None:
        self._block[self._tag_offset + position :: ACK_BYTES] = values

    def _load(self, base: int) -> None:
        """Makes the block that of the tags from `base`, a multiple of the block's length."""
        high = base.to_bytes(8, "big")
        before = self._base.to_bytes(8, "big") if self._base >= 0 else None
        for position in range(6):
            if before is None or before[position] != high[position]:
                self._column(position, high[position : position + 1] * ACKS_PER_BLOCK)
        pages = range(high[6], high[6] + ACKS_PER_BLOCK // 256)
        self._column(6, b"".join(bytes((page,)) * 256 for page in pages))
        self._base = base

    def frames(self, first: int, last: int) -> bytes:
        """One single ack for each tag from `first` to `last`."""
        base = first - first % ACKS_PER_BLOCK
        if base != self._base:
            self._load(base)
        end = min(last + 1, base + ACKS_PER_BLOCK)
        acks = bytes(self._block[(first - base) * ACK_BYTES : (end - base) * ACK_BYTES])
        return acks if end > last else acks + self.frames(end, last)


def multiple_ack(tag: int) -> bytes:
    """A `basic.ack` of everything up to the tag."""
    return methods.encode_method(CHANNEL, Basic.Ack(delivery_tag=tag, multiple=True))

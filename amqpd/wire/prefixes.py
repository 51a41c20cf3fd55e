"""Ready-made parts of the frames that are sent once a message: deliver and ack.

A basic.deliver frame is `prefix + delivery tag (8 bytes) + suffix`: the prefix belongs to the
consumer and the length of the suffix, the suffix to the envelope.
"""

from amqpd.wire.constants import FRAME_END_BYTE

_DELIVER = b"\x00\x3c\x00\x3c"
_ACK = b"\x00\x00\x00\x0d\x00\x3c\x00\x50"
_NACK = b"\x00\x00\x00\x0d\x00\x3c\x00\x78"


def short(text: str) -> bytes:
    """A short string of at most 255 bytes with its length."""
    data = text.encode()
    return bytes((len(data),)) + data


def deliver_prefix(channel: int, consumer_tag: str, suffix_bytes: int) -> bytes:
    """A basic.deliver frame up to its delivery tag."""
    tag = short(consumer_tag)
    size = len(_DELIVER) + len(tag) + 8 + suffix_bytes - 1  # the suffix holds the end octet
    return b"\x01" + channel.to_bytes(2, "big") + size.to_bytes(4, "big") + _DELIVER + tag


def deliver_suffix(redelivered: bool, exchange: str, routing_key: str) -> bytes:
    """A basic.deliver frame from behind its delivery tag to its end."""
    return bytes((redelivered,)) + short(exchange) + short(routing_key) + FRAME_END_BYTE


def ack_prefix(channel: int) -> bytes:
    """A basic.ack frame up to its delivery tag; 10 bytes more follow: tag, multiple, end octet."""
    return b"\x01" + channel.to_bytes(2, "big") + _ACK


def ack(channel: int, tag: int, multiple: bool) -> bytes:
    """A whole basic.ack frame, as the broker sends it to confirm publishes."""
    return ack_prefix(channel) + tag.to_bytes(8, "big") + bytes((multiple,)) + FRAME_END_BYTE


def nack(channel: int, tag: int) -> bytes:
    """A whole basic.nack frame, as the broker sends it when a queue refuses a publish."""
    number = channel.to_bytes(2, "big")
    return b"\x01" + number + _NACK + tag.to_bytes(8, "big") + b"\x00" + FRAME_END_BYTE

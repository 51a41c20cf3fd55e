"""The header `x-stream-offset`, with which consumers of streams get their messages."""

from __future__ import annotations

from amqpd.broker.message import Message
from amqpd.wire import content, fields

NAME = "x-stream-offset"


def around_offset(header: bytes) -> tuple[bytes, bytes]:
    """What stands before and behind the offset, which has eight bytes, in a content header.

    A header of this name that the publisher has given is left out.
    """
    entry = fields.long(NAME, 0)
    with_entry = content.with_header_entry(header, NAME, entry)
    place = content.locate(with_entry, content.HEADERS)
    assert place is not None  # it has just been put there, as the last of its table
    return with_entry[: place[1] - 8], with_entry[place[1] :]


def with_offset(message: Message, offset: int) -> Message:
    """The message as a consumer of a stream gets it."""
    envelope, header, body, persistent = message
    before, behind = around_offset(header)
    return envelope, before + offset.to_bytes(8, "big") + behind, body, persistent

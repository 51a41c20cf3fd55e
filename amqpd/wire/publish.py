"""The fields of basic.publish straight from its frame, for publishes of addresses seen first.

`methods.decode_method` says the same more slowly; what is not quite as it should be is left to it.
Source: AMQP 0-9-1 class basic, method publish.
"""

from __future__ import annotations

from typing import NamedTuple

_EXCHANGE_OFFSET = 13  # frame prefix 7, class and method 4, ticket 2


class PublishFields(NamedTuple):
    """Where a message is published to."""

    exchange: str
    routing_key: str
    mandatory: bool
    immediate: bool


def publish_fields(frame: bytes) -> PublishFields | None:
    """The fields in a whole method frame of basic.publish; None if it is not well formed."""
    try:
        exchange_end = _EXCHANGE_OFFSET + 1 + frame[_EXCHANGE_OFFSET]
        key_end = exchange_end + 1 + frame[exchange_end]
        if key_end + 2 != len(frame) or frame[-1] != 0xCE:
            return None
        return PublishFields(
            frame[_EXCHANGE_OFFSET + 1 : exchange_end].decode(),
            frame[exchange_end + 1 : key_end].decode(),
            frame[key_end] & 1 != 0,
            frame[key_end] & 2 != 0,
        )
    except (IndexError, UnicodeDecodeError):
        return None

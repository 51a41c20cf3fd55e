"""What every message says about itself, so that its reader knows whose it is and if it is whole.

The stamp is publisher, number, length and checksum. A long body begins with it; where the body is
too short, even empty, the property `message_id` holds it. All other properties follow from it.
"""

import random
import zlib
from typing import Any, NamedTuple

SHORT_BYTES = 64
CRC_CHARACTERS = 8
BODY_BYTES_MAX = 40 * 1024
_STARTS = 1 << 16
_NOISE = random.Random("what bodies are cut from").randbytes(_STARTS + BODY_BYTES_MAX)

# Every property that a message may have; what is not among the expected ones must be absent.
PROPERTIES = (
    "content_type",
    "content_encoding",
    "headers",
    "delivery_mode",
    "priority",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "app_id",
)


class Damaged(Exception):
    """A message that is not as any publisher made it."""


class Stamp(NamedTuple):
    """Who made a message, and what it must be."""

    publisher: int
    seq: int
    length: int
    crc: int


def compose(
    publisher: int, seq: int, length: int, persistent: bool
) -> tuple[dict[str, Any], bytes]:
    """Properties by pamqp's names, and the body."""
    prefix = b"%d %d %d " % (publisher, seq, length)
    start = (publisher * 7919 + seq * 104_729) % _STARTS
    if length < SHORT_BYTES:
        body = _NOISE[start : start + length]
        text = b"%s%08x" % (prefix, zlib.crc32(body))
    else:
        rest = _NOISE[start : start + length - len(prefix) - CRC_CHARACTERS - 1]
        text = b"%s%08x" % (prefix, zlib.crc32(rest))
        body = b"%s|%s" % (text, rest)
    return properties(text.decode(), seq, length, persistent), body


def properties(text: str, seq: int, length: int, persistent: bool) -> dict[str, Any]:
    """The properties of the message with this stamp: none, a name, or a bit of everything."""
    given: dict[str, Any] = {"delivery_mode": 2} if persistent else {}
    if seq % 3 == 0 and length >= SHORT_BYTES:
        return given
    given["message_id"] = text
    if seq % 3 == 1:
        given["content_type"] = "application/octet-stream"
        given["headers"] = {"seq": seq, "deep": {"list": [1, "two", True]}}
        given |= {"priority": seq % 10, "correlation_id": f"c{seq}", "app_id": "crash"}
    return given


def read(body: bytes, message_id: str | None) -> tuple[Stamp, str]:
    """The stamp of a message, as numbers and as text.

    Raises:
        Damaged: there is none, or the body is not what it says.
    """
    if len(body) >= SHORT_BYTES:
        head, _, rest = body.partition(b"|")
        text = head[:SHORT_BYTES].decode("latin-1")
    else:
        text, rest = message_id or "", body
    try:
        publisher, seq, length, crc = text.split(" ")
        stamp = Stamp(int(publisher), int(seq), int(length), int(crc, 16))
    except ValueError:
        raise Damaged(f"no stamp in {body[:40]!r}, message_id {message_id!r}") from None
    if stamp.length != len(body) or stamp.crc != zlib.crc32(rest):
        raise Damaged(f"a body of {len(body)} bytes that is not as its stamp says: {text}")
    return stamp, text


def check_properties(found: Any, expected: dict[str, Any]) -> None:
    """Compares an object that has properties as attributes, pamqp's or pika's.

    Raises:
        Damaged: one of them differs.
    """
    for name in PROPERTIES:
        if getattr(found, name, None) != expected.get(name):
            raise Damaged(f"{name} is {getattr(found, name, None)!r} in place of {expected!r}")

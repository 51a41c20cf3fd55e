"""How much of a stream stays: by size, by age, and in which pieces it goes.

A stream is cut into segments as messages come. What is too old or too much goes a whole segment at
a time, and never the one that is being written, as in RabbitMQ; where no segment size is given,
ours are small enough that what stays is close to what was asked for.

Source: RabbitMQ, "Streams", data retention.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from amqpd.broker.message import Message, body_bytes

AGE: Final = re.compile(r"([0-9]{1,15})([YMDhms])")
UNITS_MS: Final = {
    "Y": 31_536_000_000,
    "M": 2_592_000_000,
    "D": 86_400_000,
    "h": 3_600_000,
    "m": 60_000,
    "s": 1000,
}

# RabbitMQ's default, and ours where nothing limits the stream.
SEGMENT_BYTES: Final = 500_000_000
# Where something does, about so many segments hold what may stay.
SEGMENTS: Final = 16
SEGMENT_BYTES_MIN: Final = 65_536  # smaller ones would cost more than what they hold


class Retention(NamedTuple):
    """What may stay.

    Attributes:
        bytes_max: size of the bodies; None for any.
        age_ms_max: how long; None for ever.
        segment_bytes: size of the bodies of one segment, about.
        per_key: only so many of the messages with one key; None for all.
    """

    bytes_max: int | None = None
    age_ms_max: int | None = None
    segment_bytes: int = SEGMENT_BYTES
    per_key: int | None = None


FOR_EVER: Final = Retention()


def age_ms(text: str) -> int:
    """The milliseconds of an age such as `7D`; raises ValueError for what is none."""
    found = AGE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no age such as 7D; units are Y, M, D, h, m and s")
    return int(found[1]) * UNITS_MS[found[2]]


def retention(effective: Mapping[str, Any]) -> Retention:
    """What may stay of a stream.

    Args:
        effective: arguments of queues without their `x-`, which is what policies call them.
    """
    per_key = effective.get("max-length-per-key")
    if per_key is not None:  # what is left of a key must not go with a segment
        return Retention(per_key=per_key)
    bytes_max, age = effective.get("max-length-bytes"), effective.get("max-age")
    segment_bytes = effective.get("stream-max-segment-size-bytes")
    if not segment_bytes:
        segment_bytes = SEGMENT_BYTES
        if bytes_max is not None:
            segment_bytes = min(SEGMENT_BYTES, bytes_max // SEGMENTS)
    return Retention(
        bytes_max,
        None if age is None else age_ms(age),
        max(segment_bytes, SEGMENT_BYTES_MIN),
    )


class Segment(NamedTuple):
    """A part of a stream that is full.

    Attributes:
        first: the offset of its first message.
        below: that of the first message behind it.
        bytes: size of its bodies.
        last_ms: when its last message came, in milliseconds since 1970.
    """

    first: int
    below: int
    bytes: int
    last_ms: int


class Segments:
    """The segments of one stream.

    Bound: one for each SEGMENT_BYTES_MIN of what the stream holds, and SEGMENTS where only its age
    is limited.

    Args:
        full: those that the store knows.
        first: the offset of the first message that there is.
        size: the size of all bodies.

    Attributes:
        full: all but the one that is being written, the oldest first.
        first: the offset at which that one begins.
    """

    def __init__(self, full: Iterable[Segment], first: int, size: int) -> None:
        self.full = deque(full)
        self.first = self.full[-1].below if self.full else first
        self._bytes = size - sum([segment.bytes for segment in self.full])
        self._first_ms: int | None = None  # when the first message came that is in none of them
        self._last_ms = 0

    def came(
        self, first: int, messages: Sequence[Message], size: int, now_ms: int, terms: Retention
    ) -> list[Segment]:
        """Messages are appended, the first of them at an offset; the segments that are full now.

        The last message is in none of them: what is being written must stay.
        """
        known = len(self.full)
        age_ms_max = terms.age_ms_max
        if not self._last_ms and first > self.first:
            # What was there at the start is no younger than the segment before it, and no older
            # than the start.
            self._first_ms = self.full[-1].last_ms if self.full else 0
            self._last_ms = now_ms
        if (
            age_ms_max is not None
            and self._first_ms is not None
            and now_ms - self._first_ms > age_ms_max // SEGMENTS
        ):
            self._close(first, self._last_ms)
        if self._first_ms is None:
            self._first_ms = now_ms
        if self._bytes + size < terms.segment_bytes:
            self._bytes += size
        else:
            for number, message in enumerate(messages, first):
                if self._bytes >= terms.segment_bytes:
                    self._close(number, now_ms)
                    self._first_ms = now_ms
                self._bytes += body_bytes(message)
        self._last_ms = now_ms
        return [self.full[place] for place in range(known, len(self.full))]

    def _close(self, below: int, last_ms: int) -> None:
        """What has come below an offset is a segment."""
        self.full.append(Segment(self.first, below, self._bytes, last_ms))
        self.first, self._bytes, self._first_ms = below, 0, None

    def take_over(self, total: int, now_ms: int, terms: Retention) -> list[Segment]:
        """Takes away what is too old, or too much of `total` bytes."""
        gone: list[Segment] = []
        while self.full:
            oldest = self.full[0]
            is_old = terms.age_ms_max is not None and now_ms - oldest.last_ms > terms.age_ms_max
            is_too_much = terms.bytes_max is not None and total > terms.bytes_max
            if not is_old and not is_too_much:
                break
            gone.append(self.full.popleft())
            total -= oldest.bytes
        return gone

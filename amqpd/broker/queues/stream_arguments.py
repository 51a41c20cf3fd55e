"""What consumers of streams may ask for: where to begin, which messages, and to be remembered.

Source: RabbitMQ, "Streams", consuming with AMQP 0-9-1, and "Stream Filtering".
"""

from __future__ import annotations

from typing import Final, NamedTuple

from amqpd.broker.queues.retention import age_ms
from amqpd.wire import content
from amqpd.wire.arguments import Arguments, seconds_of
from amqpd.wire.tables import INTEGER_TYPES, TYPE_NAMES

OFFSET: Final = "x-stream-offset"
FILTER: Final = "x-stream-filter"
MATCH_UNFILTERED: Final = "x-stream-match-unfiltered"
TRACKING: Final = "x-stream-automatic-offset-tracking"
FILTER_VALUE: Final = "x-stream-filter-value"  # a header of messages

FIRST: Final = "first"
LAST: Final = "last"
NEXT: Final = "next"
SINCE: Final = "since"
AT: Final = "at"


class ReadFrom(NamedTuple):
    """Where to begin.

    Attributes:
        what: FIRST, LAST or NEXT message, AT an offset, or with what has come SINCE a time.
        value: the offset, or the time in milliseconds since 1970.
    """

    what: str
    value: int = 0


def read_from(arguments: Arguments, now_ms: int) -> ReadFrom:
    """Where a consumer wants to begin; raises ValueError for what cannot be."""
    if OFFSET not in arguments.values:
        return ReadFrom(NEXT)
    kind, value = arguments.types[OFFSET], arguments.values[OFFSET]
    if kind == b"S" and value in (FIRST, LAST, NEXT):
        return ReadFrom(value)
    if kind == b"S":
        try:
            return ReadFrom(SINCE, now_ms - age_ms(value))
        except ValueError as error:
            raise ValueError(f"{error}; or first, last, next, an offset or a timestamp") from None
    if kind == b"T":
        return ReadFrom(SINCE, seconds_of(arguments, OFFSET) * 1000)
    if kind in INTEGER_TYPES:
        return ReadFrom(AT, value)
    raise ValueError(
        f"expected first, last, next, an offset, a timestamp or an age such as 7D, "
        f"got {TYPE_NAMES[kind]}"
    )


class StreamFilter:
    """The messages that a consumer wants.

    Args:
        values: wanted are those with one of these filter values.
        unfiltered: those without any, too.
    """

    __slots__ = ("_answer", "_header", "_unfiltered", "_values")

    def __init__(self, values: frozenset[str], *, unfiltered: bool) -> None:
        self._values = values
        self._unfiltered = unfiltered
        self._header = b""
        self._answer = False

    def wants(self, header: bytes) -> bool:
        """Whether the consumer wants a message with this content header."""
        if header is not self._header:  # messages of one publisher often share one
            self._header, self._answer = header, self._look(header)
        return self._answer

    def _look(self, header: bytes) -> bool:
        value = content.headers(header).values.get(FILTER_VALUE)
        return value in self._values if isinstance(value, str) else self._unfiltered


def stream_filter(arguments: Arguments) -> StreamFilter | None:
    """Which messages a consumer wants; None for all. Raises ValueError for what cannot be."""
    value = arguments.values.get(FILTER)
    if value is None:
        return None
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise ValueError("expected a string or an array of strings")
    return StreamFilter(
        frozenset(values), unfiltered=arguments.values.get(MATCH_UNFILTERED) is True
    )

"""Messages that a queue puts off: retries with a growing delay, and delays that publishers ask for.

A rejected message (`requeue=false`) waits and comes back to the end of its queue, and waits longer
each time; when it has come back as often as it may it is a dead letter. Consumers read in the
header `x-retry-count` how often it has come back.

This is amqpd's own: docs/RETRY.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, Final, NamedTuple

from amqpd.broker.exchanges.delayed import DELAY, delay_ms, released
from amqpd.broker.message import ENVELOPE, HEADER, WAS_PUT_OFF, Message
from amqpd.broker.queues.returns import COUNT_HEADER as DELIVERIES
from amqpd.wire import content, fields
from amqpd.wire.arguments import seconds_of

COUNT_HEADER: Final = "x-retry-count"
DELIVER_AT: Final = "x-deliver-at"

MIN_DELAY_MS: Final = 1_000
MAX_DELAY_MS: Final = 600_000
MULTIPLIER: Final = 2.0
JITTER: Final = 0.1


class Retry(NamedTuple):
    """How often and after how long rejected messages come back.

    Attributes:
        times_max: how often.
        multiplier: how many times longer a message waits each time.
        jitter: by which share of it a delay is longer at most, by chance.
    """

    times_max: int
    min_ms: float
    max_ms: float
    multiplier: float
    jitter: float

    def delay_ms(self, times: int, chance: float) -> int:
        """How long a message waits that has come back so many times.

        Args:
            chance: a random number from 0 to 1.
        """
        # A large power is no number any more; the limit is reached long before.
        grown = self.min_ms * self.multiplier ** min(times, 64)
        return round(min(grown, self.max_ms) * (1 + self.jitter * chance))


class DelayedRetry(NamedTuple):
    """How long deliveries of a quorum queue wait that are put back.

    Attributes:
        failed: those wait that could not be done: basic.reject, and what a channel leaves behind.
        returned: those wait that were given back: basic.nack and basic.recover.

    Source: RabbitMQ 4.3, "Quorum Queues", delayed retries.
    """

    min_ms: int
    max_ms: int
    failed: bool
    returned: bool

    def applies(self, *, failed: bool) -> bool:
        """Whether a delivery waits."""
        return self.failed if failed else self.returned

    def delay_ms(self, times: int) -> int:
        """How long a message waits that has come back so many times."""
        return min(self.min_ms * max(times, 1), self.max_ms)


def delayed_retry(effective: Mapping[str, Any]) -> DelayedRetry | None:
    """What arguments say of what is put back; None if it does not wait."""
    kind = effective.get("delayed-retry-type", "disabled")
    if kind == "disabled":
        return None
    least = effective.get("delayed-retry-min", MIN_DELAY_MS)
    return DelayedRetry(
        least,
        max(least, effective.get("delayed-retry-max", MAX_DELAY_MS)),
        failed=kind in ("all", "failed"),
        returned=kind in ("all", "returned"),
    )


def retry(effective: Mapping[str, Any]) -> Retry | None:
    """What arguments say of retries; None if they want none."""
    times_max = effective.get("retry-max")
    if not times_max:
        return None
    most = effective.get("retry-max-delay", MAX_DELAY_MS)
    least = effective.get("retry-min-delay", min(MIN_DELAY_MS, most))
    return Retry(
        times_max,
        least,
        max(least, most),
        effective.get("retry-multiplier", MULTIPLIER),
        effective.get("retry-jitter", JITTER),
    )


def times_retried(message: Message) -> int:
    """How often a message has come back to its queue, as the broker has noted in its headers."""
    if not message[ENVELOPE].past & WAS_PUT_OFF:
        return 0
    count = content.headers(message[HEADER]).values.get(COUNT_HEADER, 0)
    return count if isinstance(count, int) else 0


def counted(message: Message, times: int) -> Message:
    """The message with its count."""
    envelope, header, body, persistent = message
    if content.flags(header) & content.HEADERS:
        header = content.without_header_entry(header, DELIVERIES)  # it is counted anew
    entry = fields.long(COUNT_HEADER, times)
    return envelope, content.with_header_entry(header, COUNT_HEADER, entry), body, persistent


def wanted_delay_ms(message: Message, now_ms: int) -> int:
    """How long a publisher wants the message to wait: `x-delay` in milliseconds, or `x-deliver-at`,
    milliseconds since 1970 or a timestamp; 0 if neither says so."""
    if not content.flags(message[HEADER]) & content.HEADERS:
        return 0
    headers = content.headers(message[HEADER])
    at = headers.values.get(DELIVER_AT)
    if at is None:
        return max(0, delay_ms(message))
    if headers.types[DELIVER_AT] == b"T":
        at = seconds_of(headers, DELIVER_AT) * 1000
    if isinstance(at, float) and isfinite(at):
        at = round(at)
    return max(0, at - now_ms) if type(at) is int else 0


def as_released(message: Message) -> Message:
    """The message as it is when it has waited: a delay is negative then."""
    envelope, header, body, persistent = message
    if DELAY in content.headers(header).values and delay_ms(message) > 0:
        header = released(header)
    return envelope, header, body, persistent

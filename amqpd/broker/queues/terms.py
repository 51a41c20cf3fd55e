"""What a queue does with its messages by itself: time limits, length limits, dead letters.

The terms come from the arguments of its declaration and from policies; see `policies.py` for how
the two are merged.

Source: RabbitMQ, "Time-To-Live and Expiration", "Queue Length Limit", "Dead Letter Exchanges", and
"Quorum Queues", poison message handling.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from amqpd.broker.queues.retention import FOR_EVER, Retention, retention
from amqpd.broker.queues.retry import DelayedRetry, Retry, delayed_retry, retry

DROP_HEAD: Final = "drop-head"
REJECT_PUBLISH: Final = "reject-publish"
REJECT_PUBLISH_DLX: Final = "reject-publish-dlx"

QUORUM_DELIVERY_LIMIT: Final = 20


class Terms(NamedTuple):
    """The terms of one queue.

    Attributes:
        ttl_s: how long a message may stay; None for ever.
        expires_s: how long the queue may be unused; None for ever.
        length_max: how many messages may be ready; None for any number.
        bytes_max: how many bytes their bodies may have; None for any number.
        overflow: what happens beyond: `drop-head`, `reject-publish` or `reject-publish-dlx`.
        dead_letter_exchange: where messages go that are rejected, expired or dropped; None for
            nowhere, "" for the default exchange.
        dead_letter_routing_key: with which routing key; None for those that they came with.
        at_least_once: dead letters are kept until they have arrived.
        deduplicates: a message with a key that is known does not come in.
        keys_stay: a key is known also when its message has gone.
        counts_deliveries: a message that comes back says how often it did.
        delivery_limit: how often a message may come back; None for any number.
        delays: publishers may say when a message is to be delivered.
        retry: how rejected messages come back; None if they do not.
        delayed_retry: how what is put back waits; None if it does not.
        ack_timeout_s: how long a delivery may be unsettled before it goes back; None if the queue
            does not say it.
        rate_max: how many messages a second consumers get; None for any number.
        unacked_max: how many may be unacknowledged; None for any number.
        retention: how much of it stays, if it is a stream.
        consumer_timeout_s: how long a delivery may be unsettled, 0 for ever; None if the queue does
            not say it.
    """

    ttl_s: float | None = None
    expires_s: float | None = None
    length_max: int | None = None
    bytes_max: int | None = None
    overflow: str = DROP_HEAD
    dead_letter_exchange: str | None = None
    dead_letter_routing_key: str | None = None
    at_least_once: bool = False
    deduplicates: bool = False
    keys_stay: bool = False
    counts_deliveries: bool = False
    delivery_limit: int | None = None
    delays: bool = False
    retry: Retry | None = None
    delayed_retry: DelayedRetry | None = None
    ack_timeout_s: float | None = None
    rate_max: float | None = None
    unacked_max: int | None = None
    retention: Retention = FOR_EVER
    consumer_timeout_s: float | None = None

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit to what may be ready."""
        return self.length_max is not None or self.bytes_max is not None

    @property
    def refuses(self) -> bool:
        """Whether a message may be refused to its publisher."""
        return self.is_limited and self.overflow != DROP_HEAD

    def is_beyond(self, length: int, size: int) -> bool:
        """Whether so many messages, whose bodies have `size` bytes, are more than may be ready."""
        too_many = self.length_max is not None and length > self.length_max
        return too_many or (self.bytes_max is not None and size > self.bytes_max)

    def excess(self, ready: int, size: int) -> int:
        """How many of the messages that go first are to be dropped; more may be."""
        if self.overflow != DROP_HEAD:
            return 0
        if self.length_max is not None and ready > self.length_max:
            return ready - self.length_max
        return int(self.bytes_max is not None and size > self.bytes_max and ready > 0)

    @property
    def looks_at_each(self) -> bool:
        """Whether each message that comes has to be looked at."""
        return self.refuses or self.deduplicates


NO_TERMS: Final = Terms()


def terms(effective: Mapping[str, Any], queue_type: str) -> Terms:
    """The terms that a queue has.

    Args:
        effective: arguments of queues without their `x-`, which is what policies call them.
    """
    if queue_type == "stream":
        return Terms(retention=retention(effective))
    limit = effective.get("delivery-limit")
    if type(limit) is not int:  # RabbitMQ takes what is no number, and the default then
        limit = QUORUM_DELIVERY_LIMIT if queue_type == "quorum" else -1
    return Terms(
        ttl_s=_seconds(effective.get("message-ttl")),
        expires_s=_seconds(effective.get("expires")),
        length_max=effective.get("max-length"),
        bytes_max=effective.get("max-length-bytes"),
        overflow=effective.get("overflow", DROP_HEAD),
        dead_letter_exchange=effective.get("dead-letter-exchange"),
        dead_letter_routing_key=effective.get("dead-letter-routing-key"),
        at_least_once=queue_type == "quorum" and _keeps_letters(effective),
        deduplicates=effective.get("message-deduplication") is True,
        keys_stay="cache-size" in effective or "cache-ttl" in effective,
        counts_deliveries=queue_type == "quorum" or limit >= 0,
        delivery_limit=limit if limit >= 0 else None,
        delays=effective.get("delayed") is True,
        retry=retry(effective),
        delayed_retry=delayed_retry(effective),
        ack_timeout_s=_seconds(effective.get("ack-timeout")),
        rate_max=effective.get("max-rate"),
        unacked_max=effective.get("max-unacked"),
        consumer_timeout_s=_seconds(effective.get("consumer-timeout")),
    )


def _keeps_letters(effective: Mapping[str, Any]) -> bool:
    """Only where the queue refuses publishers when it is full, as in RabbitMQ."""
    return (
        effective.get("dead-letter-strategy") == "at-least-once"
        and effective.get("overflow") == REJECT_PUBLISH
    )


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000

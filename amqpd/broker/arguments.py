"""The arguments of queue.declare as a table: what they may be, and when two declarations agree.

Texts and order as in RabbitMQ: `invalid arg 'x' for queue 'q' in vhost '/': {why,value}`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from amqpd import errors
from amqpd.broker.vhost import Vhost
from amqpd.wire.arguments import Arguments
from amqpd.wire.tables import INTEGER_TYPES, TYPE_NAMES

Values = dict[str, Any]
Check = Callable[[Any, Values], str | None]

STRING_TYPES = frozenset((b"S",))
BOOLEAN_TYPES = frozenset((b"t",))
EXPIRY_MS_MAX = 315_360_000_000  # ten years
PRIORITY_MAX = 255
QUEUE_TYPES = ("classic", "quorum", "stream")


class Argument(NamedTuple):
    """One known argument: the field types it may have, and what is wrong with a value, if so.

    `kinds` are the queue types that know it; another type of queue refuses it.
    """

    types: frozenset[bytes]
    check: Check
    kinds: tuple[str, ...] = QUEUE_TYPES


def _anything(value: Any, arguments: Values) -> str | None:
    return None


def _not_negative(value: int, arguments: Values) -> str | None:
    return f"{{value_negative,{value}}}" if value < 0 else None


def _expiry(value: int, arguments: Values) -> str | None:
    if value > EXPIRY_MS_MAX:
        return f"{{value_too_big,{value}}}"
    return _not_negative(value, arguments)


def _positive_expiry(value: int, arguments: Values) -> str | None:
    return "{value_zero,0}" if value == 0 else _expiry(value, arguments)


def _priority(value: int, arguments: Values) -> str | None:
    if value > PRIORITY_MAX:
        return f"{{max_value_exceeded,{value}}}"
    return _not_negative(value, arguments)


def _routing_key(value: str, arguments: Values) -> str | None:
    return None if "x-dead-letter-exchange" in arguments else "routing_key_but_no_dlx"


def _queue_type(value: str, arguments: Values) -> str | None:
    return None if value in QUEUE_TYPES else f"\"unsupported queue type '{value}'\""


def _one_of(why: str, *allowed: str) -> Check:
    def check(value: Any, arguments: Values) -> str | None:
        return None if value in allowed else why

    return check


_CLASSIC_QUORUM = ("classic", "quorum")
TABLE: dict[str, Argument] = {
    "x-expires": Argument(INTEGER_TYPES, _positive_expiry, _CLASSIC_QUORUM),
    "x-message-ttl": Argument(INTEGER_TYPES, _expiry, _CLASSIC_QUORUM),
    "x-dead-letter-exchange": Argument(STRING_TYPES, _anything, _CLASSIC_QUORUM),
    "x-dead-letter-routing-key": Argument(STRING_TYPES, _routing_key, _CLASSIC_QUORUM),
    "x-dead-letter-strategy": Argument(
        STRING_TYPES, _one_of("invalid_dlx_strategy", "at-most-once", "at-least-once"), ("quorum",)
    ),
    "x-max-length": Argument(INTEGER_TYPES, _not_negative, _CLASSIC_QUORUM),
    "x-max-length-bytes": Argument(INTEGER_TYPES, _not_negative),
    "x-max-in-memory-length": Argument(INTEGER_TYPES, _not_negative, ("quorum",)),
    "x-max-in-memory-bytes": Argument(INTEGER_TYPES, _not_negative, ("quorum",)),
    "x-max-priority": Argument(INTEGER_TYPES, _priority, ("classic",)),
    "x-overflow": Argument(
        STRING_TYPES,
        _one_of("invalid_overflow", "drop-head", "reject-publish", "reject-publish-dlx"),
        _CLASSIC_QUORUM,
    ),
    "x-queue-mode": Argument(
        STRING_TYPES, _one_of("invalid_queue_mode", "default", "lazy"), ("classic",)
    ),
    "x-queue-version": Argument(INTEGER_TYPES, _anything, ("classic",)),
    "x-single-active-consumer": Argument(BOOLEAN_TYPES, _anything, _CLASSIC_QUORUM),
    "x-queue-type": Argument(STRING_TYPES, _queue_type),
    "x-queue-master-locator": Argument(STRING_TYPES, _anything, ("classic",)),
    "x-queue-leader-locator": Argument(STRING_TYPES, _anything),
    "x-delivery-limit": Argument(INTEGER_TYPES, _anything, ("quorum",)),
    "x-quorum-initial-group-size": Argument(INTEGER_TYPES, _not_negative, ("quorum",)),
    "x-initial-cluster-size": Argument(INTEGER_TYPES, _not_negative, ("stream",)),
    "x-max-age": Argument(STRING_TYPES, _anything, ("stream",)),
    "x-stream-max-segment-size-bytes": Argument(INTEGER_TYPES, _not_negative, ("stream",)),
    "x-stream-filter-size-bytes": Argument(INTEGER_TYPES, _not_negative, ("stream",)),
    "x-consumer-timeout": Argument(INTEGER_TYPES, _not_negative, ("quorum",)),
}


def queue_type(arguments: Arguments) -> str:
    """The value of `x-queue-type`; classic if it is not there."""
    value = arguments.values.get("x-queue-type", "classic")
    return value if isinstance(value, str) else "classic"


def check(vhost: Vhost, queue: str, arguments: Arguments) -> None:
    """Refuses arguments that are not what they may be; unknown ones pass.

    Raises:
        ChannelException: 406.
    """
    words = vhost.words("queue", queue)
    values, types = arguments.values, arguments.types
    for name, known in TABLE.items():
        if name not in values:
            continue
        if types[name] not in known.types:
            why: str | None = f"{{unacceptable_type,{TYPE_NAMES[types[name]]}}}"
        else:
            why = known.check(values[name], values)
        if why is not None:
            raise errors.precondition_failed(f"invalid arg '{name}' for {words}: {why}")
    kind = queue_type(arguments)
    for name in values:
        known_here = TABLE.get(name)
        if known_here is not None and kind not in known_here.kinds:
            raise errors.precondition_failed(
                f"invalid arg '{name}' for {words} of queue type {kind}"
            )


def check_equal(vhost: Vhost, queue: str, received: Arguments, current: Arguments) -> None:
    """Refuses a redeclaration whose known arguments differ from the first one's.

    Raises:
        ChannelException: 406.
    """
    for name in TABLE:
        vhost.check_equal_argument("queue", queue, name, received, current)

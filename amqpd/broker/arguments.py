"""The arguments of queue.declare as a table: what they may be, and when two declarations agree.

Texts and order as in RabbitMQ: `invalid arg 'x' for queue 'q' in vhost '/': {why,value}`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nextafter
from typing import TYPE_CHECKING, Any, NamedTuple

from amqpd import errors
from amqpd.broker.duplicates import SIZE, SIZE_MAX, TTL
from amqpd.broker.queues.retention import AGE
from amqpd.wire.arguments import Arguments
from amqpd.wire.tables import INTEGER_TYPES, TYPE_NAMES

if TYPE_CHECKING:
    from amqpd.broker.vhost import Vhost

Values = dict[str, Any]
Check = Callable[[Any, Values], str | None]

STRING_TYPES = frozenset((b"S",))
BOOLEAN_TYPES = frozenset((b"t",))
NUMBER_TYPES = INTEGER_TYPES | {b"f", b"d", b"D"}
ANY_TYPES = frozenset(TYPE_NAMES)
OLD_LOCATORS = ("least-leaders", "random")
EXPIRY_MS_MAX = 315_360_000_000  # ten years
PRIORITY_MAX = 255
SEGMENT_SIZE = "x-stream-max-segment-size-bytes"
SEGMENT_BYTES_MAX = 3_000_000_000
FILTER_SIZE = "x-stream-filter-size-bytes"
DELAYED_RETRIES = ("disabled", "all", "failed", "returned")
AT_LEAST_ONE = "a whole number, 1 or more"
MILLISECONDS = "a whole number of milliseconds, 1 or more"
QUEUE_TYPES = ("classic", "quorum", "stream")


class Argument(NamedTuple):
    """One known argument: the field types it may have, and what is wrong with a value, if so.

    `kinds` are the queue types that know it; another type of queue refuses it. `words` say what one
    may be that RabbitMQ does not have.
    """

    types: frozenset[bytes]
    check: Check
    kinds: tuple[str, ...] = QUEUE_TYPES
    words: str = ""


def _anything(value: Any, arguments: Values) -> str | None:
    return None


def _not_negative(value: int, arguments: Values) -> str | None:
    return f"{{value_negative,{value}}}" if value < 0 else None


def _positive(value: int, arguments: Values) -> str | None:
    return "{value_zero,0}" if value == 0 else _not_negative(value, arguments)


def _expiry(value: int, arguments: Values) -> str | None:
    if value > EXPIRY_MS_MAX:
        return f"{{value_too_large,{value}}}"
    return _not_negative(value, arguments)


def _positive_expiry(value: int, arguments: Values) -> str | None:
    return "{value_zero,0}" if value == 0 else _expiry(value, arguments)


def _priority(value: int, arguments: Values) -> str | None:
    if value > PRIORITY_MAX:
        return f"{{max_value_exceeded,{value}}}"
    return _not_negative(value, arguments)


def _routing_key(value: str, arguments: Values) -> str | None:
    return None if "x-dead-letter-exchange" in arguments else "routing_key_but_no_dlx_defined"


def _age(value: str, arguments: Values) -> str | None:
    return None if AGE.fullmatch(value) else "invalid_max_age"


def _version(value: int, arguments: Values) -> str | None:
    if value in (1, 2):
        return None
    return _not_negative(value, arguments) or f"\"unsupported queue version '{value}'\""


def _without_retention(value: int, arguments: Values) -> str | None:
    for other in ("x-max-age", "x-max-length-bytes"):
        if other in arguments:
            return f'"it goes with no {other}"'
    return _between(1, inf, AT_LEAST_ONE)(value, arguments)


def _no_priorities(value: bool, arguments: Values) -> str | None:
    mixed = value and arguments.get("x-max-priority")
    return '"groups keep their order and go with no x-max-priority"' if mixed else None


def _limit(value: Any, arguments: Values) -> str | None:
    """What is no number means the default of quorum queues, as in RabbitMQ; others have none."""
    if type(value) is int or arguments.get("x-queue-type") == "quorum":
        return None
    return f'"expected a number, got {value!r}"'


def _between(least: float, most: float, words: str) -> Check:
    def check(value: Any, arguments: Values) -> str | None:
        fits = least <= value <= most and value != inf
        return None if fits else f'"expected {words}, got {value}"'

    return check


def _max_delay(value: int, arguments: Values) -> str | None:
    least = arguments.get("x-retry-min-delay", 1)
    if isinstance(least, int) and 1 <= value < least:
        return f'"expected no less than x-retry-min-delay, got {value}"'
    return _between(1, inf, MILLISECONDS)(value, arguments)


def _one_of(why: str, *allowed: str) -> Check:
    """`why` may name the value as {}."""

    def check(value: Any, arguments: Values) -> str | None:
        return None if value in allowed else why.format(value)

    return check


def _switch(check: Check = _anything, kinds: tuple[str, ...] = ("classic", "quorum")) -> Argument:
    return Argument(BOOLEAN_TYPES, check, kinds, "true or false")


def _number(
    words: str, least: float, most: float = inf, types: frozenset[bytes] = INTEGER_TYPES
) -> Argument:
    return Argument(types, _between(least, most, words), ("classic", "quorum"), words)


_CLASSIC = ("classic",)
_QUORUM = ("quorum",)
_STREAM = ("stream",)
_CLASSIC_QUORUM = ("classic", "quorum")
TABLE: dict[str, Argument] = {
    "x-expires": Argument(INTEGER_TYPES, _positive_expiry, _CLASSIC_QUORUM),
    "x-message-ttl": Argument(INTEGER_TYPES, _expiry, _CLASSIC_QUORUM),
    "x-dead-letter-exchange": Argument(STRING_TYPES, _anything, _CLASSIC_QUORUM),
    "x-dead-letter-routing-key": Argument(STRING_TYPES, _routing_key, _CLASSIC_QUORUM),
    "x-dead-letter-strategy": Argument(
        STRING_TYPES, _one_of("invalid_dlx_strategy", "at-most-once", "at-least-once"), _QUORUM
    ),
    "x-max-length": Argument(INTEGER_TYPES, _not_negative, _CLASSIC_QUORUM),
    "x-max-length-bytes": Argument(INTEGER_TYPES, _not_negative),
    "x-max-in-memory-length": Argument(INTEGER_TYPES, _not_negative, _QUORUM),
    "x-max-in-memory-bytes": Argument(INTEGER_TYPES, _not_negative, _QUORUM),
    "x-max-priority": Argument(INTEGER_TYPES, _priority, _CLASSIC),
    "x-overflow": Argument(
        STRING_TYPES,
        _one_of("invalid_overflow", "drop-head", "reject-publish", "reject-publish-dlx"),
        _CLASSIC_QUORUM,
    ),
    "x-queue-mode": Argument(
        STRING_TYPES, _one_of("\"unsupported queue mode '{}'\"", "default", "lazy"), _CLASSIC
    ),
    "x-queue-version": Argument(INTEGER_TYPES, _version, _CLASSIC),
    "x-single-active-consumer": Argument(BOOLEAN_TYPES, _anything),
    "x-queue-type": Argument(
        STRING_TYPES, _one_of("\"unsupported queue type '{}'\"", *QUEUE_TYPES)
    ),
    "x-queue-master-locator": Argument(ANY_TYPES, _anything, _CLASSIC),
    "x-queue-leader-locator": Argument(
        STRING_TYPES,
        _one_of("invalid_queue_locator_arg", "client-local", "balanced", *OLD_LOCATORS),
    ),
    "x-delayed": _switch(),
    "x-retry-max": _number("a whole number, 0 or more", 0),
    "x-retry-min-delay": _number(MILLISECONDS, 1),
    "x-retry-max-delay": Argument(INTEGER_TYPES, _max_delay, _CLASSIC_QUORUM, MILLISECONDS),
    "x-retry-multiplier": _number("a number from 1 to 100", 1, 100, NUMBER_TYPES),
    "x-retry-jitter": _number("a number from 0 to 1", 0, 1, NUMBER_TYPES),
    "x-ack-timeout": _number(MILLISECONDS, 1),
    "x-message-groups": _switch(_no_priorities, _CLASSIC),
    "x-message-deduplication": _switch(),
    SIZE: _number(f"a whole number from 1 to {SIZE_MAX}", 1, SIZE_MAX),
    TTL: _number(MILLISECONDS, 1),
    "x-max-rate": _number("a number above 0", nextafter(0, 1), inf, NUMBER_TYPES),
    "x-max-unacked": _number(AT_LEAST_ONE, 1),
    "x-consumer-timeout": Argument(INTEGER_TYPES, _not_negative, _CLASSIC_QUORUM),
    "x-delivery-limit": Argument(ANY_TYPES, _limit, _CLASSIC_QUORUM),
    "x-delayed-retry-type": Argument(
        STRING_TYPES, _one_of("invalid_delayed_retry_type", *DELAYED_RETRIES), _QUORUM
    ),
    "x-delayed-retry-min": Argument(INTEGER_TYPES, _positive, _QUORUM),
    "x-delayed-retry-max": Argument(INTEGER_TYPES, _positive, _QUORUM),
    "x-quorum-initial-group-size": Argument(INTEGER_TYPES, _positive, _QUORUM),
    "x-max-length-per-key": Argument(INTEGER_TYPES, _without_retention, _STREAM, AT_LEAST_ONE),
    "x-initial-cluster-size": Argument(INTEGER_TYPES, _positive, _STREAM),
    "x-max-age": Argument(STRING_TYPES, _age, _STREAM),
    SEGMENT_SIZE: Argument(INTEGER_TYPES, _not_negative, _STREAM),
    FILTER_SIZE: Argument(INTEGER_TYPES, _not_negative, _STREAM),
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
    values = arguments.values
    for name in TABLE:
        if name in values and (why := problem(name, arguments)) is not None:
            raise errors.precondition_failed(f"invalid arg '{name}' for {words}: {why}")
    kind = queue_type(arguments)
    for name in values:
        known_here = TABLE.get(name)
        if known_here is not None and kind not in known_here.kinds:
            raise errors.precondition_failed(
                f"invalid arg '{name}' for {words} of queue type rabbit_{kind}_queue"
            )
    _check_sizes(values)


def problem(name: str, arguments: Arguments) -> str | None:
    """What is wrong with an argument that is there; None if nothing is."""
    known, kind = TABLE[name], arguments.types[name]
    if kind not in known.types:
        return _unacceptable(known, kind)
    return known.check(arguments.values[name], arguments.values)


def _check_sizes(values: Values) -> None:
    """RabbitMQ looks at these last, and has texts of their own for them."""
    if values.get(SEGMENT_SIZE, 0) > SEGMENT_BYTES_MAX:
        raise errors.precondition_failed(f"Exceeded max value for {SEGMENT_SIZE}")
    if not 16 <= values.get(FILTER_SIZE, 16) <= 255:
        raise errors.precondition_failed(f"Invalid value for  {FILTER_SIZE}")


def check_equal(vhost: Vhost, queue: str, received: Arguments, current: Arguments) -> None:
    """Refuses a redeclaration whose known arguments differ from the first one's.

    Raises:
        ChannelException: 406.
    """
    for name in TABLE:
        vhost.check_equal_argument("queue", queue, name, received, current)


def _unacceptable(known: Argument, kind: bytes) -> str:
    if known.words:
        return f'"expected {known.words}, got {TYPE_NAMES[kind]}"'
    if known.types is INTEGER_TYPES:
        return f'"expected integer, got {TYPE_NAMES[kind]}"'
    return f"{{unacceptable_type,{TYPE_NAMES[kind]}}}"

"""Policies: what queues and exchanges get whose names match a pattern.

One policy and one operator policy count for each of them, those with the highest priority. What the
two say together is merged into what its declaration said.

Source: RabbitMQ, "Policies" and "Operator Policies".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from amqpd.broker.queues.retention import AGE, age_ms
from amqpd.config import settings as config

if TYPE_CHECKING:
    from amqpd.broker.exchanges.exchange import Exchange
    from amqpd.broker.queues.queue import Queue

Value = Any
Effective = dict[str, Value]


class PolicyError(ValueError):
    """A policy that cannot be; the text says why."""


class Policy(NamedTuple):
    """A policy of one vhost.

    Attributes:
        pattern: searched for in names.
        apply_to: `all`, `queues`, `exchanges`, `classic_queues`, `quorum_queues` or `streams`.
        definition: values by the names of arguments without `x-`.
    """

    name: str
    pattern: re.Pattern[str]
    apply_to: str
    priority: int
    definition: Mapping[str, Value]


class Key(NamedTuple):
    """What may stand in a definition.

    Attributes:
        is_possible: whether a value is.
        what: what it has to be, as in `is not a valid ...`.
        lesser: of two numbers the smaller counts; else the declaration's value counts before the
            policy's.
        by_operator: an operator policy may say it.
        operator_wins: its value counts before the policy's.
    """

    is_possible: Callable[[Value], bool]
    what: str
    lesser: bool = False
    by_operator: bool = False
    operator_wins: bool = False


def _is_integer(value: Value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Value) -> bool:
    return _is_integer(value) or (isinstance(value, float) and isfinite(value))


def _is_natural(value: Value) -> bool:
    return _is_integer(value) and value >= 0


def _is_positive(value: Value) -> bool:
    return _is_integer(value) and value > 0


def _is_text(value: Value) -> bool:
    return isinstance(value, str)


def _is_age(value: Value) -> bool:
    return isinstance(value, str) and AGE.fullmatch(value) is not None


def _one_of(*values: str) -> Callable[[Value], bool]:
    return lambda value: value in values


_NUMBER: Final = {"lesser": True, "by_operator": True}
_MODES: Final = ("drop-head", "reject-publish", "reject-publish-dlx")
_QUORUM_KEYS: Final = frozenset(
    ("delayed-retry-max", "delayed-retry-min", "delayed-retry-type", "delivery-limit")
)
KEYS: Final[dict[str, Key]] = {
    "ack-timeout": Key(_is_positive, "time in milliseconds", lesser=True),
    "alternate-exchange": Key(_is_text, "alternate exchange name"),
    "consumer-timeout": Key(_is_natural, "consumer timeout", lesser=True),
    "dead-letter-exchange": Key(_is_text, "dead letter exchange name"),
    "dead-letter-routing-key": Key(_is_text, "dead letter routing key"),
    "dead-letter-strategy": Key(_one_of("at-most-once", "at-least-once"), "dead letter strategy"),
    "delayed-retry-max": Key(_is_positive, "delay in milliseconds"),
    "delayed-retry-min": Key(_is_positive, "delay in milliseconds"),
    "delayed-retry-type": Key(
        _one_of("disabled", "all", "failed", "returned"), "delayed retry type"
    ),
    "delivery-limit": Key(_is_integer, "delivery limit", **_NUMBER),
    "expires": Key(_is_positive, "queue expiry", **_NUMBER),
    "max-age": Key(_is_age, "max age", lesser=True),
    "max-length": Key(_is_natural, "maximum length", **_NUMBER),
    "max-length-bytes": Key(_is_natural, "maximum length in bytes", **_NUMBER),
    "max-rate": Key(lambda value: _is_number(value) and value > 0, "rate", lesser=True),
    "max-unacked": Key(_is_positive, "number of messages", lesser=True),
    "message-ttl": Key(_is_natural, "message TTL", **_NUMBER),
    "overflow": Key(_one_of(*_MODES), "overflow value", by_operator=True, operator_wins=True),
    "queue-leader-locator": Key(_one_of("client-local", "balanced"), "queue leader locator"),
    "queue-version": Key(
        lambda value: value in (1, 2), "queue version", by_operator=True, operator_wins=True
    ),
    "retry-jitter": Key(lambda value: _is_number(value) and 0 <= value <= 1, "share of a delay"),
    "retry-max": Key(_is_natural, "number of retries", lesser=True),
    "retry-max-delay": Key(_is_positive, "delay in milliseconds"),
    "retry-min-delay": Key(_is_positive, "delay in milliseconds"),
    "retry-multiplier": Key(
        lambda value: _is_number(value) and 1 <= value <= 100, "multiplier from 1 to 100"
    ),
    "stream-filter-size-bytes": Key(
        lambda value: _is_integer(value) and 16 <= value <= 255, "filter size"
    ),
    "stream-max-segment-size-bytes": Key(_is_natural, "segment size", lesser=True),
    "target-group-size": Key(_is_positive, "group size"),
}


def policy(
    name: str,
    pattern: str,
    definition: Mapping[str, Value],
    *,
    apply_to: str = "all",
    priority: int = 0,
    by_operator: bool = False,
) -> Policy:
    """A policy; raises PolicyError if it cannot be."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise PolicyError(f"pattern {pattern!r} is no regular expression: {error}") from None
    if not definition:
        raise PolicyError("its definition is empty")
    known = {key for key, each in KEYS.items() if each.by_operator or not by_operator}
    unknown = sorted(definition.keys() - known)
    if unknown:
        raise PolicyError(
            f"{', '.join(unknown)} in its definition is unknown; there are "
            f"{', '.join(sorted(known))}"
        )
    for key, value in definition.items():
        if not KEYS[key].is_possible(value):
            raise PolicyError(f"{key} = {value!r} is not a valid {KEYS[key].what}")
    return Policy(name, compiled, apply_to, priority, dict(definition))


def configured_policy(entry: config.Policy, *, by_operator: bool) -> Policy:
    """A policy of the configuration; raises PolicyError if it cannot be."""
    return policy(
        entry.name,
        entry.pattern,
        entry.definition,
        apply_to=entry.apply_to,
        priority=entry.priority,
        by_operator=by_operator,
    )


def problems(configured: config.Config) -> list[str]:
    """What is wrong with the policies of a configuration, a line for each that is."""
    found: list[str] = []
    for name, entries, by_operator in (
        ("policies", configured.policies, False),
        ("operator_policies", configured.operator_policies, True),
    ):
        for entry in entries:
            try:
                configured_policy(entry, by_operator=by_operator)
            except PolicyError as error:
                found.append(f"[[{name}]] {entry.name!r} is not possible: {error}")
    return found


class Policies:
    """The policies of one vhost, or its operator policies."""

    def __init__(self) -> None:
        self.by_name: dict[str, Policy] = {}

    def matching(self, resource: Queue | Exchange) -> Policy | None:
        """The one that counts for a queue or an exchange."""
        found = [
            each
            for each in self.by_name.values()
            if _applies(each.apply_to, resource) and each.pattern.search(resource.name)
        ]
        return max(found, key=lambda each: (each.priority, each.name), default=None)


def _applies(apply_to: str, resource: Queue | Exchange) -> bool:
    kind = f"{resource.kind}s"
    if apply_to in ("all", kind):
        return True
    return kind == "queues" and apply_to == _KINDS.get(getattr(resource, "type", ""))


_KINDS: Final = {"classic": "classic_queues", "quorum": "quorum_queues", "stream": "streams"}


def merged(policy: Policy | None, operator: Policy | None) -> Effective:
    """What a policy and an operator policy say together."""
    found = dict(policy.definition) if policy else {}
    for key, value in (operator.definition if operator else {}).items():
        if key in found and KEYS[key].lesser:
            found[key] = _lesser(key, found[key], value)
        elif key not in found or KEYS[key].operator_wins:
            found[key] = value
    return found


def with_declared(effective: Effective, declared: Mapping[str, Value]) -> Effective:
    """What policies say, merged into what the declaration said.

    Args:
        declared: arguments by their names without `x-`.
    """
    found = {**effective, **declared}
    for key in effective.keys() & declared.keys():
        if KEYS[key].lesser:
            found[key] = _lesser(key, effective[key], declared[key])
    return found


def queue_terms(effective: Effective, declared: Mapping[str, Value], queue_type: str) -> Effective:
    """What policies and the declaration of a queue say.

    Policies for all queues may say things that count for quorum queues alone; and what those do
    when they are full, a policy says before the declaration, as in RabbitMQ.
    """
    if queue_type == "quorum":
        policy_wins = {key: effective[key] for key in ("overflow",) if key in effective}
        return with_declared(effective, {**declared, **policy_wins})
    for_all = {key: value for key, value in effective.items() if key not in _QUORUM_KEYS}
    return with_declared(for_all, declared)


def _lesser(key: str, one: Value, other: Value) -> Value:
    if key == "max-age":
        return min(one, other, key=age_ms)
    if not (_is_number(one) and _is_number(other)):
        return other
    if key == "delivery-limit" and min(one, other) < 0:  # which is no limit
        return max(one, other)
    return min(one, other)

"""The exchange types by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from amqpd import errors
from amqpd.broker.exchanges.deduplication import DEDUPLICATION, Deduplication, check_window
from amqpd.broker.exchanges.delayed import (
    DELAYED_MESSAGE,
    TYPE,
    Delayed,
    cannot_be,
    check_delayed_type,
)
from amqpd.broker.exchanges.direct import Direct
from amqpd.broker.exchanges.exchange import Router
from amqpd.broker.exchanges.fanout import Fanout
from amqpd.broker.exchanges.headers import Headers
from amqpd.broker.exchanges.recent_history import RECENT_HISTORY, RecentHistory, check_length
from amqpd.broker.exchanges.spread import (
    ByChance,
    Chance,
    ConsistentHash,
    ModulusHash,
    check_hash_arguments,
)
from amqpd.broker.exchanges.super_stream import SUPER_STREAM, SuperStream, check_partitions
from amqpd.broker.exchanges.topic import Topic
from amqpd.wire.arguments import Arguments

TYPES: dict[str, Callable[[Arguments, Chance], Router]] = {
    DEDUPLICATION: lambda arguments, random: Deduplication(),
    DELAYED_MESSAGE: lambda arguments, random: Delayed(
        router(arguments.values[TYPE], arguments, random)
    ),
    "direct": lambda arguments, random: Direct(),
    "fanout": lambda arguments, random: Fanout(),
    "headers": lambda arguments, random: Headers(),
    "topic": lambda arguments, random: Topic(),
    "x-consistent-hash": lambda arguments, random: ConsistentHash(arguments),
    "x-local-random": lambda arguments, random: ByChance(random),
    "x-modulus-hash": lambda arguments, random: ModulusHash(),
    SUPER_STREAM: lambda arguments, random: SuperStream(),
    RECENT_HISTORY: lambda arguments, random: RecentHistory(arguments),
    "x-random": lambda arguments, random: ByChance(random),
}


# These remember messages, and are not only a way to find queues.
WITH_MEMORY: Final = (DELAYED_MESSAGE, DEDUPLICATION, RECENT_HISTORY)


def check_type(type_name: str) -> None:
    """Refuses a type that the broker does not have; ChannelException 406."""
    if not type_name:
        raise errors.precondition_failed("invalid exchange type ''")
    if type_name not in TYPES:
        raise errors.precondition_failed(f"unknown exchange type '{type_name}'")


def check_arguments(type_name: str, arguments: Arguments) -> None:
    """Refuses arguments that the type does not take; ChannelException 406."""
    if type_name == "x-consistent-hash":
        check_hash_arguments(arguments)
    if type_name == RECENT_HISTORY:
        check_length(arguments)
    if type_name == DEDUPLICATION:
        check_window(arguments)
    if type_name == SUPER_STREAM:
        check_partitions(arguments)
    if type_name == DELAYED_MESSAGE:
        other = check_delayed_type(arguments)
        if other in WITH_MEMORY:
            raise errors.precondition_failed(cannot_be(other))
        check_type(other)
        check_arguments(other, arguments)


def router(type_name: str, arguments: Arguments, random: Chance) -> Router:
    """A new router of the type, which the broker has."""
    return TYPES[type_name](arguments, random)

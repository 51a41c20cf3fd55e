"""Rules for declaring and deleting exchanges. Source: RabbitMQ, "Exchanges"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqpd import errors
from amqpd.broker.exchanges import registry
from amqpd.broker.exchanges.delayed import TYPE
from amqpd.broker.exchanges.exchange import Exchange
from amqpd.broker.exchanges.super_stream import PARTITIONS
from amqpd.broker.operations import ExchangeAdded
from amqpd.broker.permissions import Actor, check, check_any
from amqpd.broker.topology.deduplicating import start_deduplicating
from amqpd.broker.topology.delaying import start_delaying
from amqpd.broker.topology.names import cleaned
from amqpd.broker.topology.removal import remove_exchange
from amqpd.broker.topology.super_streams import (
    bind_partitions,
    check_durable,
    declare_partitions,
)
from amqpd.broker.vhost import RESERVED_PREFIX
from amqpd.wire.arguments import Arguments
from amqpd.wire.tables import TYPE_NAMES

if TYPE_CHECKING:
    from amqpd.broker.broker import Broker

ALTERNATE = "alternate-exchange"


def declare_exchange(
    broker: Broker,
    actor: Actor,
    name: str,
    type_name: str,
    *,
    durable: bool,
    auto_delete: bool,
    internal: bool,
    arguments: Arguments,
) -> Exchange:
    """The exchange, made if it does not exist.

    Raises:
        ChannelException: 403 without permission, for the default exchange and for new names with
            the reserved prefix; 406 for an unknown type and where it exists with other properties.
    """
    vhost, name = actor.vhost, cleaned(name)
    registry.check_type(type_name)
    check_not_default(name)
    check(actor, "configure", "exchange", name)
    exchange = vhost.exchanges.get(name)
    if exchange is None:
        vhost.check_name("exchange", name)
        _check_alternate(actor, name, arguments)
        registry.check_arguments(type_name, arguments)
        _check_limit(broker, actor, name)
        check_durable(actor, name, type_name, durable=durable)
        declare_partitions(broker, actor, name, type_name, arguments)
        exchange = Exchange(
            name,
            type_name,
            registry.router(type_name, arguments, broker.random),
            durable=durable,
            auto_delete=auto_delete,
            internal=internal,
            arguments=arguments,
        )
        vhost.exchanges[name] = exchange
        vhost.apply_policies(exchange)
        vhost.generation += 1
        if durable:
            broker.journal.append(
                ExchangeAdded(vhost.name, name, type_name, auto_delete, internal, arguments.encoded)
            )
        if broker.events is not None:
            broker.events.exchange_created(vhost, exchange, actor.user)
        start_delaying(broker, vhost, exchange)
        start_deduplicating(broker, vhost, exchange)
        bind_partitions(broker, actor, exchange)
        return exchange
    for what, received, current in (
        ("type", type_name, exchange.type_name),
        ("durable", durable, exchange.durable),
        ("auto_delete", auto_delete, exchange.auto_delete),
        ("internal", internal, exchange.internal),
    ):
        vhost.check_equal("exchange", name, what, received, current)
    for argument in (ALTERNATE, TYPE, PARTITIONS):
        vhost.check_equal_argument("exchange", name, argument, arguments, exchange.arguments)
    return exchange


def check_exchange_exists(actor: Actor, name: str) -> None:
    """A passive declare; raises ChannelException 403 or 404."""
    name = cleaned(name)
    check_not_default(name)
    check_any(actor, "exchange", name)
    actor.vhost.exchange(name)


def delete_exchange(broker: Broker, actor: Actor, name: str, *, if_unused: bool) -> None:
    """Deletes the exchange; one that does not exist is fine.

    Raises:
        ChannelException: 403 without permission and for predeclared exchanges, 406 if it is in use
            and must not be.
    """
    vhost, name = actor.vhost, cleaned(name)
    check_not_default(name)
    if name.startswith(RESERVED_PREFIX):
        raise errors.access_refused(
            f"deletion of system {vhost.words('exchange', name)} not allowed"
        )
    check(actor, "configure", "exchange", name)
    exchange = vhost.exchanges.get(name)
    if exchange is None:
        return
    if if_unused and exchange.bindings:
        raise errors.precondition_failed(f"{vhost.words('exchange', name)} in use")
    remove_exchange(broker, actor, exchange)


def check_not_default(name: str) -> None:
    """Refuses the default exchange; raises ChannelException 403."""
    if name == "":
        raise errors.access_refused("operation not permitted on the default exchange")


def _check_limit(broker: Broker, actor: Actor, name: str) -> None:
    most = broker.config.limits.exchanges_max
    if 0 < most <= sum(len(vhost.exchanges) for vhost in broker.vhosts.values()):
        raise errors.precondition_failed(
            f"cannot declare {actor.vhost.words('exchange', name)}: exchange limit of {most} is "
            "reached"
        )


def _check_alternate(actor: Actor, name: str, arguments: Arguments) -> None:
    if ALTERNATE not in arguments.values:
        return
    kind = arguments.types[ALTERNATE]
    if kind != b"S":
        raise errors.precondition_failed(
            f"invalid type '{TYPE_NAMES[kind]}' for arg '{ALTERNATE}' in "
            f"{actor.vhost.words('exchange', name)}"
        )
    check(actor, "read", "exchange", name)
    check(actor, "write", "exchange", arguments.values[ALTERNATE])

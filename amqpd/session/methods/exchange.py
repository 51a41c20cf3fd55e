"""Class exchange (40). The rules are `broker/topology/`'s."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqpd.broker.topology import bindings, exchanges
from amqpd.wire.arguments import method_arguments
from amqpd.wire.methods import Exchange

if TYPE_CHECKING:
    from amqpd.session.channel import Channel


def declare(channel: Channel, method: Exchange.Declare, payload: bytes) -> None:
    session = channel.session
    if method.passive:
        exchanges.check_exchange_exists(session.actor, method.exchange)
    else:
        exchanges.declare_exchange(
            session.broker,
            session.actor,
            method.exchange,
            method.exchange_type,
            durable=method.durable,
            auto_delete=method.auto_delete,
            internal=method.internal,
            arguments=method_arguments(payload),
        )
    if not method.nowait:
        channel.promise(Exchange.DeclareOk())


def delete(channel: Channel, method: Exchange.Delete, payload: bytes) -> None:
    session = channel.session
    exchanges.delete_exchange(
        session.broker, session.actor, method.exchange, if_unused=method.if_unused
    )
    if not method.nowait:
        channel.promise(Exchange.DeleteOk())


def bind(channel: Channel, method: Exchange.Bind, payload: bytes) -> None:
    bindings.bind(
        channel.session.broker,
        channel.session.actor,
        method.source,
        "exchange",
        method.destination,
        method.routing_key,
        method_arguments(payload),
    )
    if not method.nowait:
        channel.promise(Exchange.BindOk())


def unbind(channel: Channel, method: Exchange.Unbind, payload: bytes) -> None:
    bindings.unbind(
        channel.session.broker,
        channel.session.actor,
        method.source,
        "exchange",
        method.destination,
        method.routing_key,
        method_arguments(payload),
    )
    if not method.nowait:
        channel.promise(Exchange.UnbindOk())

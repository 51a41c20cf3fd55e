"""Rules for binding and unbinding queues and exchanges. Source: RabbitMQ, "Bindings"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqpd import errors
from amqpd.broker.exchanges.binding import Binding, Destination, identity
from amqpd.broker.exchanges.exchange import Exchange
from amqpd.broker.exchanges.headers import check_match_argument
from amqpd.broker.journal import Bound, Unbound
from amqpd.broker.permissions import Actor, check
from amqpd.broker.topology.names import cleaned
from amqpd.wire.arguments import Arguments

if TYPE_CHECKING:
    from amqpd.broker.broker import Broker


def bind(
    broker: Broker,
    actor: Actor,
    source: str,
    destination_kind: str,
    destination: str,
    key: str,
    arguments: Arguments,
) -> None:
    """Binds; a binding that exists is left as it is.

    Args:
        destination_kind: "queue" or "exchange".

    Raises:
        ChannelException: 403 without permission and for the default exchange, 404 if an end does
            not exist, 405 for another session's exclusive queue, 406 for arguments that the
            exchange does not take.
    """
    source, destination = _permitted(actor, source, destination_kind, destination)
    exchange, end = _ends(actor, source, destination_kind, destination)
    if exchange.router.uses_headers:
        check_match_argument(arguments)
    binding = Binding(exchange, end, key, arguments)
    if binding.identity in exchange.bindings:
        return
    exchange.bind(binding)
    actor.vhost.generation += 1
    if binding.durable:
        broker.journal.append(
            Bound(actor.vhost.name, exchange.name, end.kind, end.name, key, arguments.encoded)
        )


def unbind(
    broker: Broker,
    actor: Actor,
    source: str,
    destination_kind: str,
    destination: str,
    key: str,
    arguments: Arguments,
) -> None:
    """Removes a binding; one that does not exist, or whose ends do not, is fine.

    Raises:
        ChannelException: 403 without permission and for the default exchange, 405 for another
            session's exclusive queue.
    """
    source, destination = _permitted(actor, source, destination_kind, destination)
    try:
        exchange, end = _ends(actor, source, destination_kind, destination)
    except errors.ChannelException as error:
        if error.code == 404:
            return
        raise
    binding = exchange.bindings.get(identity(end, key, arguments))
    if binding is not None:
        remove_binding(broker, actor, binding)


def remove_binding(broker: Broker, actor: Actor, binding: Binding) -> None:
    """Takes the binding away, and its source if it is an auto-delete exchange without another."""
    source = binding.source
    source.unbind(binding)
    actor.vhost.generation += 1
    if binding.durable:
        broker.journal.append(
            Unbound(
                actor.vhost.name,
                source.name,
                binding.destination.kind,
                binding.destination.name,
                binding.key,
                binding.arguments.encoded,
            )
        )
    unused = source.auto_delete and not source.bindings
    if unused and actor.vhost.exchanges.get(source.name) is source:
        # Imported here because the two delete each other: a binding its source, an exchange
        # the bindings that lead to it.
        from amqpd.broker.topology.exchanges import remove_exchange

        remove_exchange(broker, actor, source)


def remove_bindings_to(broker: Broker, actor: Actor, destination: Destination) -> None:
    """Takes away all bindings that lead to something that is gone."""
    for binding in list(destination.incoming):
        if binding in destination.incoming:
            remove_binding(broker, actor, binding)


def _permitted(
    actor: Actor, source: str, destination_kind: str, destination: str
) -> tuple[str, str]:
    """The names of both ends, which the actor may bind."""
    source, destination = cleaned(source), cleaned(destination)
    check(actor, "write", destination_kind, destination)
    if source == "" or (destination_kind == "exchange" and destination == ""):
        raise errors.access_refused("operation not permitted on the default exchange")
    check(actor, "read", "exchange", source)
    return source, destination


def _ends(
    actor: Actor, source: str, destination_kind: str, destination: str
) -> tuple[Exchange, Destination]:
    exchange = actor.vhost.exchange(source)
    if destination_kind == "queue":
        return exchange, actor.vhost.queue(destination, actor.owner)
    return exchange, actor.vhost.exchange(destination)

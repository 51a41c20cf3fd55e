"""Rules for binding and unbinding queues and exchanges. Source: RabbitMQ, "Bindings"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqpd import errors
from amqpd.broker.exchanges.binding import Binding, Destination, identity
from amqpd.broker.exchanges.exchange import Exchange
from amqpd.broker.exchanges.recent_history import RecentHistory
from amqpd.broker.message import ENVELOPE, HEADER
from amqpd.broker.operations import Bound
from amqpd.broker.permissions import Actor, check
from amqpd.broker.queues.direct_reply import REPLY_PREFIX
from amqpd.broker.routing import route
from amqpd.broker.topology.names import cleaned
from amqpd.broker.topology.removal import remove_binding
from amqpd.wire import content
from amqpd.wire.arguments import Arguments

if TYPE_CHECKING:
    from amqpd.broker.broker import Broker
    from amqpd.broker.routing import Target
    from amqpd.broker.vhost import Vhost


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
    exchange.router.check_binding(key, arguments)
    binding = Binding(exchange, end, key, arguments)
    if binding.identity in exchange.bindings:
        return
    exchange.bind(binding)
    actor.vhost.generation += 1
    if binding.durable:
        broker.journal.append(
            Bound(actor.vhost.name, exchange.name, end.kind, end.name, key, arguments.encoded)
        )
    if broker.events is not None:
        broker.events.binding_created(actor.vhost, binding, actor.user)
    if isinstance(exchange.router, RecentHistory):
        _tell_of_the_past(broker, actor.vhost, exchange.router, end)


def _tell_of_the_past(
    broker: Broker, vhost: Vhost, router: RecentHistory, end: Destination
) -> None:
    """What is newly bound gets the last messages."""
    for message in router.history.messages:
        targets: tuple[Target, ...] = (vhost.queues[end.name],) if end.kind == "queue" else ()
        if isinstance(end, Exchange):
            headers = content.headers(message[HEADER]).values
            key = message[ENVELOPE].routing_key
            targets = route(vhost, end, [key], headers, message[HEADER]).queues
        broker.send(targets, [message])


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


def _permitted(
    actor: Actor, source: str, destination_kind: str, destination: str
) -> tuple[str, str]:
    """The names of both ends, which the actor may bind."""
    source, destination = cleaned(source), cleaned(destination)
    if destination_kind == "queue" and destination.startswith(REPLY_PREFIX):
        raise errors.access_refused("cannot bind or unbind to a volatile (direct reply-to) queue")
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

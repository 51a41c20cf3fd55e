"""A broker as it was: the model from what the store has kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqpd.broker.exchanges import registry
from amqpd.broker.exchanges.binding import Binding, Destination
from amqpd.broker.exchanges.exchange import Exchange
from amqpd.broker.exchanges.spread import Chance
from amqpd.broker.operations import Bound, ExchangeAdded, QueueAdded, VhostAdded
from amqpd.broker.queues import kinds
from amqpd.broker.queues.queue import Queue
from amqpd.broker.recovered import Recovered
from amqpd.broker.topology.deduplicating import (
    bring_window_back,
    is_window,
    start_deduplicating,
)
from amqpd.broker.topology.delaying import bring_back, is_line
from amqpd.broker.vhost import Vhost
from amqpd.wire.arguments import arguments_at

if TYPE_CHECKING:
    from amqpd.broker.broker import Broker


def restore(broker: Broker, recovered: Recovered) -> None:
    """Makes what was recovered. Messages stay where they are until somebody takes them.

    Raises:
        ValueError: the operations do not fit together; the text says which.
    """
    lines: list[QueueAdded] = []
    for operation in recovered.operations:
        if isinstance(operation, VhostAdded):
            broker.vhosts[operation.name] = Vhost(operation.name, broker.random)
        elif isinstance(operation, ExchangeAdded):
            _restore_exchange(_vhost(broker, operation.vhost), operation, broker.random)
        elif isinstance(operation, QueueAdded) and (is_line(operation) or is_window(operation)):
            lines.append(operation)
        elif isinstance(operation, QueueAdded):
            _restore_queue(broker, operation, recovered)
        elif isinstance(operation, Bound):
            _restore_binding(_vhost(broker, operation.vhost), operation)
        else:
            raise ValueError(f"{operation} adds nothing")
    for added in lines:  # their queues may have a larger number
        vhost = _vhost(broker, added.vhost)
        if is_window(added):
            bring_window_back(broker, vhost, added, recovered.keys.get(added.queue_id, ()))
        else:
            bring_back(broker, vhost, added, recovered.standings.get(added.queue_id))
    for vhost in broker.vhosts.values():
        for exchange in vhost.exchanges.values():
            start_deduplicating(broker, vhost, exchange)  # those that know nothing after a restart


def _vhost(broker: Broker, name: str) -> Vhost:
    if name not in broker.vhosts:
        raise ValueError(f"there is no vhost '{name}'")
    return broker.vhosts[name]


def _restore_exchange(vhost: Vhost, added: ExchangeAdded, random: Chance) -> None:
    arguments = arguments_at(added.arguments, 0)
    if added.type not in registry.TYPES:
        raise ValueError(f"exchange '{added.name}' has the unknown type '{added.type}'")
    vhost.exchanges[added.name] = Exchange(
        added.name,
        added.type,
        registry.router(added.type, arguments, random),
        durable=True,
        auto_delete=added.auto_delete,
        internal=added.internal,
        arguments=arguments,
    )


def _restore_queue(broker: Broker, added: QueueAdded, recovered: Recovered) -> None:
    arguments = arguments_at(added.arguments, 0)
    vhost = _vhost(broker, added.vhost)
    backlog = kinds.backlog(broker, added.queue_id, arguments, durable=True, recovered=recovered)
    queue = Queue(
        broker,
        vhost,
        added.queue_id,
        added.name,
        backlog,
        line_ids=range(added.queue_id, added.queue_id + added.lines),
        durable=True,
        auto_delete=added.auto_delete,
        exclusive_owner=None,
        arguments=arguments,
    )
    queue.duplicates = kinds.duplicates(broker, queue, recovered)
    vhost.queues[added.name] = queue
    broker.add(queue)


def _restore_binding(vhost: Vhost, bound: Bound) -> None:
    ends: dict[str, Destination] = {}
    if bound.destination_kind == "queue":
        ends.update(vhost.queues)
    else:
        ends.update(vhost.exchanges)
    source, end = vhost.exchanges.get(bound.source), ends.get(bound.destination)
    if source is None or end is None:
        raise ValueError(
            f"a binding leads from exchange '{bound.source}' to {bound.destination_kind} "
            f"'{bound.destination}' in vhost '{vhost.name}', and one of them does not exist"
        )
    source.bind(Binding(source, end, bound.binding_key, arguments_at(bound.arguments, 0)))

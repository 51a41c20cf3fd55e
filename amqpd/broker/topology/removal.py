"""Taking bindings, exchanges and queues away, with all that goes with them.

An auto-delete exchange goes with its last binding, and with it the bindings that lead to it, which
may be the last of other auto-delete exchanges: a chain of any length, so it is a list of work and
no recursion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqpd.broker.consumer import Consumer
from amqpd.broker.exchanges.binding import Binding, Destination
from amqpd.broker.exchanges.exchange import Exchange
from amqpd.broker.operations import ExchangeRemoved, Unbound
from amqpd.broker.permissions import Actor
from amqpd.broker.queues.queue import Queue
from amqpd.broker.topology.deduplicating import stop_deduplicating
from amqpd.broker.topology.delaying import stop_delaying, stop_waiting

if TYPE_CHECKING:
    from amqpd.broker.broker import Broker


def remove_binding(broker: Broker, actor: Actor, binding: Binding) -> None:
    """Takes the binding away, and its source if it is an auto-delete exchange without another."""
    _unbind(broker, actor, binding)
    if _is_unused(actor, binding.source):
        remove_exchange(broker, actor, binding.source)


def remove_exchange(broker: Broker, actor: Actor, exchange: Exchange) -> None:
    """Takes the exchange and all bindings from it and to it out of the vhost."""
    waiting = [exchange]
    while waiting:
        current = waiting.pop()
        if actor.vhost.exchanges.get(current.name) is not current:
            continue
        del actor.vhost.exchanges[current.name]
        actor.vhost.generation += 1
        for binding in list(current.bindings.values()):
            current.unbind(binding)
            if broker.events is not None:
                broker.events.binding_deleted(actor.vhost, binding, actor.user)
        if broker.events is not None:
            broker.events.exchange_deleted(actor.vhost, current, actor.user)
        stop_delaying(broker, current)
        stop_deduplicating(broker, current)
        if current.durable:
            broker.journal.append(ExchangeRemoved(actor.vhost.name, current.name))
        waiting += _unbind_all_to(broker, actor, current)


def remove_queue(broker: Broker, actor: Actor, queue: Queue) -> None:
    """Takes the queue, its messages and its bindings out of the vhost and tells its consumers."""
    del actor.vhost.queues[queue.name]
    actor.vhost.generation += 1
    broker.counters.queues_deleted += 1
    queue.stop()
    if queue.exclusive_owner is not None:
        queue.exclusive_owner.exclusive_queues.pop(queue, None)
    queue.purge()
    stop_waiting(broker, queue)
    broker.journal.remove(queue)
    broker.remove(queue)
    broker.touch(queue)
    for exchange in _unbind_all_to(broker, actor, queue):
        remove_exchange(broker, actor, exchange)
    if broker.events is not None:
        broker.events.queue_deleted(queue, actor.user)
    for consumer in queue.selection.clear():
        _stop(broker, consumer)
        if broker.events is not None:
            broker.events.consumer_deleted(consumer, actor.user)
        consumer.channel.cancelled(consumer)


def remove_consumer(broker: Broker, actor: Actor, queue: Queue, consumer: Consumer) -> None:
    """A consumer leaves; an auto-delete queue goes with its last one."""
    if queue.deleted or consumer not in queue.selection.consumers:
        return
    queue.selection.remove(consumer)
    _stop(broker, consumer)
    if broker.events is not None:
        broker.events.consumer_deleted(consumer, actor.user)
    if queue.stream is not None and consumer.cursor is not None:
        queue.stream.leave(consumer.cursor)
    if queue.exclusive_consumer is consumer:
        queue.exclusive_consumer = None
    broker.touch(queue)  # another one may be active now
    queue.used()
    if queue.auto_delete and not queue.selection.consumers:
        remove_queue(broker, actor, queue)


def _stop(broker: Broker, consumer: Consumer) -> None:
    if consumer.pace is not None:
        consumer.pace.stop(broker)


def _unbind_all_to(broker: Broker, actor: Actor, destination: Destination) -> list[Exchange]:
    """Takes away all bindings that lead to something; the exchanges that are unused now."""
    bindings = list(destination.incoming)
    for binding in bindings:
        _unbind(broker, actor, binding)
    sources = dict.fromkeys(binding.source for binding in bindings)
    return [source for source in sources if _is_unused(actor, source)]


def _unbind(broker: Broker, actor: Actor, binding: Binding) -> None:
    binding.source.unbind(binding)
    actor.vhost.generation += 1
    if broker.events is not None:
        broker.events.binding_deleted(actor.vhost, binding, actor.user)
    if binding.durable:
        broker.journal.append(
            Unbound(
                actor.vhost.name,
                binding.source.name,
                binding.destination.kind,
                binding.destination.name,
                binding.key,
                binding.arguments.encoded,
            )
        )


def _is_unused(actor: Actor, exchange: Exchange) -> bool:
    here = actor.vhost.exchanges.get(exchange.name) is exchange
    return here and exchange.auto_delete and not exchange.bindings

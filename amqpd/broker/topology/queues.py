"""Rules for declaring, deleting and purging queues. Source: RabbitMQ, "Queues"."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING

from amqpd import errors
from amqpd.broker import arguments as queue_arguments
from amqpd.broker.operations import QueueAdded
from amqpd.broker.permissions import Actor, Owner, check, check_any
from amqpd.broker.queues import kinds
from amqpd.broker.queues.queue import Queue
from amqpd.broker.topology.names import cleaned
from amqpd.broker.topology.removal import remove_queue
from amqpd.wire import fields
from amqpd.wire.arguments import Arguments, with_entry
from amqpd.wire.tables import TYPE_NAMES

if TYPE_CHECKING:
    from amqpd.broker.broker import Broker
    from amqpd.broker.vhost import Vhost

DLX = "x-dead-letter-exchange"


def declare_queue(
    broker: Broker,
    actor: Actor,
    name: str,
    *,
    durable: bool,
    exclusive: bool,
    auto_delete: bool,
    arguments: Arguments,
) -> Queue:
    """The queue, made if it does not exist; an empty name asks for a new one.

    Raises:
        ChannelException: 403 without permission and for names with the reserved prefix, 405 for
            another session's exclusive queue, 406 where it exists with other properties and for
            arguments that are not what they may be.
        ConnectionException: 541 for a transient shared queue where those are not allowed.
    """
    vhost, name = actor.vhost, cleaned(name)
    kept = durable and not exclusive
    if kept and not auto_delete and "x-queue-type" not in arguments.values:
        arguments = _of_default_type(vhost, arguments)
    if not name:
        kind = queue_arguments.queue_type(arguments)
        if kind in ("quorum", "stream"):
            raise errors.precondition_failed(
                f"Cannot declare a server-named queue for type rabbit_{kind}_queue"
            )
        name = generated_name(broker, "amq.gen-")
    else:
        vhost.check_name("queue", name)
    check(actor, "configure", "queue", name)
    queue = vhost.queues.get(name)
    if queue is not None:
        owner = actor.owner if exclusive else None
        _check_same(queue, owner, kept, auto_delete, arguments)
        _used_by_declare(queue)
        return queue
    _check_new(broker, actor, name, kept, exclusive, auto_delete, arguments)
    lines = kinds.line_count(arguments)
    queue_id = broker.next_queue_id(lines)
    queue = Queue(
        broker,
        vhost,
        queue_id,
        name,
        kinds.backlog(broker, queue_id, arguments, durable=kept),
        line_ids=range(queue_id, queue_id + lines),
        durable=kept,
        auto_delete=auto_delete,
        exclusive_owner=actor.owner if exclusive else None,
        arguments=arguments,
    )
    queue.duplicates = kinds.duplicates(broker, queue)
    vhost.queues[name] = queue
    broker.add(queue)
    vhost.apply_policies(queue)
    if queue.exclusive_owner is not None:
        queue.exclusive_owner.exclusive_queues[queue] = None
    vhost.generation += 1
    broker.counters.queues_created += 1
    if kept:
        broker.journal.append(
            QueueAdded(queue_id, vhost.name, name, auto_delete, arguments.encoded, lines)
        )
    if broker.events is not None:
        broker.events.queue_created(queue, actor.user)
    return queue


def _check_same(
    queue: Queue, owner: Owner | None, kept: bool, auto_delete: bool, arguments: Arguments
) -> None:
    """Refuses a redeclaration with other properties."""
    vhost, name = queue.vhost, queue.name
    if queue.exclusive_owner is not owner:
        raise vhost.locked(name)
    vhost.check_equal("queue", name, "durable", kept, queue.durable)
    vhost.check_equal("queue", name, "auto_delete", auto_delete, queue.auto_delete)
    queue_arguments.check_equal(vhost, name, arguments, queue.arguments)


def _of_default_type(vhost: Vhost, arguments: Arguments) -> Arguments:
    """The arguments with the queue type that the vhost has for those that name none."""
    if vhost.default_queue_type == "classic":
        return arguments
    return with_entry(arguments, fields.text("x-queue-type", vhost.default_queue_type))


def _check_new(
    broker: Broker,
    actor: Actor,
    name: str,
    durable: bool,
    exclusive: bool,
    auto_delete: bool,
    arguments: Arguments,
) -> None:
    words = actor.vhost.words("queue", name)
    most = actor.vhost.queues_max
    if 0 <= most <= len(actor.vhost.queues):
        raise errors.precondition_failed(
            f"cannot declare queue '{name}': queue limit in vhost '{actor.vhost.name}' ({most}) is "
            "reached"
        )
    most = broker.config.limits.queues_max
    if 0 < most <= len(broker.queues):
        raise errors.precondition_failed(
            f"cannot declare queue '{name}': queue limit in cluster ({most}) is reached"
        )
    if DLX in arguments.values:
        kind = arguments.types[DLX]
        if kind != b"S":
            raise errors.precondition_failed(
                f"invalid type '{TYPE_NAMES[kind]}' for arg '{DLX}' in {words}"
            )
        check(actor, "read", "queue", name)
        check(actor, "write", "exchange", arguments.values[DLX])
    queue_arguments.check(actor.vhost, name, arguments)
    if queue_arguments.queue_type(arguments) in ("quorum", "stream"):
        for wrong, what in (
            (not durable and not exclusive, "non-durable"),
            (auto_delete, "auto-delete"),
            (exclusive, "exclusive-owner"),
        ):
            if wrong:
                raise errors.precondition_failed(f"invalid property '{what}' for {words}")
    allowed = broker.config.compatibility.transient_nonexclusive_queues
    if not durable and not exclusive and not allowed:
        raise errors.internal_error(
            "Feature `transient_nonexcl_queues` is deprecated.\n"
            "By default, this feature is not permitted anymore."
        )


def generated_name(broker: Broker, prefix: str) -> str:
    """The prefix and 22 random letters that stand well in a URL."""
    return prefix + urlsafe_b64encode(broker.random.randbytes(16)).rstrip(b"=").decode()


def find_queue(actor: Actor, name: str) -> Queue:
    """The queue for a passive declare; raises ChannelException 403, 404 or 405."""
    name = cleaned(name)
    check_any(actor, "queue", name)
    queue = actor.vhost.queue(name, actor.owner)
    _used_by_declare(queue)
    return queue


def _used_by_declare(queue: Queue) -> None:
    """A declare is a use of a queue that is there, but for quorum queues, as in RabbitMQ."""
    if queue.type != "quorum":
        queue.used()


def delete_queue(
    broker: Broker, actor: Actor, name: str, *, if_unused: bool, if_empty: bool
) -> int:
    """Deletes the queue; how many ready messages went with it. One that does not exist is fine.

    Raises:
        ChannelException: 403 without permission, 405 for another session's exclusive queue, 406 if
            it is in use or not empty and must not be.
        ConnectionException: 540 if a quorum queue is to go only if it is unused or empty.
    """
    vhost, name = actor.vhost, cleaned(name)
    check(actor, "configure", "queue", name)
    if name not in vhost.queues:
        return 0
    queue = vhost.queue(name, actor.owner)
    for flag, is_set in (("if-unused", if_unused), ("if-empty", if_empty)):
        if is_set and queue.type == "quorum":
            raise errors.not_implemented(
                f"cannot delete {vhost.words('queue', name)}. queue.delete operations with {flag} "
                "flag set are not supported by quorum queues"
            )
    if queue.stream is not None:  # which does not look at these, as in RabbitMQ
        if_unused = if_empty = False
    if if_unused and queue.selection.consumers:
        raise errors.precondition_failed(f"{vhost.words('queue', name)} in use")
    if if_empty and (queue.ready or queue.delayed):  # what waits would be lost, too
        raise errors.precondition_failed(f"{vhost.words('queue', name)} not empty")
    count = queue.ready
    remove_queue(broker, actor, queue)
    return count


def purge_queue(broker: Broker, actor: Actor, name: str) -> int:
    """Drops the ready messages; how many.

    Raises:
        ChannelException: 403, 404 or 405.
        ConnectionException: 540 for a stream.
    """
    name = cleaned(name)
    check(actor, "read", "queue", name)
    queue = actor.vhost.queue(name, actor.owner)
    if queue.stream is not None:
        words = actor.vhost.words("queue", name)
        raise errors.not_implemented(f"queue.purge not supported by stream queues {words}")
    broker.touch(queue)
    return queue.purge()

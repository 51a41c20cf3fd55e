"""The kinds of queues: which backlog a queue has by its arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from amqpd.broker.arguments import queue_type
from amqpd.broker.duplicates import SIZE, SIZE_DEFAULT, TTL, Duplicates
from amqpd.broker.queues.fifo import LINE_BITS, Fifo
from amqpd.broker.queues.groups import Groups
from amqpd.broker.queues.priority import Priority
from amqpd.broker.queues.stream import Stream
from amqpd.broker.recovered import NOTHING, Recovered
from amqpd.wire.arguments import Arguments

if TYPE_CHECKING:
    from amqpd.broker.broker import Broker
    from amqpd.broker.queues.backlog import Backlog
    from amqpd.broker.queues.queue import Queue

# Of quorum queues. Source: RabbitMQ 4.3, "Quorum Queues", priorities.
QUORUM_PRIORITY_MAX: Final = 31
QUORUM_PRIORITY_DEFAULT: Final = 4


def line_count(arguments: Arguments) -> int:
    """How many lines the backlog of a queue can have."""
    return _highest_priority(arguments) + 1


def _highest_priority(arguments: Arguments) -> int:
    if queue_type(arguments) == "quorum":
        return QUORUM_PRIORITY_MAX
    return arguments.values.get("x-max-priority") or 0


def duplicates(broker: Broker, queue: Queue, recovered: Recovered = NOTHING) -> Duplicates | None:
    """The window of keys of a queue; None if it takes all messages."""
    arguments = queue.arguments.values
    if not arguments.get("x-message-deduplication"):
        return None
    return Duplicates(
        broker,
        queue.backlog.lines[0],
        size=arguments.get(SIZE, SIZE_DEFAULT),
        ttl_ms=arguments.get(TTL),
        durable=queue.durable,
        known=recovered.keys.get(queue.queue_id, ()),
    )


def backlog(
    broker: Broker,
    queue_id: int,
    arguments: Arguments,
    *,
    durable: bool,
    recovered: Recovered = NOTHING,
) -> Backlog:
    """The backlog of a queue.

    Args:
        queue_id: of its first line; those of the others follow.
        recovered: what the store has of it.
    """
    kind = queue_type(arguments)
    standings = recovered.standings
    if kind == "stream":
        return Stream(
            queue_id,
            broker.journal,
            broker.memory,
            broker.wall_ms,
            standing=standings.get(queue_id),
            segments=recovered.segments.get(queue_id, ()),
            places=recovered.places.get(queue_id),
        )
    is_quorum = kind == "quorum"

    def line(place: int) -> Fifo:
        return Fifo(
            queue_id + place,
            broker.journal,
            broker.memory,
            durable=durable,
            is_quorum=is_quorum,
            base=place << LINE_BITS,
            standing=standings.get(queue_id + place),
        )

    highest = _highest_priority(arguments)
    has_keys = bool(arguments.values.get("x-message-deduplication"))  # the first line has them
    if arguments.values.get("x-message-groups"):
        return Groups(line(0), broker.journal, broker.memory)
    if not highest:
        return line(0)
    return Priority(
        line,
        highest=highest,
        default=QUORUM_PRIORITY_DEFAULT if is_quorum else 0,
        known=[
            place
            for place in range(highest + 1)
            if queue_id + place in standings or (has_keys and not place)
        ],
    )

"""The kinds of queues: which backlog a queue has by its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from amqpd.broker.arguments import queue_type
from amqpd.broker.queues.fifo import Fifo
from amqpd.broker.queues.priority import Priority
from amqpd.wire.arguments import Arguments

if TYPE_CHECKING:
    from amqpd.broker.broker import Broker
    from amqpd.broker.journal import Standing
    from amqpd.broker.queues.backlog import Backlog


def lines(arguments: Arguments) -> int:
    """How many lines the backlog of a queue has."""
    maximum = arguments.values.get("x-max-priority")
    return maximum + 1 if maximum else 1


def backlog(
    broker: Broker,
    queue_id: int,
    arguments: Arguments,
    *,
    durable: bool,
    standings: Mapping[int, Standing] | None = None,
) -> Backlog:
    """The backlog of a queue.

    Args:
        queue_id: of its first line; those of the others follow.
        standings: of its lines as the store has them, by queue id.
    """
    found = [
        Fifo(
            each,
            broker.journal,
            broker.memory,
            durable=durable,
            keeps_all=queue_type(arguments) == "quorum",
            standing=standings.get(each) if standings else None,
        )
        for each in range(queue_id, queue_id + lines(arguments))
    ]
    return found[0] if len(found) == 1 else Priority(found)

"""Watches a broker for what must never be."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from amqpd.broker.broker import Broker
from amqpd.broker.queues.queue import Queue


class _Bugs(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg == "internal error" or record.msg.startswith("messages are damaged"):
            self.found.append(record)


@contextmanager
def no_internal_error() -> Iterator[None]:
    """Fails if the broker meets an internal error (541) or misses messages.

    That is a bug, whatever a client has sent.
    """
    bugs = _Bugs()
    log = logging.getLogger("amqpd")
    log.addHandler(bugs)
    try:
        yield
    finally:
        log.removeHandler(bugs)
    assert not bugs.found, logging.Formatter().format(bugs.found[0])


def nobody_starves(broker: Broker) -> None:
    """Fails if a consumer has room, and messages that it may have are at hand.

    To be asked when all that has happened is worked off, of consumers of one priority.
    """
    for queue in broker.queues.values():
        if queue.stream is None and _may_hand_out(queue, broker.now):
            for consumer in queue.selection.consumers:
                is_next = not queue.selection.single or consumer is queue.selection.active
                room = consumer.channel.room(consumer) if is_next else 0
                assert room <= 0, f"{consumer.tag} of {queue.name} has room for {room} and waits"


def _may_hand_out(queue: Queue, now: float) -> bool:
    is_braked = queue.pace is not None and not queue.pace.left(now)
    unacked_max = queue.terms.unacked_max
    is_full = unacked_max is not None and queue.unacked >= unacked_max
    goes_on = queue._losses.goes_on  # with the next turn
    return bool(queue.backlog.at_hand) and not (is_braked or is_full or goes_on)

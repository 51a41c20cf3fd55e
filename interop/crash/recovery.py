"""What is asked of a broker that has come back: the content of its queues."""

import time

from ledger import Ledger, Settled
from link import Arrival, Closed, Link
from pamqp import commands

SILENCE_S = 10.0  # without a delivery, while messages are due
WHOLE_S = 120.0
NOT_FOUND = 404


def check_queue(uri: str, ledger: Ledger, queue: str, drain: bool) -> None:
    """Reads a queue from its head to its end, and holds it against the ledger.

    Args:
        drain: acknowledge what was there; else it goes back, as it came.
    """
    with Link(uri) as link:
        try:
            count = message_count(link, queue)
        except Closed as closed:
            if closed.code != NOT_FOUND:
                raise
            ledger.violations.add("queue lost", queue)
            ledger.compare(queue, [])
            return
        arrivals = read_all(link, queue, count)
        if len(arrivals) != count:
            detail = f"{queue}: declare-ok said {count}, {len(arrivals)} came"
            ledger.violations.add("message count", detail)
        ledger.compare(queue, arrivals)
        if drain and arrivals:
            ledger.settle(ledger.queues[queue].values(), Settled.TOLD)
            link.tell(commands.Basic.Ack(0, multiple=True))
            if left := message_count(link, queue):
                ledger.violations.add("message count", f"{queue}: {left} after it was drained")
        link.close()


def message_count(link: Link, queue: str) -> int:
    """What declare-ok says."""
    declare = commands.Queue.Declare(queue=queue, passive=True)
    return link.call(declare, commands.Queue.DeclareOk).message_count


def read_all(link: Link, queue: str, count: int) -> list[Arrival]:
    """All that a consumer gets: it stops when `count` have come and no more are ready."""
    arrivals: list[Arrival] = []
    link.tell(commands.Basic.Consume(queue=queue, consumer_tag=queue))
    deadline = time.monotonic() + WHOLE_S
    while len(arrivals) < count and time.monotonic() < deadline:
        events = link.events(SILENCE_S)
        if not events:
            break
        arrivals += [event for event in events if isinstance(event, Arrival)]
    message_count(link, queue)  # what is delivered in spite of the count comes before its answer
    arrivals += [event for event in link.events(0) if isinstance(event, Arrival)]
    return arrivals

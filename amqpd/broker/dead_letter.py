"""Where messages go that no consumer was done with: rejected, expired, dropped.

Source: RabbitMQ, "Dead Letter Exchanges".
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from amqpd.broker.deaths import died, goes_in_circle, routing_keys
from amqpd.broker.message import (
    BODY,
    ENVELOPE,
    HEADER,
    WAS_DEAD,
    WAS_PUT_OFF,
    Envelope,
    Message,
)
from amqpd.broker.queues.returns import COUNT_HEADER
from amqpd.broker.routing import route
from amqpd.wire import content

if TYPE_CHECKING:
    from amqpd.broker.broker import Broker
    from amqpd.broker.queues.queue import Queue

REJECTED: Final = "rejected"
EXPIRED: Final = "expired"
MAXLEN: Final = "maxlen"
DELIVERY_LIMIT: Final = "delivery_limit"


def dead_letter(broker: Broker, queue: Queue, messages: Sequence[Message], reason: str) -> None:
    """Sends messages that have left a queue to its dead letter exchange, if it has one.

    At most once: what cannot be routed, is refused, or goes in a circle by itself, is dropped;
    unless the queue keeps its letters until they have arrived (`kept_letters.py`).
    """
    name = queue.terms.dead_letter_exchange
    exchange = None if name is None else queue.vhost.exchanges.get(name)
    keeps = queue.terms.at_least_once
    if name is None or (exchange is None and not keeps) or not messages:
        return
    own_key = queue.terms.dead_letter_routing_key
    second = int(broker.epoch + broker.now)
    for (envelope, header), group in groupby(messages, itemgetter(ENVELOPE, HEADER)):
        keys = routing_keys(envelope, header)
        if envelope.past & WAS_PUT_OFF:
            header = content.without_header_entry(header, COUNT_HEADER)
        new_header, deaths = died(envelope, header, queue.name, reason, second)
        if own_key is not None:
            if b"\x02CC" in new_header:
                new_header = content.without_header_entry(new_header, "CC")
            keys = [own_key]
        new_envelope = Envelope(name, keys[0], past=WAS_DEAD)
        persistent = content.is_persistent(header)  # in a quorum queue all of them count as such
        letters: list[Message] = [
            (new_envelope, new_header, message[BODY], persistent) for message in group
        ]
        if keeps or exchange is None:
            broker.kept_letters.append((queue, letters))
            continue
        found = route(queue.vhost, exchange, keys, None, new_header).queues
        targets = [each for each in found if not goes_in_circle(each.name, deaths)]
        broker.send(targets, letters)

"""Dead letters that stay with their queue until they have arrived: the strategy `at-least-once`.

A letter that no queue takes, because there is no exchange for it, no route, or no room, waits in a
line of its queue and is sent again after a while. It arrives once: it goes to all queues that it is
routed to, or to none yet.

Source: RabbitMQ, "Quorum Queues", at-least-once dead lettering.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from amqpd.broker.deaths import deaths, goes_in_circle, routing_keys
from amqpd.broker.message import ENVELOPE, HEADER, Message
from amqpd.broker.queues.queue import Queue
from amqpd.broker.routing import route

if TYPE_CHECKING:
    from amqpd.broker.broker import Broker
    from amqpd.broker.routing import Target

RESEND_MS: Final = 5000


def send(broker: Broker, queue: Queue, letters: list[Message]) -> None:
    """Sends letters of a queue; those that cannot arrive now are sent again later."""
    if queue.deleted:
        return
    kept = [letter for letter in letters if not _arrives(broker, queue, letter)]
    if kept:
        line = broker.letters_line(queue)
        line.put(kept, [RESEND_MS] * len(kept))
        broker.touch(line)


def _arrives(broker: Broker, queue: Queue, letter: Message) -> bool:
    """Gives a letter to the queues that it goes to; whether it need not be kept."""
    name = queue.terms.dead_letter_exchange
    if name is None:  # a policy that said where to has gone
        return True
    exchange = queue.vhost.exchanges.get(name)
    if exchange is None:
        return False
    own_key, header = queue.terms.dead_letter_routing_key, letter[HEADER]
    keys = routing_keys(letter[ENVELOPE], header) if own_key is None else [own_key]
    found = route(queue.vhost, exchange, keys, None, header).queues
    known = deaths(header)
    targets = [target for target in found if not goes_in_circle(target.name, known)]
    if not found or any(_has_no_room(target, letter) for target in targets):
        return False
    for target in targets:
        if not target.is_duplicate(letter):
            broker.put(target, [letter])
    return True


def _has_no_room(target: Target, letter: Message) -> bool:
    return isinstance(target, Queue) and target.is_full_for(letter)

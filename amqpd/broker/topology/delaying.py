"""The deferred lines of delayed message exchanges, and of queues whose messages are to be delivered
later: made, brought back, taken away with them.

In the store such a line is a queue with a reserved name, which no client can reach.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from amqpd.broker.deaths import routing_keys
from amqpd.broker.exchanges.delayed import Delayed, delay_ms, released
from amqpd.broker.journal import Standing
from amqpd.broker.message import ENVELOPE, HEADER, Message
from amqpd.broker.operations import QueueAdded
from amqpd.broker.queues.deferred import Deferred
from amqpd.broker.routing import route
from amqpd.wire import fields

if TYPE_CHECKING:
    from amqpd.broker.broker import Broker
    from amqpd.broker.exchanges.exchange import Exchange
    from amqpd.broker.queues.queue import Queue
    from amqpd.broker.vhost import Vhost

OF_EXCHANGE: Final = "amq.delayed."
OF_QUEUE: Final = "amq.waiting."
LETTERS_OF: Final = "amq.letters."
NO_FIELDS: Final = fields.sized(b"")


def start_delaying(broker: Broker, vhost: Vhost, exchange: Exchange) -> None:
    """Gives a new exchange a line, if it is one that delays messages."""
    if not isinstance(exchange.router, Delayed):
        return
    line = _line(broker, vhost, exchange, broker.next_queue_id(1), None)
    _keep(broker, vhost, line)


def start_waiting(broker: Broker, queue: Queue) -> Deferred:
    """Gives a queue a line for what is to be delivered later."""
    return _start(broker, queue, OF_QUEUE)


def start_keeping(broker: Broker, queue: Queue) -> Deferred:
    """Gives a queue a line for dead letters that could not arrive."""
    return _start(broker, queue, LETTERS_OF)


def _start(broker: Broker, queue: Queue, prefix: str) -> Deferred:
    line = _line_of_queue(broker, queue, prefix, broker.next_queue_id(1), None)
    _keep(broker, queue.vhost, line)
    return line


def _keep(broker: Broker, vhost: Vhost, line: Deferred) -> None:
    if line.durable:
        broker.journal.append(
            QueueAdded(line.queue_id, vhost.name, line.name, False, NO_FIELDS, lines=1)
        )


def is_line(added: QueueAdded) -> bool:
    """Whether what the store has as a queue is a line."""
    return added.name.startswith((OF_EXCHANGE, OF_QUEUE, LETTERS_OF))


def bring_back(broker: Broker, vhost: Vhost, added: QueueAdded, standing: Standing | None) -> None:
    """Gives a recovered exchange or queue its line back; raises ValueError if it is not there."""
    for prefix in (OF_QUEUE, LETTERS_OF):
        if added.name.startswith(prefix):
            queue = vhost.queues.get(added.name.removeprefix(prefix))
            if queue is None:
                raise ValueError(f"messages wait in '{added.name}' for a queue that is not there")
            broker.touch(_line_of_queue(broker, queue, prefix, added.queue_id, standing))
            return
    name = added.name.removeprefix(OF_EXCHANGE)
    exchange = vhost.exchanges.get(name)
    if exchange is None or not isinstance(exchange.router, Delayed):
        raise ValueError(f"messages wait for exchange '{name}', which is not there to delay them")
    line = _line(broker, vhost, exchange, added.queue_id, standing)
    broker.touch(line)


def _line(
    broker: Broker, vhost: Vhost, exchange: Exchange, queue_id: int, standing: Standing | None
) -> Deferred:
    def release(messages: list[Message]) -> None:
        for message in messages:
            _route(broker, vhost, exchange, message)

    line = Deferred(
        broker,
        queue_id,
        OF_EXCHANGE + exchange.name,
        delay_ms=delay_ms,
        release=release,
        durable=exchange.durable,
        standing=standing,
    )
    assert isinstance(exchange.router, Delayed)
    exchange.router.line = line
    broker.lines[queue_id] = line
    return line


def _line_of_queue(
    broker: Broker, queue: Queue, prefix: str, queue_id: int, standing: Standing | None
) -> Deferred:
    def send_again(letters: list[Message]) -> None:
        broker.kept_letters.append((queue, letters))

    line = Deferred(
        broker,
        queue_id,
        prefix + queue.name,
        delay_ms=delay_ms,
        release=queue.come_back if prefix == OF_QUEUE else send_again,
        durable=queue.durable,
        standing=standing,
    )
    if prefix == OF_QUEUE:
        queue.waiting_line = line
    else:
        queue.letters_line = line
    broker.lines[queue_id] = line
    return line


def _route(broker: Broker, vhost: Vhost, exchange: Exchange, message: Message) -> None:
    """A message has waited, and goes where the exchange leads it now."""
    envelope = message[ENVELOPE]
    keys = routing_keys(envelope, message[HEADER])
    header = released(message[HEADER])
    targets = route(vhost, exchange, keys, None, header).queues
    broker.send(targets, [(envelope, header, *message[2:])])


def stop_delaying(broker: Broker, exchange: Exchange) -> None:
    """The exchange is gone, and what waits with it."""
    if isinstance(exchange.router, Delayed) and exchange.router.line is not None:
        del broker.lines[exchange.router.line.queue_id]
        exchange.router.line.remove()


def stop_waiting(broker: Broker, queue: Queue) -> None:
    """The queue is gone, and what waits with it."""
    for line in (queue.waiting_line, queue.letters_line):
        if line is not None:
            del broker.lines[line.queue_id]
            line.remove()
    queue.waiting_line = queue.letters_line = None

"""The deferred lines of delayed message exchanges: made, brought back, taken away with them.

In the store such a line is a queue with a reserved name, which no client can reach.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from amqpd.broker.deaths import routing_keys
from amqpd.broker.exchanges.delayed import Delayed, delay_ms, released
from amqpd.broker.journal import QueueAdded, Standing
from amqpd.broker.message import ENVELOPE, HEADER, Message
from amqpd.broker.queues.deferred import Deferred
from amqpd.broker.routing import route
from amqpd.wire import content, fields

if TYPE_CHECKING:
    from amqpd.broker.broker import Broker
    from amqpd.broker.exchanges.exchange import Exchange
    from amqpd.broker.vhost import Vhost

NAME: Final = "amq.delayed."
# In the arguments of the queue that stands for a line in the store: whose it is.
EXCHANGE: Final = "x-delayed-by-exchange"


def start_delaying(broker: Broker, vhost: Vhost, exchange: Exchange) -> None:
    """Gives a new exchange a line, if it is one that delays messages."""
    if not isinstance(exchange.router, Delayed):
        return
    line = _line(broker, vhost, exchange, broker.next_queue_id(1), None)
    if exchange.durable:
        arguments = fields.sized(fields.text(EXCHANGE, exchange.name))
        broker.journal.append(
            QueueAdded(line.queue_id, vhost.name, line.name, False, arguments, lines=1)
        )


def bring_back(broker: Broker, vhost: Vhost, added: QueueAdded, standing: Standing | None) -> None:
    """Gives a recovered exchange its line back; raises ValueError if it is not there."""
    name = added.name.removeprefix(NAME)
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
        NAME + exchange.name,
        delay_ms=delay_ms,
        release=release,
        durable=exchange.durable,
        standing=standing,
    )
    assert isinstance(exchange.router, Delayed)
    exchange.router.line = line
    broker.lines[queue_id] = line
    return line


def _route(broker: Broker, vhost: Vhost, exchange: Exchange, message: Message) -> None:
    """A message has waited, and goes where the exchange leads it now."""
    envelope = message[ENVELOPE]
    keys = routing_keys(envelope, message[HEADER])
    header = released(message[HEADER])
    headers = content.headers(header).values
    for target in route(vhost, exchange, keys, headers, header).queues:
        broker.letters.append((target, [(envelope, header, *message[2:])]))


def stop_delaying(broker: Broker, exchange: Exchange) -> None:
    """The exchange is gone, and what waits with it."""
    if isinstance(exchange.router, Delayed) and exchange.router.line is not None:
        del broker.lines[exchange.router.line.queue_id]
        exchange.router.line.remove()

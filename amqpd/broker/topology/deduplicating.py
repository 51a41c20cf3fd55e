"""The windows of keys that exchanges have: made, brought back, taken away with them.

In the store such a window is a queue with a reserved name, which no client can reach.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from amqpd.broker.duplicates import SIZE, TTL, Duplicates, KeyLine, Known
from amqpd.broker.exchanges.deduplication import MEMORY, PERSISTENCE, Deduplication
from amqpd.broker.operations import QueueAdded
from amqpd.wire import fields

if TYPE_CHECKING:
    from amqpd.broker.broker import Broker
    from amqpd.broker.exchanges.exchange import Exchange
    from amqpd.broker.vhost import Vhost

KEYS_OF: Final = "amq.keys."


def start_deduplicating(broker: Broker, vhost: Vhost, exchange: Exchange) -> None:
    """Gives an exchange a window, if it is one that lets messages through once."""
    if isinstance(exchange.router, Deduplication) and exchange.router.window is None:
        line = _give_window(broker, exchange, broker.next_queue_id(1), ())
        if line.durable:
            broker.journal.append(
                QueueAdded(line.queue_id, vhost.name, line.name, False, fields.sized(b""))
            )


def is_window(added: QueueAdded) -> bool:
    """Whether what the store has as a queue is a window."""
    return added.name.startswith(KEYS_OF)


def bring_window_back(
    broker: Broker, vhost: Vhost, added: QueueAdded, known: Iterable[Known]
) -> None:
    """Gives a recovered exchange its window back; raises ValueError if it is not there."""
    exchange = vhost.exchanges.get(added.name.removeprefix(KEYS_OF))
    if exchange is None or not isinstance(exchange.router, Deduplication):
        raise ValueError(f"there are keys in '{added.name}' of an exchange that is not there")
    _give_window(broker, exchange, added.queue_id, known)


def _give_window(
    broker: Broker, exchange: Exchange, queue_id: int, known: Iterable[Known]
) -> KeyLine:
    arguments = exchange.arguments.values
    durable = exchange.durable and arguments.get(PERSISTENCE) != MEMORY
    line = KeyLine(queue_id, KEYS_OF + exchange.name, durable=durable)
    assert isinstance(exchange.router, Deduplication)
    exchange.router.open(
        Duplicates(
            broker,
            line,
            size=arguments[SIZE],
            ttl_ms=arguments.get(TTL),
            durable=durable,
            heeds_ttls=True,
            known=known,
        )
    )
    broker.lines[queue_id] = line
    return line


def stop_deduplicating(broker: Broker, exchange: Exchange) -> None:
    """The exchange is gone, and what it knew with it."""
    if isinstance(exchange.router, Deduplication) and exchange.router.window is not None:
        line = exchange.router.window.line
        del broker.lines[line.queue_id]
        broker.journal.remove_line(line)

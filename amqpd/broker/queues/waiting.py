"""Messages that go from a queue into its waiting line, and come back from there when it is time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from amqpd.broker.message import Message
from amqpd.broker.queues.retry import (
    DelayedRetry,
    Retry,
    counted,
    times_retried,
    wanted_delay_ms,
)
from amqpd.broker.queues.returns import with_count

if TYPE_CHECKING:
    from amqpd.broker.broker import Broker
    from amqpd.broker.queues.queue import Queue


def put_off_delayed(broker: Broker, queue: Queue, messages: Sequence[Message]) -> list[Message]:
    """Puts off what publishers want to be delivered later; the messages that need not wait."""
    delays_ms = [wanted_delay_ms(message, broker.wall_ms()) for message in messages]
    pairs = list(zip(messages, delays_ms, strict=True))
    later = [pair for pair in pairs if pair[1] > 0]
    _put_off(broker, queue, [pair[0] for pair in later], [pair[1] for pair in later])
    return [pair[0] for pair in pairs if pair[1] <= 0]


def put_off_rejected(
    broker: Broker, queue: Queue, retry: Retry, messages: Sequence[Message]
) -> list[Message]:
    """Puts rejected messages off; those that have come back as often as they may are left."""
    again: list[Message] = []
    delays_ms: list[int] = []
    dead: list[Message] = []
    for message in messages:
        times = times_retried(message)
        if times >= retry.times_max:
            dead.append(message)
            continue
        again.append(counted(message, times + 1))
        delays_ms.append(retry.delay_ms(times, broker.random.random()))
    _put_off(broker, queue, again, delays_ms)
    return dead


def put_off_returned(
    broker: Broker, queue: Queue, terms: DelayedRetry, deliveries: Sequence[tuple[int, Message]]
) -> None:
    """Puts off what has come back from a consumer, with the count of how often it did."""
    times = [queue.returns.times(number, message) for number, message in deliveries]
    messages = [pair[1] for pair in deliveries]
    _put_off(
        broker,
        queue,
        [with_count(*pair) for pair in zip(messages, times, strict=True)],
        [terms.delay_ms(each) for each in times],
    )


def _put_off(broker: Broker, queue: Queue, messages: list[Message], delays_ms: list[int]) -> None:
    if messages:
        line = broker.waiting_line(queue)
        line.put(messages, delays_ms)
        broker.touch(line)

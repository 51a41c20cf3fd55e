"""Messages that go from a queue into its waiting line, and come back from there when it is time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from amqpd.broker.message import WAS_PUT_OFF, Envelope, Message
from amqpd.broker.queues.retry import COUNT_HEADER as RETRIES
from amqpd.broker.queues.retry import (
    DelayedRetry,
    Retry,
    counted,
    times_retried,
    wanted_delay_ms,
)
from amqpd.broker.queues.returns import with_count
from amqpd.wire import content

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
    _put_off(broker, queue, _marked(again), delays_ms)
    return dead


def put_off_returned(
    broker: Broker, queue: Queue, terms: DelayedRetry, deliveries: Sequence[tuple[int, Message]]
) -> None:
    """Puts off what has come back from a consumer, with the count of how often it did."""
    times = [queue.returns.times(number, message) for number, message in deliveries]
    messages = [_counted(pair[1], each) for pair, each in zip(deliveries, times, strict=True)]
    _put_off(broker, queue, _marked(messages), [terms.delay_ms(each) for each in times])


def _counted(message: Message, times: int) -> Message:
    """The message with its count of returns; that of its retries is another queue's word or a
    publisher's, if it was not put off here."""
    envelope, header, body, persistent = message
    if content.flags(header) & content.HEADERS and not envelope.past & WAS_PUT_OFF:
        header = content.without_header_entry(header, RETRIES)
    return with_count((envelope, header, body, persistent), times)


def _marked(messages: list[Message]) -> list[Message]:
    """The messages, whose headers now are the broker's word for how often they came back."""
    known: dict[Envelope, Envelope] = {}
    marked: list[Message] = []
    for envelope, header, body, persistent in messages:
        if envelope not in known:
            past = envelope.past | WAS_PUT_OFF
            known[envelope] = Envelope(envelope.exchange, envelope.routing_key, past=past)
        marked.append((known[envelope], header, body, persistent))
    return marked


def _put_off(broker: Broker, queue: Queue, messages: list[Message], delays_ms: list[int]) -> None:
    if messages:
        line = broker.waiting_line(queue)
        line.put(messages, delays_ms)
        broker.touch(line)

"""Clients that consume: they acknowledge, requeue, reject and hold, and note it before."""

import random
import time
from collections.abc import Sequence

from ledger import Copy, Ledger, Route, Settled
from link import Arrival, Link, settle_frames
from pamqp import commands, frame
from patience import pika_connection
from publishers import Pen, commit

HOLD, REQUEUE, REJECT = 0.05, 0.12, 0.17  # up to here in [0, 1); the rest is acknowledged
LIFE_S_MAX = 1.5


class Consumer:
    """What one channel has in its hands.

    Attributes:
        unacked: by delivery tag, in order.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.unacked: dict[int, Copy] = {}
        self._ledger = ledger
        self._last: dict[tuple[str, int], int] = {}

    def take(self, arrivals: Sequence[Arrival]) -> list[int]:
        """Notes what has arrived; the tags of it."""
        for arrival in arrivals:
            copy = self._ledger.received(arrival.queue, self, arrival)
            if copy is None:
                continue  # it is in the book of violations, and nothing else can be said of it
            self.unacked[arrival.tag] = copy
            if not arrival.redelivered:
                self._check_order(arrival.queue, copy)
        return [arrival.tag for arrival in arrivals if arrival.tag in self.unacked]

    def _check_order(self, queue: str, copy: Copy) -> None:
        publisher, seq = copy.message.key
        before = self._last.get((queue, publisher), -1)
        if before >= seq:
            detail = f"{copy.message.key} after {before} in {queue}"
            self._ledger.violations.add("delivered out of order", detail)
        self._last[queue, publisher] = seq

    def settle(self, tags: Sequence[int]) -> None:
        """About to acknowledge or reject these."""
        self._ledger.settle([self.unacked.pop(tag) for tag in tags], Settled.TOLD)

    def release(self, tags: Sequence[int]) -> None:
        """About to give these back."""
        for tag in tags:
            self.unacked.pop(tag).holder = None


def consume(uri: str, ledger: Ledger, rng: random.Random, queues: Sequence[str]) -> None:
    """A bit of everything that a consumer can do with a message."""
    consumer = Consumer(ledger)
    prefetch = rng.choice([1, 10, 100, 1000])
    with Link(uri) as link:
        link.call(commands.Basic.Qos(prefetch_count=prefetch), commands.Basic.QosOk)
        for queue in rng.sample(queues, rng.randint(1, 3)):
            link.tell(commands.Basic.Consume(queue=queue, consumer_tag=queue))
        end = time.monotonic() + rng.uniform(0.1, LIFE_S_MAX)
        while time.monotonic() < end and not ledger.ending.is_set():
            arrivals = [event for event in link.events(0.05) if isinstance(event, Arrival)]
            tags = consumer.take(arrivals)
            link.send(_settle_each(consumer, rng, tags))
            if len(consumer.unacked) >= prefetch * 0.8 or rng.random() < 0.02:
                link.send(_settle_all(consumer, rng))
        if ledger.ending.is_set():
            return
        consumer.release(list(consumer.unacked))
        link.close()


def _settle_each(consumer: Consumer, rng: random.Random, tags: list[int]) -> bytes:
    acked, rejected, frames = [], [], []
    for tag in tags:
        fate = rng.random()
        if fate < HOLD:
            continue
        if fate < REQUEUE:
            consumer.release([tag])
            frames.append(frame.marshal(commands.Basic.Nack(tag, requeue=True), 1))
        elif fate < REJECT:
            rejected.append(tag)
            frames.append(frame.marshal(commands.Basic.Reject(tag, requeue=False), 1))
        else:
            acked.append(tag)
    consumer.settle(acked + rejected)
    return b"".join([settle_frames(acked), *frames])


def _settle_all(consumer: Consumer, rng: random.Random) -> bytes:
    """With `multiple`, as clients do that batch."""
    if not consumer.unacked:
        return b""
    tags = list(consumer.unacked)
    if rng.random() < 0.3:
        consumer.release(tags)
        return frame.marshal(commands.Basic.Nack(tags[-1], multiple=True, requeue=True), 1)
    consumer.settle(tags)
    return frame.marshal(commands.Basic.Ack(tags[-1], multiple=True), 1)


def consume_in_transactions(
    uri: str, ledger: Ledger, rng: random.Random, queues: Sequence[str], routes: Sequence[Route]
) -> None:
    """Takes a few messages, publishes others, and commits both at once, or rolls back."""
    consumer, pen = Consumer(ledger), Pen(ledger, rng, routes, persistent_share=1.0)
    with Link(uri) as link:
        link.call(commands.Tx.Select(), commands.Tx.SelectOk)
        link.call(commands.Basic.Qos(prefetch_count=30), commands.Basic.QosOk)
        queue = rng.choice(queues)
        link.tell(commands.Basic.Consume(queue=queue, consumer_tag=queue))
        end = time.monotonic() + rng.uniform(0.1, LIFE_S_MAX)
        while time.monotonic() < end and not ledger.ending.is_set():
            consumer.take([each for each in link.events(0.05) if isinstance(each, Arrival)])
            tags = list(consumer.unacked)
            written = [pen.write_frames() for _ in range(len(tags) // 2)]
            link.send(settle_frames(tags) + b"".join(frames for _, frames in written))
            if rng.random() < 0.2:
                # What was acknowledged is unacknowledged again, and is so in the next round.
                link.call(commands.Tx.Rollback(), commands.Tx.RollbackOk)
                continue
            copies = [consumer.unacked[tag] for tag in tags]
            consumer.settle(tags)
            commit(link, ledger, [message for message, _ in written])
            ledger.settle(copies, Settled.PROMISED)
        if ledger.ending.is_set():
            return
        consumer.release(list(consumer.unacked))
        link.close()


def consume_with_pika(uri: str, ledger: Ledger, rng: random.Random, queues: Sequence[str]) -> None:
    """basic.get and basic.consume through a client that knows nothing of this test."""
    consumer, queue = Consumer(ledger), rng.choice(queues)
    with pika_connection(uri) as connection:
        channel = connection.channel()
        for _ in range(rng.randrange(20)):
            method, properties, body = channel.basic_get(queue)
            if method is None or ledger.ending.is_set():
                break
            _settle_one(consumer, rng, channel, queue, method, properties, body)
        channel.basic_qos(prefetch_count=rng.choice([1, 20]))
        end = time.monotonic() + rng.uniform(0.1, LIFE_S_MAX)
        for method, properties, body in channel.consume(queue, inactivity_timeout=0.05):
            if method is not None:
                _settle_one(consumer, rng, channel, queue, method, properties, body)
            if time.monotonic() > end or ledger.ending.is_set():
                break
        consumer.release(list(consumer.unacked))


def _settle_one(
    consumer: Consumer, rng: random.Random, channel, queue: str, method, properties, body: bytes
) -> None:
    where = (method.redelivered, method.exchange, method.routing_key)
    arrival = Arrival(queue, method.delivery_tag, *where, properties, body)
    for tag in consumer.take([arrival]):
        if rng.random() < 0.1:
            consumer.release([tag])
            channel.basic_nack(tag, requeue=True)
        else:
            consumer.settle([tag])
            channel.basic_ack(tag)

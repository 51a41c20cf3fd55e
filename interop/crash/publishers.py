"""Clients that publish: each is one life of one connection, ended by its own choice or the kill."""

import random
import time
from collections.abc import Sequence

import pika
import stamp
from ledger import Ledger, Message, Route
from link import WAIT_S, Confirm, Link, publish_frames
from pamqp import commands
from patience import pika_connection

KIB = 1024
BACKLOG_MAX = 12_000  # copies that wait; publishers then let consumers catch up
BURST_BYTES_MAX = 2 * 1024 * KIB
WINDOWS = (1, 2, 10, 50, 200, 1000)


def any_length(rng: random.Random) -> int:
    """Mostly small, sometimes nothing, sometimes large."""
    kind = rng.random()
    if kind < 0.05:
        return 0
    if kind < 0.75:
        return rng.randrange(1, 300)
    if kind < 0.95:
        return rng.randrange(300, 4 * KIB)
    return rng.randrange(4 * KIB, stamp.BODY_BYTES_MAX + 1)


class Pen:
    """Makes the messages of one channel, in order, and notes them.

    Args:
        persistent_share: of the messages; the others are transient.
        length: of each body; any, without it.
    """

    def __init__(
        self,
        ledger: Ledger,
        rng: random.Random,
        routes: Sequence[Route],
        persistent_share: float,
        length: int | None = None,
    ) -> None:
        self.ledger = ledger
        self.rng = rng
        self._routes = routes
        self._publisher = ledger.new_publisher()
        self._persistent_share = persistent_share
        self._length = length
        self._seq = 0

    def write(self) -> tuple[Message, dict[str, object], bytes]:
        """The next message: noted, but not yet `possible`."""
        rng = self.rng
        length = any_length(rng) if self._length is None else self._length
        persistent = rng.random() < self._persistent_share
        self._seq += 1
        properties, body = stamp.compose(self._publisher, self._seq, length, persistent)
        route = rng.choice(self._routes)
        message = self.ledger.note(self._publisher, self._seq, route, length, persistent)
        return message, properties, body

    def write_frames(self) -> tuple[Message, bytes]:
        """The same as bytes for a `Link`."""
        message, properties, body = self.write()
        return message, publish_frames(*message.route[:2], properties, body)


class Confirms:
    """What a channel waits for: its messages by their delivery tags."""

    def __init__(self, ledger: Ledger) -> None:
        self.waiting: dict[int, Message] = {}
        self._ledger = ledger
        self._tag = 0

    def expect(self, message: Message) -> None:
        self._tag += 1
        self.waiting[self._tag] = message

    def take(self, confirm: Confirm) -> list[Message]:
        """The messages that a confirm was about; those that it promises are noted."""
        if confirm.multiple:
            tags = [tag for tag in self.waiting if tag <= confirm.tag]
        else:
            tags = [tag for tag in (confirm.tag,) if tag in self.waiting]
        if not tags:
            self._ledger.violations.add("confirm of nothing", f"{confirm}")
        messages = [self.waiting.pop(tag) for tag in tags]
        if confirm.positive:
            self._ledger.promised(messages)
        return messages

    def take_until(self, link: Link, left: int) -> None:
        """Reads confirms until at most `left` are missing; TimeoutError if they do not come."""
        deadline = time.monotonic() + WAIT_S
        while len(self.waiting) > left:
            for event in link.events(max(deadline - time.monotonic(), 0)):
                if isinstance(event, Confirm):
                    self.take(event)
                    if not event.positive:
                        self._ledger.violations.add("nack of a healthy broker", f"{event}")
            if len(self.waiting) > left and time.monotonic() > deadline:
                raise TimeoutError(f"{len(self.waiting)} publishes unconfirmed for {WAIT_S} s")


def wait_for_consumers(ledger: Ledger) -> None:
    """Until the backlog is small enough, or the end."""
    while ledger.open_copies > BACKLOG_MAX and not ledger.ending.wait(0.02):
        continue


def publish_with_confirms(
    uri: str, ledger: Ledger, rng: random.Random, routes: Sequence[Route]
) -> None:
    """Bursts with a window; at the end of its life it waits for all confirms."""
    pen = Pen(ledger, rng, routes, persistent_share=rng.choice([1.0, 1.0, 0.8]))
    window = rng.choice(WINDOWS)
    confirms = Confirms(ledger)
    with Link(uri) as link:
        link.call(commands.Confirm.Select(), commands.Confirm.SelectOk)
        for _ in range(rng.randrange(1, 200)):
            if ledger.ending.is_set():
                return
            wait_for_consumers(ledger)
            burst, burst_bytes = [], 0
            count = rng.randint(1, window - len(confirms.waiting))
            while len(burst) < count and burst_bytes < BURST_BYTES_MAX:
                message, frames = pen.write_frames()
                message.possible = True
                confirms.expect(message)
                burst.append(frames)
                burst_bytes += len(frames)
            link.send(b"".join(burst))
            confirms.take_until(link, rng.randrange(window))
            if rng.random() < 0.05:
                ledger.ending.wait(rng.uniform(0, 0.05))
        confirms.take_until(link, 0)
        link.close()


def publish_in_transactions(
    uri: str, ledger: Ledger, rng: random.Random, routes: Sequence[Route]
) -> None:
    """Commits most of its transactions, rolls the others back; the last one it abandons."""
    pen = Pen(ledger, rng, routes, persistent_share=0.9)
    with Link(uri) as link:
        link.call(commands.Tx.Select(), commands.Tx.SelectOk)
        for _ in range(rng.randrange(1, 100)):
            if ledger.ending.is_set():
                return
            wait_for_consumers(ledger)
            written = [pen.write_frames() for _ in range(rng.randint(1, 60))]
            link.send(b"".join(frames for _, frames in written))
            if rng.random() < 0.15:
                link.call(commands.Tx.Rollback(), commands.Tx.RollbackOk)
                continue
            messages = [message for message, _ in written]
            commit(link, ledger, messages)
        link.send(b"".join(pen.write_frames()[1] for _ in range(5)))
        link.close()


def commit(link: Link, ledger: Ledger, messages: list[Message]) -> None:
    """tx.commit of these publishes."""
    for message in messages:
        message.possible = True
    link.call(commands.Tx.Commit(), commands.Tx.CommitOk)
    ledger.promised(messages)


def publish_with_pika(
    uri: str, ledger: Ledger, rng: random.Random, routes: Sequence[Route]
) -> None:
    """One at a time: when basic_publish of pika's blocking channel returns, it is confirmed."""
    pen = Pen(ledger, rng, routes, persistent_share=0.9)
    with pika_connection(uri) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for _ in range(rng.randrange(1, 300)):
            if ledger.ending.is_set():
                return
            wait_for_consumers(ledger)
            message, properties, body = pen.write()
            message.possible = True
            channel.basic_publish(*message.route[:2], body, pika.BasicProperties(**properties))
            ledger.promised([message])


def publish_in_transactions_with_pika(
    uri: str, ledger: Ledger, rng: random.Random, routes: Sequence[Route]
) -> None:
    """tx with a client that knows nothing of this test."""
    pen = Pen(ledger, rng, routes, persistent_share=1.0)
    with pika_connection(uri) as connection:
        channel = connection.channel()
        channel.tx_select()
        for _ in range(rng.randrange(1, 100)):
            if ledger.ending.is_set():
                return
            wait_for_consumers(ledger)
            written = [pen.write() for _ in range(rng.randint(1, 20))]
            for message, properties, body in written:
                channel.basic_publish(*message.route[:2], body, pika.BasicProperties(**properties))
            messages = [message for message, _, _ in written]
            for message in messages:
                message.possible = True
            channel.tx_commit()
            ledger.promised(messages)

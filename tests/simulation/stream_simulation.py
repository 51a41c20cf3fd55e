"""A stream of a broker that crashes: an offset that a client has seen means the same for ever.

As in `simulation.py`, commits and reads come late, and then the process dies or the power fails.
"""

from __future__ import annotations

from random import Random
from typing import Any

from simulated_disk import Disk

from amqpd.broker.fetch import Fetch
from amqpd.config import Config
from amqpd.config.settings import Limits
from amqpd.testing.client import Client, publish_bytes
from amqpd.testing.harness import Harness
from amqpd.wire.methods import Basic, Confirm, Queue

ARGUMENTS = {"x-queue-type": "stream", "x-stream-max-segment-size-bytes": 65_536}
SIZES = (10, 10, 300, 5000)
TAG = "app"


class Reader:
    """A consumer, which sees offsets without a gap but for what is not there any more.

    Attributes:
        unsettled: offsets by delivery tag.
        is_app: it is the one that is remembered.
    """

    def __init__(self, harness: Harness, tag: str, offset: Any, prefetch: int) -> None:
        self.client = Client(harness)
        self.unsettled: dict[int, int] = {}
        self.is_app = tag == TAG
        self._last = -1
        self.client.ask(Basic.Qos(prefetch_count=prefetch))
        arguments = {"x-stream-offset": offset}
        if tag == TAG:
            arguments["x-stream-automatic-offset-tracking"] = True
        self.client.tell(Basic.Consume(queue="s", consumer_tag=tag, arguments=arguments))

    def listen(self) -> list[tuple[int, bytes]]:
        """What it has seen."""
        seen = []
        for told in self.client.heard():
            if isinstance(told.method, Basic.Deliver):
                offset = told.properties.headers["x-stream-offset"]
                assert offset > self._last, "an offset comes twice, or too late"
                self._last = self.unsettled[told.method.delivery_tag] = offset
                seen.append((offset, told.body))
        return seen


class StreamSimulation:
    """Several lives of a broker with a stream.

    Attributes:
        published: all bodies in their order.
        confirmed: those that were confirmed.
        seen: the bodies that clients have seen, by their offsets.
        settled: offsets that the remembered consumer is done with.
    """

    def __init__(self, seed: int, disk: Disk) -> None:
        self.random = Random(seed)
        self.disk = disk
        self.is_short = self.random.random() < 0.5
        self.published: list[bytes] = []
        self.confirmed: set[bytes] = set()
        self.seen: dict[int, bytes] = {}
        self.settled: set[int] = set()
        self.readers: list[Reader] = []
        self.reads: list[Fetch] = []

    def run(self, lives: int) -> None:
        """So many lives, each with the death that ends it."""
        for _ in range(lives):
            self.live()
            self.die()
            self.check_what_is_left()

    def start(self, disk: Disk) -> Harness:
        limits = Limits(
            queue_memory_bytes_max=self.random.choice((500, 5000, 100_000)),
            uncommitted_bytes_max=self.random.choice((5000, 100_000)),
            output_bytes_high=self.random.choice((1000, 1 << 20)),
        )
        return Harness(Config(limits=limits), hotpath=self.random.random() < 0.5, store=disk)

    def live(self) -> None:
        self.harness = self.start(self.disk)
        self.publisher = Client(self.harness)
        self.sequence: dict[int, bytes] = {}
        self.last_sequence = 0
        arguments = ARGUMENTS | ({"x-max-length-bytes": 200_000} if self.is_short else {})
        self.publisher.ask(Queue.Declare(queue="s", durable=True, arguments=arguments))
        self.publisher.ask(Confirm.Select())
        self.readers, self.reads = [], []
        self.harness.commits = self.harness.fetches = False
        acts = (self.publish, self.publish, self.read, self.ack, self.leave, self.commit)
        for _ in range(self.random.choice((10, 40, 80))):
            self.random.choice((*acts, self.commit, self.answer, self.answer))()
            self.listen()

    # --- what happens -----------------------------------------------------------------------------

    def publish(self) -> None:
        if self.publisher.session.flow.stopped:
            return
        data = b""
        for _ in range(self.random.choice((1, 3, 10))):
            body = b"%d." % len(self.published) + b"x" * self.random.choice(SIZES)
            self.published.append(body)
            self.last_sequence += 1
            self.sequence[self.last_sequence] = body
            data += publish_bytes(body, routing_key="s", delivery_mode=self.random.choice((1, 2)))
        self.publisher.send(data)

    def read(self) -> None:
        offset = self.random.choice(("first", "next", "last", self.random.randint(0, 200)))
        has_app = any(reader.is_app for reader in self.readers)
        tag = TAG if not has_app and self.random.random() < 0.5 else "other"
        self.readers.append(Reader(self.harness, tag, "first" if tag == TAG else offset, 7))

    def ack(self) -> None:
        readers = [each for each in self.readers if each.unsettled]
        if not readers:
            return
        reader = self.random.choice(readers)
        tag = self.random.choice([*reader.unsettled])
        offset = reader.unsettled.pop(tag)
        if reader.is_app:
            self.settled.add(offset)
        reader.client.tell(Basic.Ack(delivery_tag=tag))

    def leave(self) -> None:
        if self.readers and self.random.random() < 0.3:
            reader = self.readers.pop(self.random.randrange(len(self.readers)))
            reader.client.link.close()

    def commit(self) -> None:
        self.harness.commit(1)

    def answer(self) -> None:
        if self.reads:
            fetch = self.reads.pop(self.random.randrange(len(self.reads)))
            self.harness.core.fetched(fetch, self.disk.fetch(fetch), self.harness.now)
            self.harness.settle()

    def listen(self) -> None:
        self.reads += self.harness.wanted
        self.harness.wanted = []
        for reader in self.readers:
            self.saw(reader.listen())
        for told in self.publisher.heard():
            if isinstance(told.method, Basic.Ack):
                for number in [each for each in self.sequence if each <= told.method.delivery_tag]:
                    self.confirmed.add(self.sequence.pop(number))

    def saw(self, seen: list[tuple[int, bytes]]) -> None:
        for offset, body in seen:
            assert self.seen.setdefault(offset, body) == body, f"another message at {offset}"

    # --- the end of a life ------------------------------------------------------------------------

    def die(self) -> None:
        if self.harness.held and self.random.random() < 0.5:
            self.disk.commit(self.harness.held[0])
        if self.random.random() < 0.5:
            self.disk = self.disk.crash()
        else:
            self.disk = self.disk.lose_power(self.random.randint(0, len(self.disk.at_risk)))

    def check_what_is_left(self) -> None:
        with self.disk.copy() as disk:
            harness = self.start(disk)
            count = Client(harness).ask(Queue.Declare(queue="s", passive=True))
            reader = Reader(harness, "check", "first", 60_000)
            left = reader.listen()
            self.saw(left)
            assert count.method.message_count == len(left)
            self.check_order([offset for offset, _ in left], [body for _, body in left])
            app = Reader(harness, TAG, "first", 60_000).listen()
            missing = dict(left).keys() - {offset for offset, _ in app}
            assert missing <= self.settled, "the remembered consumer would miss messages"
            reader.client.link.close()

    def check_order(self, offsets: list[int], bodies: list[bytes]) -> None:
        assert offsets == [*range(offsets[0], offsets[0] + len(offsets))] if offsets else True
        places = [int(body.split(b".")[0]) for body in bodies]
        assert places == sorted(places), "out of order"
        lost = self.confirmed - set(bodies)
        if self.is_short:
            first = places[0] if places else 0
            lost = {body for body in lost if int(body.split(b".")[0]) >= first}
        assert not lost, f"{len(lost)} confirmed messages are lost"

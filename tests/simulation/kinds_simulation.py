"""A queue of any kind on a broker that crashes: what was confirmed comes out in the end, somewhere.

The rules of each kind have tests of their own. Here it is only asked, for all of them, that nothing
confirmed is lost while messages wait, expire, come back, die and change their queues, and that
nothing comes back that was acknowledged and committed.
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
from amqpd.wire.methods import Basic, Confirm, Exchange, Queue

DEAD = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
QUORUM = {"x-queue-type": "quorum"}
KINDS: dict[str, dict[str, Any]] = {
    "expiring": {"x-message-ttl": 3000, **DEAD},
    "short": {"x-max-length": 4, **DEAD},
    "levels": {"x-max-priority": 5, **DEAD},
    "groups": {"x-message-groups": True, **DEAD},
    "delayed": {"x-delayed": True, **DEAD},
    "retried": {"x-retry-max": 2, "x-retry-min-delay": 500, **DEAD},
    "quorum": {**QUORUM, "x-delivery-limit": 2, **DEAD},
    "quorum retried": {**QUORUM, "x-delayed-retry-type": "all", "x-delivery-limit": 2, **DEAD},
    "letters kept": {
        **QUORUM,
        "x-overflow": "reject-publish",
        "x-dead-letter-strategy": "at-least-once",
        "x-message-ttl": 2000,
        **DEAD,
    },
    "timed out": {"x-ack-timeout": 1000, **DEAD},
    "slow": {"x-max-rate": 5, "x-max-unacked": 3, **DEAD},
    "counted": {"x-delivery-limit": 2, **DEAD},
    "single": {"x-single-active-consumer": True, "x-max-priority": 3, **DEAD},
    "once": {"x-message-deduplication": True, "x-retry-max": 2, "x-retry-min-delay": 500, **DEAD},
    "quorum once": {**QUORUM, "x-message-deduplication": True, "x-delivery-limit": 2, **DEAD},
}
SIZES = (10, 10, 300, 3000)


class KindSimulation:
    """Several lives of a broker with one queue, and one for its dead letters.

    Attributes:
        confirmed: numbers of messages that were confirmed.
        settled: those that were acknowledged, with the ticket that has it.
    """

    def __init__(self, seed: int, disk: Disk) -> None:
        self.random = Random(seed)
        self.disk = disk
        self.kind = self.random.choice(sorted(KINDS))
        self.published = 0
        self.confirmed: set[int] = set()
        self.settled: dict[int, int] = {}
        self.wall = 1_000_000.0

    def run(self, lives: int) -> None:
        """So many lives, each with the death that ends it."""
        for _ in range(lives):
            self.live()
            self.die()
        self.drain()

    def start(self) -> None:
        limits = Limits(
            queue_memory_bytes_max=self.random.choice((500, 5000, 100_000)),
            uncommitted_bytes_max=self.random.choice((5000, 100_000)),
        )
        hotpath = self.random.random() < 0.5
        self.harness = Harness(
            Config(limits=limits), hotpath=hotpath, store=self.disk, epoch=self.wall
        )
        self.client = Client(self.harness, channels=2)
        self.client.ask(Queue.Declare(queue="dead", durable=True))
        arguments = KINDS[self.kind]
        self.client.ask(Queue.Declare(queue="q", durable=True, arguments=arguments))
        kind, delayed = "x-delayed-message", {"x-delayed-type": "fanout"}
        self.client.ask(
            Exchange.Declare(exchange="x", exchange_type=kind, durable=True, arguments=delayed)
        )
        self.client.ask(Queue.Bind(queue="q", exchange="x"))
        self.client.ask(Confirm.Select())
        self.sequence = 0
        self.unconfirmed: dict[int, int] = {}
        self.unsettled: dict[int, int] = {}
        self.reads: list[Fetch] = []

    def live(self) -> None:
        self.start()
        self.client.ask(Basic.Qos(prefetch_count=6), 2)
        self.client.tell(Basic.Consume(queue="q", consumer_tag="c"), 2)
        self.harness.commits = self.harness.fetches = False
        acts = (self.publish, self.publish, self.settle, self.wait, self.commit, self.answer)
        for _ in range(self.random.choice((10, 40, 80))):
            self.random.choice((*acts, self.commit))()
            self.listen()

    # --- what happens -----------------------------------------------------------------------------

    def publish(self) -> None:
        if self.client.session.flow.stopped:
            return
        data = b""
        for _ in range(self.random.choice((1, 3, 8))):
            self.published += 1
            self.sequence += 1
            self.unconfirmed[self.sequence] = self.published
            headers: dict[str, Any] = {"x-group-id": self.random.choice("abc")}
            headers["x-deduplication-header"] = self.published
            if self.random.random() < 0.3:
                headers["x-delay"] = self.random.choice((200, 5000))
            data += publish_bytes(
                b"%d." % self.published + b"x" * self.random.choice(SIZES),
                exchange=self.random.choice(("", "", "x")),
                routing_key="q",
                delivery_mode=2,
                priority=self.random.randint(0, 5),
                headers=headers,
            )
        self.client.send(data)

    def settle(self) -> None:
        if not self.unsettled:
            return
        tag = self.random.choice([*self.unsettled])
        number, way = self.unsettled.pop(tag), self.random.random()
        method: Any = Basic.Reject(delivery_tag=tag, requeue=way < 0.8)
        if way < 0.6:
            method = Basic.Ack(delivery_tag=tag)
            self.settled.setdefault(number, self.harness.core.broker.journal.ticket)
        self.client.tell(method, 2)

    def wait(self) -> None:
        self.harness.wait(self.random.choice((0.1, 0.6, 3.0)))

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
        for told in self.client.heard():
            method = told.method
            if isinstance(method, Basic.Deliver):
                number = int(told.body.split(b".")[0])
                self.unsettled[method.delivery_tag] = number
            elif isinstance(method, Basic.Ack):
                for each in [each for each in self.unconfirmed if each <= method.delivery_tag]:
                    self.confirmed.add(self.unconfirmed.pop(each))
            elif isinstance(method, Basic.Nack):
                self.unconfirmed.pop(method.delivery_tag)

    # --- the end of a life ------------------------------------------------------------------------

    def die(self) -> None:
        if self.harness.held and self.random.random() < 0.5:
            self.disk.commit(self.harness.held[0])
        old = self.disk
        if self.random.random() < 0.5:
            self.disk = old.crash()
        else:
            self.disk = old.lose_power(self.random.randint(0, len(old.at_risk)))
        self.wall += self.harness.now + self.random.choice((0.0, 4.0))
        # What was acknowledged with a later ticket is open again; the others stay settled.
        ticket = old.ticket
        self.settled = {number: 0 for number, at in self.settled.items() if at <= ticket}

    def drain(self) -> None:
        """Everything comes out in the end."""
        self.start()
        found: list[int] = []
        for _ in range(60):
            for queue in ("q", "dead"):
                while (told := self.client.ask(Basic.Get(queue=queue, no_ack=True))).body:
                    found.append(int(told.body.split(b".")[0]))
            self.harness.wait(1)
        lost = self.confirmed - set(found) - self.settled.keys()
        assert not lost, f"lost: {sorted(lost)}"
        again = self.settled.keys() & set(found)
        if self.kind != "timed out":  # there an ack may have come too late to count
            assert not again, f"come back: {sorted(again)}"
        self.harness.commit()
        assert not any(self.disk.messages.values()), "something is left"
        assert self.harness.core.broker.memory.held == 0

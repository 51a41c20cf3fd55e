"""A queue of any kind on a broker that crashes: what was confirmed comes out in the end, somewhere.

The rules of each kind have tests of their own. Here it is only asked, for all of them, that nothing
confirmed is lost while messages wait, expire, come back, die and change their queues, and that
nothing comes back that was acknowledged and committed.
"""

from __future__ import annotations

from random import Random
from typing import Any

from simulated_disk import Disk
from watching import nobody_starves

from amqpd.broker.fetch import Fetch
from amqpd.broker.policies import policy
from amqpd.config import Config
from amqpd.config.settings import Limits
from amqpd.testing.client import Client, publish_bytes
from amqpd.testing.harness import Harness
from amqpd.wire.methods import Basic, Channel, Confirm, Exchange, Queue

DEAD = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
BASES: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"x-queue-type": "quorum"},
    {"x-max-priority": 5},
    {"x-message-groups": True},
)
FEATURES: tuple[dict[str, Any], ...] = (
    {"x-message-ttl": 3000},
    {"x-max-length": 4},
    {"x-max-length-bytes": 4000},
    {"x-max-length": 4, "x-overflow": "reject-publish"},
    {"x-max-length": 4, "x-overflow": "reject-publish-dlx"},
    {"x-delayed": True},
    {"x-retry-max": 2, "x-retry-min-delay": 500},
    {"x-delivery-limit": 2},
    {"x-ack-timeout": 1000},
    {"x-max-rate": 5},
    {"x-max-unacked": 3},
    {"x-single-active-consumer": True},
    {"x-message-deduplication": True},
    {"x-message-deduplication": True, "x-cache-size": 20},
    {"x-message-deduplication": True, "x-cache-ttl": 2000},
)
QUORUM_FEATURES: tuple[dict[str, Any], ...] = (
    {"x-delayed-retry-type": "all"},
    {"x-delayed-retry-type": "failed", "x-delayed-retry-min": 300},
    {"x-overflow": "reject-publish", "x-dead-letter-strategy": "at-least-once"},
)
POLICIES: tuple[dict[str, Any], ...] = (
    {"message-ttl": 2500},
    {"max-length": 3},
    {"retry-max": 1, "retry-min-delay": 700},
    {"delivery-limit": 1},
    {"max-rate": 20},
    {"max-unacked": 2},
)


def some_arguments(random: Random) -> dict[str, Any]:
    """What a queue may be declared with, so that all of it has to go together."""
    arguments = {**random.choice(BASES), **DEAD}
    features = [each for each in FEATURES if random.random() < 0.2]
    if "x-queue-type" in arguments:
        features += [each for each in QUORUM_FEATURES if random.random() < 0.3]
    for feature in features:
        arguments |= feature
    return arguments


SIZES = (10, 10, 300, 3000)


class KindSimulation:
    """Several lives of a broker with one queue, and one for its dead letters.

    Attributes:
        arguments: those of the queue.
        confirmed: numbers of messages that were confirmed, and have to come out.
        settled: those that were acknowledged, with the ticket that has it.
    """

    def __init__(self, seed: int, disk: Disk) -> None:
        self.random = Random(seed)
        self.disk = disk
        self.arguments = some_arguments(self.random)
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
        uptime = self.random.choice((0.0, 70_000.0))
        self.harness = Harness(
            Config(limits=limits),
            hotpath=hotpath,
            store=self.disk,
            epoch=self.wall - uptime,
            now=uptime,
        )
        self.client = Client(self.harness, channels=3)
        self.client.ask(Queue.Declare(queue="dead", durable=True))
        self.client.ask(Queue.Declare(queue="q", durable=True, arguments=self.arguments))
        kind, delayed = "x-delayed-message", {"x-delayed-type": "fanout"}
        self.client.ask(
            Exchange.Declare(exchange="x", exchange_type=kind, durable=True, arguments=delayed)
        )
        self.client.ask(Queue.Bind(queue="q", exchange="x"))
        self.client.ask(Confirm.Select())
        self.sequence = 0
        self.unconfirmed: dict[int, int] = {}
        self.unsettled: dict[tuple[int, int], int] = {}  # by channel and tag
        self.leaving = {2: 0, 3: 0}  # how often channels were closed and have not said so
        self.reads: list[Fetch] = []

    def live(self) -> None:
        self.start()
        self.consume(2)
        if self.random.random() < 0.5:
            self.consume(3)
        self.harness.commits = self.harness.fetches = False
        often = (self.publish, self.publish, self.settle, self.wait, self.commit, self.answer)
        seldom = (self.purge, self.leave, self.change_policy)
        for _ in range(self.random.choice((10, 40, 80))):
            self.random.choice(seldom if self.random.random() < 0.06 else (*often, self.commit))()
            self.listen()
            self.harness.wait(0.001)  # what is due now may be a rounding error later
            nobody_starves(self.harness.core.broker)

    def consume(self, channel: int) -> None:
        self.client.ask(Basic.Qos(prefetch_count=self.random.choice((1, 6))), channel)
        self.client.tell(Basic.Consume(queue="q", consumer_tag="c"), channel)

    # --- what happens -----------------------------------------------------------------------------

    def publish(self) -> None:
        if self.client.session.flow.stopped:
            return
        data = b""
        # What a queue refuses that has waited in an exchange is gone, as with RabbitMQ's plugin.
        exchanges = [""] if "x-overflow" in self.arguments else ["", "", "x"]
        count, sizes = self.random.choice((1, 3, 8)), SIZES
        if self.random.random() < 0.04:  # more than a queue drops in one go
            count, sizes = 600, (10,)
        expiration = self.random.choice((None, None, "400"))
        for _ in range(count):
            self.published += 1
            self.sequence += 1
            self.unconfirmed[self.sequence] = self.published
            headers: dict[str, Any] = {"x-group-id": self.random.choice("abc")}
            headers["x-deduplication-header"] = self.published
            if self.random.random() < 0.3:
                headers["x-delay"] = self.random.choice((200, 5000))
            data += publish_bytes(
                b"%d." % self.published + b"x" * self.random.choice(sizes),
                exchange=self.random.choice(exchanges),
                routing_key="q",
                delivery_mode=2,
                priority=self.random.randint(0, 5),
                headers=headers,
                **({} if expiration is None else {"expiration": expiration}),
            )
        self.client.send(data)

    def settle(self) -> None:
        known = [at for at in self.unsettled if not self.leaving[at[0]]]
        if not known:
            return
        channel, tag = self.random.choice(known)
        number, way = self.unsettled.pop((channel, tag)), self.random.random()
        method: Any = Basic.Reject(delivery_tag=tag, requeue=way < 0.8)
        if way < 0.6:
            method = Basic.Ack(delivery_tag=tag)
            self.settled.setdefault(number, self.harness.core.broker.journal.ticket)
        self.client.tell(method, channel)

    def purge(self) -> None:
        """What goes with it, of all that has come, is not to be found any more, or still is if the
        broker crashes first."""
        self.client.tell(Queue.Purge(queue="q"), 1)
        self.confirmed.clear()
        self.unconfirmed = dict.fromkeys(self.unconfirmed, 0)

    def leave(self) -> None:
        """A consumer goes, without a word for what it has not settled, and another one comes."""
        channel = self.random.choice((2, 3))
        self.leaving[channel] += 1
        self.client.tell(Channel.Close(200, "", 0, 0), channel)
        self.client.tell(Channel.Open(), channel)
        self.client.tell(Basic.Qos(prefetch_count=3), channel)
        self.client.tell(Basic.Consume(queue="q", consumer_tag="c"), channel)

    def change_policy(self) -> None:
        vhost = self.harness.core.broker.vhosts["/"]
        if self.random.random() < 0.3:
            vhost.clear_policy("p")
        else:
            vhost.set_policy(policy("p", "^q$", self.random.choice(POLICIES)))
        self.harness.core.tick(self.harness.now)
        self.harness.settle()

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
                self.unsettled[told.channel, method.delivery_tag] = number
            elif isinstance(method, Channel.CloseOk):
                self.leaving[told.channel] -= 1
                gone = [at for at in self.unsettled if at[0] == told.channel]
                for at in gone:
                    del self.unsettled[at]
            elif isinstance(method, Basic.Ack | Basic.Nack):
                tag = method.delivery_tag
                tags = [each for each in self.unconfirmed if each <= tag]
                for each in tags if method.multiple else [tag]:
                    number = self.unconfirmed.pop(each)
                    if isinstance(method, Basic.Ack) and number:
                        self.confirmed.add(number)

    # --- the end of a life ------------------------------------------------------------------------

    def die(self) -> None:
        if self.random.random() < 0.3:
            self.stop()
        elif self.harness.held and self.random.random() < 0.5:
            self.disk.commit(self.harness.held[0])
        old = self.disk
        if self.random.random() < 0.5:
            self.disk = old.crash()
        else:
            self.disk = old.lose_power(self.random.randint(0, len(old.at_risk)))
        self.wall = (
            self.harness.core.broker.epoch + self.harness.now + self.random.choice((0.0, 4.0))
        )
        # What was acknowledged with a later ticket is open again; the others stay settled.
        ticket = old.ticket
        self.settled = {number: 0 for number, at in self.settled.items() if at <= ticket}

    def stop(self) -> None:
        """The broker stops as it should."""
        self.harness.commits = True
        self.client.link.close()
        self.harness.core.stopped()
        self.harness.commit()

    def drain(self) -> None:
        """Everything comes out in the end."""
        self.start()
        found: list[int] = []
        gets = self.random.random() < 0.5 and "x-single-active-consumer" not in self.arguments
        if not gets:
            for queue in ("q", "dead"):
                self.client.tell(Basic.Consume(queue=queue, no_ack=True), 2)
        rate = self.arguments.get("x-max-rate", self.published)
        for _ in range(60 + self.published // rate):
            found += [int(body.split(b".")[0]) for body in self.client.bodies()]
            for queue in ("q", "dead") if gets else ():
                while (told := self.client.ask(Basic.Get(queue=queue, no_ack=True))).body:
                    found.append(int(told.body.split(b".")[0]))
            self.harness.wait(1)
        lost = self.confirmed - set(found) - self.settled.keys()
        assert not lost, f"lost: {sorted(lost)}"
        again = self.settled.keys() & set(found)
        if "x-ack-timeout" not in self.arguments:  # there an ack may have come too late to count
            assert not again, f"come back: {sorted(again)}"
        self.harness.commit()
        assert not any(self.disk.messages.values()), "something is left"
        assert self.harness.core.broker.memory.held == 0

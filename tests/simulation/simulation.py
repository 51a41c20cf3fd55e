"""Clients at random on a broker that crashes, and a ledger of what must come back.

A life is a few dozen acts on one core, whose commits and reads come late and in any order. Then the
process dies, or the power fails, or the broker stops in order. What is on the disk goes to a core
that is drained and compared with the ledger, and to the next life.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from acts import ACTS, CUMULATED, OPENING
from promises import Ledger, QueueModel
from simulated_clients import ChannelModel, SimulatedClient
from simulated_disk import Disk

from amqpd.broker.fetch import Fetch, Fetched
from amqpd.broker.queues.queue import Queue as RealQueue
from amqpd.broker.vhost import PREDECLARED, Vhost
from amqpd.config import Config
from amqpd.config.settings import Limits
from amqpd.testing.client import Client
from amqpd.testing.harness import Harness
from amqpd.wire.methods import Basic, Queue

Has = Callable[[ChannelModel], Any]

CLIENTS = 3
ACTS_OF_A_LIFE = (10, 30, 60)


class Simulation:
    """Several lives of a broker, one after the other, on the same disk.

    Args:
        disk: an empty one.

    Attributes:
        disk: what is left of it, for the next life.
        lives: how many there were, with this one.
        reads: what the core wants to read back, with the answers of reads that are done already.
        tags: how many consumers there were.
        thirst: how much of what is published clients want, in this life.
    """

    def __init__(self, seed: int, disk: Disk) -> None:
        self.random = Random(seed)
        self.ledger = Ledger()
        self.disk = disk
        self.harness = Harness(store=self.disk)
        self.clients: list[SimulatedClient] = []
        self.reads: list[tuple[Fetch, Fetched | None]] = []
        self.lives = 0
        self.tags = 0
        self.thirst = 1.0
        self._waiting: list[SimulatedClient] = []

    def run(self, lives: int) -> None:
        """So many lives, each with the death that ends it."""
        for _ in range(lives):
            self.lives += 1
            self.live(self.random.choice(ACTS_OF_A_LIFE))
            self.die()

    # --- a life -----------------------------------------------------------------------------------

    def live(self, acts: int) -> None:
        """Starts a broker and does so many acts."""
        hotpath = self.random.random() < 0.5
        self.harness = Harness(self.config(), hotpath=hotpath, store=self.disk)
        self.harness.commits = self.harness.fetches = False
        self.thirst = self.random.choice((0.0, 0.2, 1.0, 1.0))
        self.reads.clear()
        self.clients = [SimulatedClient(self.harness, self.ledger) for _ in range(CLIENTS)]
        for act in (*OPENING, *self.random.choices(ACTS, cum_weights=CUMULATED, k=acts)):
            self.begin()
            act(self)
            self.end()

    def config(self) -> Config:
        """Limits that are reached all the time, or never."""
        choice = self.random.choice
        return Config(
            limits=Limits(
                queue_memory_bytes_max=choice((500, 2000, 10_000, 100_000)),
                queues_memory_bytes_max=choice((20_000, 1 << 30)),
                uncommitted_bytes_max=choice((5000, 100_000)),
                output_bytes_high=choice((1000, 1 << 20)),
            )
        )

    def begin(self) -> None:
        """Something is about to happen."""
        self.ledger.ticket = self.harness.core.broker.journal.ticket
        self._waiting = [each for each in self.clients if each.link.session.flow.suspended]

    def end(self) -> None:
        """It has happened: all listen."""
        refused = self._refuse_gets()
        for client in (*refused, *self.clients):
            client.listen()
        # What comes back from a channel that is refused, does so behind other deliveries.
        self.ledger.check_orders(strict=not refused)
        self.ledger.nothing_undone(self.disk.safe_ticket)
        wanted, self.harness.wanted = self.harness.wanted, []
        for fetch in wanted:
            # Everything that is wanted is stored by now, so it can be read at any time.
            early = self.random.random() < 0.5
            self.reads.append((fetch, self.disk.fetch(fetch) if early else None))

    def _refuse_gets(self) -> list[SimulatedClient]:
        """Clients that waited for a queue that is gone are told so; who they were."""
        refused = [each for each in self._waiting if not each.link.closed and each.waits_in_vain]
        for client in refused:
            client.refuse_get()
        return refused

    # --- who and what -----------------------------------------------------------------------------

    def speaker(self, has: Has = bool) -> tuple[SimulatedClient, ChannelModel | None]:
        """A client, and one of its channels if it can speak: one that has something, if any has."""
        speakers = [each for each in self.clients if each.can_speak]
        pairs = [(each, channel) for each in speakers for channel in each.open if has(channel)]
        return self.random.choice(pairs) if pairs else (self.clients[0], None)

    def usable_queue(self, client: SimulatedClient) -> QueueModel | None:
        """A queue that the client may use."""
        queues = [each for each in self.ledger.queues.values() if each.owner in (None, client)]
        return self.random.choice(queues) if queues else None

    def may_use(self, client: SimulatedClient, queue: str) -> bool:
        """Whether the queue is not another client's alone."""
        return self.ledger.queues[queue].owner in (None, client)

    def replace(self, client: SimulatedClient) -> None:
        """The client's socket closes, and another one comes."""
        client.link.close()
        place = self.clients.index(client)
        self.clients[place] = SimulatedClient(self.harness, self.ledger)

    # --- at rest ----------------------------------------------------------------------------------

    def come_to_rest(self) -> None:
        """All is committed, read and heard; then nobody waits for anything any more."""
        self.begin()
        for client in self.clients:
            client.link.read_again()
        self.end()
        harness = self.harness
        while harness.held or self.reads:
            self.begin()
            harness.commit(1)
            if self.reads:
                self.answer_a_read()
            self.end()
        for client in self.clients:
            client.check_at_rest()
        for queue in self.ledger.queues.values():
            self._check_at_rest(queue, harness.core.broker.queues[queue.queue_id])
        harness.commit()
        self._check_spilled()

    def answer_a_read(self) -> None:
        """The core gets one of the answers that it waits for."""
        fetch, answer = self.reads.pop(self.random.randrange(len(self.reads)))
        self.harness.core.fetched(fetch, answer or self.disk.fetch(fetch), self.harness.now)
        self.harness.settle()

    def _check_at_rest(self, queue: QueueModel, real: RealQueue) -> None:
        assert (real.ready, real.unacked) == (len(queue.ready), len(queue.unacked))
        assert real.kept == queue.kept
        hungry = [each for each in queue.consumers if each.channel.has_room(each)]
        assert not (queue.ready and hungry), f"{queue.name} does not deliver"

    def _check_spilled(self) -> None:
        """What is in memory again, or gone, is not on the disk any more."""
        for queue in self.harness.core.broker.queues.values():
            for line in queue.backlog.lines:
                spilled = self.disk.spilled.get(line.queue_id)
                assert not spilled or min(spilled) >= line.window.behind_from

    # --- the end of a life ------------------------------------------------------------------------

    def die(self) -> None:
        """The broker ends in one of three ways, and what must be there is."""
        if self.random.random() < 0.3:
            self.come_to_rest()
        ways = (self._crash, self._crash, self._lose_power, self._stop)
        way = self.random.choice(ways)
        disk = way()
        promised = max(client.promised for client in self.clients)
        assert promised <= self.disk.ticket, "what was promised is lost"
        self.ledger.restart(self.disk.ticket, exact=way == self._stop)
        self.disk = disk
        self._check_what_is_left()

    def _crash(self) -> Disk:
        self._commit_perhaps()
        return self.disk.crash()

    def _lose_power(self) -> Disk:
        self._commit_perhaps()
        return self.disk.lose_power(self.random.randint(0, len(self.disk.at_risk)))

    def _commit_perhaps(self) -> None:
        """What is on its way to the disk may arrive, although nobody learns of it."""
        if self.harness.held and self.random.random() < 0.5:
            self.disk.commit(self.harness.held[0])

    def _stop(self) -> Disk:
        for client in self.clients:
            self.begin()
            client.end()
            client.link.close()
            self.end()
        self.harness.core.stopped()
        self.harness.settle()
        self.harness.commit()
        return self.disk.crash()

    def _check_topology(self, vhost: Vhost) -> None:
        """Queues, exchanges and bindings are those that were committed."""
        ledger, made = self.ledger, vhost.exchanges.keys() - {name for name, _, _ in PREDECLARED}
        queues = {queue.queue_id: queue.name for queue in vhost.queues.values()}
        assert queues == {queue.queue_id: queue.name for queue in ledger.queues.values()}
        assert made == ledger.exchanges.keys()
        assert ledger.bindings.keys() == {
            (exchange.name, binding.key, binding.destination.name)
            for exchange in vhost.exchanges.values()
            for binding in exchange.bindings.values()
        }

    def _check_what_is_left(self) -> None:
        """Another broker on a copy has what it should, and nothing is left when it is drained."""
        with self.disk.copy() as disk:
            harness = Harness(self.config(), store=disk)
            self._check_topology(harness.core.broker.vhosts["/"])
            self._drain(Client(harness))
            harness.commit()
            assert harness.core.broker.memory.held == 0
            assert not any(disk.messages.values())
            assert not disk.spilled
            assert all(standing.messages == 0 for standing in disk.standings.values())

    def _drain(self, client: Client) -> None:
        """Takes all there is, and compares it with the ledger."""
        counts: dict[str, int] = {}
        found: dict[str, list[tuple[int, bool]]] = {}
        for name in self.ledger.queues:
            told = client.ask(Queue.Declare(queue=name, passive=True))
            counts[name], found[name] = told.method.message_count, []
        for name in self.ledger.queues:
            client.tell(Basic.Consume(queue=name, consumer_tag=name, no_ack=True))
        for told in client.heard():
            if isinstance(told.method, Basic.Deliver):
                uid = int(told.body.split(b".")[0])
                assert self.ledger.published[uid].body == told.body
                found[told.method.consumer_tag].append((uid, told.method.redelivered))
        for name, queue in self.ledger.queues.items():
            queue.recovered(found[name])
            assert counts[name] == len(found[name])

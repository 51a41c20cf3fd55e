"""Delayed messages against a model: each comes once, when it is due, whatever happens meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from watching import no_internal_error

from amqpd.broker.broker import QUEUE_IDS
from amqpd.broker.queues.deferred import HEAP_SHARE
from amqpd.config import Config
from amqpd.config.settings import Limits
from amqpd.storage.memory import MemoryStore
from amqpd.storage.sqlite import SqliteStore
from amqpd.testing.client import Client, publish_bytes
from amqpd.testing.harness import Harness, Store
from amqpd.wire.methods import Basic, Confirm, Exchange, Queue

TINY = Config(limits=Limits(queue_memory_bytes_max=20_000))

steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 60), st.integers(1, 500)),
        st.tuples(st.just("publish"), st.integers(1, 5), st.integers(1, 5_000)),
        st.tuples(st.just("wait"), st.integers(1, 1_500), st.none()),
        st.tuples(st.just("hold fetches"), st.none(), st.none()),
        st.tuples(st.just("fetch"), st.none(), st.none()),
        st.tuples(st.just("crash"), st.integers(0, 700), st.none()),
    ),
    max_size=25,
)


class Delays:
    """A broker with a delayed message exchange, and what it owes."""

    def __init__(self, store: Store, config: Config, *, durable: bool = True) -> None:
        self.store = store
        self.config = config
        self.durable = durable
        self.harness = Harness(config, store=store)
        self.client = Client(self.harness)
        self.owed: list[tuple[int, bytes]] = []  # when due, in ms, and the body
        self.published = 0
        self.declare()

    def declare(self) -> None:
        self.client.ask(
            Exchange.Declare(
                exchange="x",
                exchange_type="x-delayed-message",
                durable=self.durable,
                arguments={"x-delayed-type": "fanout"},
            )
        )
        self.client.ask(Queue.Declare(queue="q", durable=True))
        self.client.ask(Queue.Bind(queue="q", exchange="x"))
        self.client.tell(Basic.Consume(queue="q", no_ack=True))
        self.client.heard()

    @property
    def now_ms(self) -> int:
        return round((self.harness.core.broker.epoch + self.harness.now) * 1000)

    def publish(self, count: int, spread_ms: int) -> None:
        data = b""
        for place in range(count):
            delay = 1 + (self.published + place) * 7919 % spread_ms
            body = b"%06d" % (self.published + place)
            self.owed.append((self.now_ms + delay, body))
            data += publish_bytes(body, exchange="x", headers={"x-delay": delay}, delivery_mode=2)
        self.published += count
        self.client.send(data)

    def wait(self, ms: int, _: Any) -> None:
        self.harness.wait(ms / 1000 + 1e-6)  # sums of fractions are not what they should be
        if self.harness.fetches:
            self.check()

    def hold_fetches(self, *_: Any) -> None:
        self.harness.fetches = False

    def fetch(self, *_: Any) -> None:
        self.harness.fetches = True
        self.harness.fetch()
        self.check()

    def check(self) -> None:
        """All that was due has come, in its order, and nothing else."""
        self.owed.sort(key=lambda each: each[0])
        due = [each for each in self.owed if each[0] <= self.now_ms]
        self.owed = self.owed[len(due) :]
        told = [each for each in self.client.heard() if isinstance(each.method, Basic.Deliver)]
        assert sorted(each.body for each in told) == sorted(body for _, body in due)
        assert self.line.waiting == len(self.owed)

    @property
    def line(self) -> Any:
        return self.harness.core.broker.vhosts["/"].exchanges["x"].router.line

    def crash(self, down_ms: int, _: Any) -> None:
        if not self.durable:
            return
        self.fetch()
        self.harness.commit()
        wall = self.harness.core.broker.epoch + self.harness.now + down_ms / 1000
        self.harness = Harness(self.config, store=self.store, epoch=round(wall, 3))
        self.client = Client(self.harness)
        self.client.tell(Basic.Consume(queue="q", no_ack=True))
        self.check()

    def finish(self) -> None:
        self.fetch()
        self.wait(6_000, None)
        assert self.owed == []
        assert self.harness.core.broker.memory.held == 0
        self.harness.commit()
        assert self.line.standing() is None or self.line.standing().bytes == 0


@contextmanager
def stored(kind: str) -> Iterator[Store]:
    if kind == "memory":
        yield MemoryStore()
        return
    with TemporaryDirectory() as directory:
        file = SqliteStore(Path(directory) / "amqpd.db")
        yield file
        file.close()


def play(delays: Delays, conversation: list[tuple[str, Any, Any]]) -> None:
    for what, first, second in conversation:
        getattr(delays, what.replace(" ", "_"))(first, second)
    delays.finish()


@given(steps, st.sampled_from((TINY, Config())), st.booleans())
def test_each_message_comes_once_when_it_is_due(
    conversation: list[tuple[str, Any, Any]], config: Config, durable: bool
) -> None:
    play(Delays(MemoryStore(), config, durable=durable), conversation)


@settings(max_examples=max(5, settings.default.max_examples // 10))
@given(steps, st.booleans())
def test_it_does_so_also_from_a_file(
    conversation: list[tuple[str, Any, Any]], durable: bool
) -> None:
    with stored("file") as store:
        play(Delays(store, TINY, durable=durable), conversation)


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("kind", ["memory", "file"])
def test_what_is_held_in_memory_does_not_grow_with_what_waits(kind: str, durable: bool) -> None:
    with stored(kind) as store:
        delays = Delays(store, TINY, durable=durable)
        for _ in range(20):
            delays.publish(200, 5_000)
            held = delays.harness.core.broker.memory.held
            assert held <= 2 * TINY.limits.queue_memory_bytes_max // HEAP_SHARE
        assert delays.line.waiting == 4000
        for _ in range(60):
            delays.wait(100, None)
        delays.finish()


def test_messages_that_are_missing_in_the_store_are_not_waited_for() -> None:
    store = MemoryStore()
    delays = Delays(store, TINY)
    delays.publish(100, 1_000)
    line = store.messages[delays.line.queue_id]
    for number in list(line)[::10]:
        del line[number]
    harness = Harness(TINY, store=store)
    client = Client(harness)
    client.tell(Basic.Consume(queue="q", no_ack=True))
    harness.wait(2)
    told = [each for each in client.heard() if isinstance(each.method, Basic.Deliver)]
    assert len(told) == 90
    assert harness.core.broker.vhosts["/"].exchanges["x"].router.line.waiting == 0


def test_a_message_that_waits_is_confirmed_when_the_disk_has_it() -> None:
    delays = Delays(MemoryStore(), Config())
    delays.client.ask(Confirm.Select())
    delays.harness.commits = False
    delays.publish(1, 1_000)
    assert delays.client.heard() == []
    delays.harness.commits = True
    delays.harness.commit()
    (told,) = delays.client.heard()
    assert isinstance(told.method, Basic.Ack)


def test_a_purge_meets_a_message_that_has_just_been_released() -> None:
    harness = Harness()
    client = Client(harness)
    client.ask(Queue.Declare(queue="p", durable=True, arguments={"x-delayed": True}))
    for delay_ms in (100, 5000):
        client.publish(b"a", routing_key="p", headers={"x-delay": delay_ms})
    harness.wait(0.11)
    assert client.ask(Queue.Purge(queue="p")).method.message_count == 1
    harness.wait(10)
    assert client.ask(Basic.Get(queue="p", no_ack=True)).method.name == "Basic.GetEmpty"


def test_a_message_that_does_not_come_to_its_queue_is_not_confirmed() -> None:
    harness = Harness()
    client = Client(harness)
    arguments = {"x-delayed": True}
    client.ask(Queue.Declare(queue="p", durable=True, arguments=arguments))
    client.ask(Confirm.Select())
    lines = harness.core.broker.lines  # no number is left for the line in which it is to wait
    lines.update(dict.fromkeys(set(range(QUEUE_IDS)) - set(lines), next(iter(lines.values()))))
    client.publish(b"a", routing_key="p", headers={"x-delay": 100}, delivery_mode=2)
    assert [told.method.name for told in client.heard()] == ["Connection.Close"]


def test_what_was_delivered_of_a_transient_exchange_leaves_the_scratch_file() -> None:
    store = MemoryStore()
    harness = Harness(store=store)
    client = Client(harness)
    arguments = {"x-delayed-type": "fanout"}
    client.ask(
        Exchange.Declare(exchange="x", exchange_type="x-delayed-message", arguments=arguments)
    )
    for delay in (1000, 2000, 3000):
        client.send(publish_bytes(exchange="x", headers={"x-delay": delay}) * 10)
    harness.commit()
    left = []
    for _ in range(3):
        left.append(sum(map(len, store.spilled.values())))
        harness.wait(1)
        harness.commit()
    assert left == [30, 20, 10]
    assert not store.spilled


def test_what_is_purged_stays_gone_though_the_disk_has_it_still() -> None:
    harness = Harness(TINY)
    client = Client(harness)
    client.ask(Queue.Declare(queue="q", durable=True, arguments={"x-delayed": True}))
    harness.commit()

    def publish(delay: int, *numbers: int) -> None:
        for number in numbers:
            headers = {"x-delay": delay + number}
            body = b"%d." % number + bytes(1000)
            client.send(publish_bytes(body, routing_key="q", delivery_mode=2, headers=headers))

    publish(5000, *range(100))
    harness.commits = False
    client.tell(Queue.Purge(queue="q"))
    publish(1000, *range(100, 140))
    line = harness.core.broker.vhosts["/"].queues["q"].waiting_line
    assert line is not None
    with no_internal_error():
        harness.wait(1.2)  # what is due next is read back, and what the purge has not reached yet
        harness.commits = True
        harness.commit()
        client.tell(Basic.Consume(queue="q", no_ack=True))
        harness.wait(9)
        found = [int(body.split(b".")[0]) for body in client.bodies()]
    assert found == list(range(100, 140))
    assert line.waiting == 0

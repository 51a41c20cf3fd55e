"""Message groups, whatever consumers do: each in order, one message at a time, nothing left."""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from amqpd.config import Config
from amqpd.config.settings import Limits
from amqpd.storage.memory import MemoryStore
from amqpd.storage.sqlite import SqliteStore
from amqpd.storage.upkeep import Sizes
from amqpd.testing.client import Client, publish_bytes
from amqpd.testing.harness import Harness, Store
from amqpd.wire.methods import Basic, Queue

ARGUMENTS = {"x-message-groups": True}
WINDOWS = (1000, 5000, 1_000_000)


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Both stores must do."""
    if request.param == "memory":
        yield MemoryStore()
    else:
        file = SqliteStore(tmp_path / "amqpd.db", "off", Sizes())
        yield file
        file.close()


def started(store: Store, window: int = 1_000_000) -> Harness:
    return Harness(Config(limits=Limits(queue_memory_bytes_max=window)), store=store)


def fill(harness: Harness, groups: int, messages: int) -> None:
    """Numbered messages of groups that take turns."""
    client = Client(harness)
    client.ask(Queue.Declare(queue="q", durable=True, arguments=ARGUMENTS))
    for number in range(messages):
        headers = {"x-group-id": f"g{number % groups}"}
        client.send(
            publish_bytes(b"%d" % number, routing_key="q", headers=headers, delivery_mode=2)
        )


class Worker:
    """A consumer with its unsettled messages: delivery tags and numbers."""

    def __init__(self, harness: Harness, prefetch: int) -> None:
        self.client = Client(harness)
        self.unsettled: list[tuple[int, int]] = []
        self.client.ask(Basic.Qos(prefetch_count=prefetch))
        self.client.tell(Basic.Consume(queue="q", consumer_tag="w"))

    def listen(self) -> list[int]:
        new = [
            (told.method.delivery_tag, int(told.body))
            for told in self.client.heard()
            if isinstance(told.method, Basic.Deliver)
        ]
        self.unsettled += new
        return [number for _, number in new]

    def settle(self, place: int, *, requeue: bool) -> int:
        tag, number = self.unsettled.pop(place)
        method: Any = Basic.Nack(delivery_tag=tag, requeue=True) if requeue else Basic.Ack(tag)
        self.client.tell(method)
        return number


@pytest.mark.parametrize("seed", range(12))
def test_each_group_goes_in_order_and_one_message_at_a_time(store: Store, seed: int) -> None:
    random = Random(seed)
    groups, messages = random.choice((1, 3, 40)), 120
    harness = started(store, random.choice(WINDOWS))
    fill(harness, groups, messages)
    workers = [Worker(harness, random.choice((1, 3, 20))) for _ in range(3)]
    done: dict[int, list[int]] = {group: [] for group in range(groups)}
    while sum(map(len, done.values())) < messages:
        for worker in workers:
            worker.listen()
        out = [number % groups for worker in workers for _, number in worker.unsettled]
        assert len(out) == len(set(out)), "two messages of one group at a time"
        assert out, "nothing is delivered any more"
        worker = random.choice([worker for worker in workers if worker.unsettled])
        place = random.randrange(len(worker.unsettled))
        requeue = random.random() < 0.3
        number = worker.settle(place, requeue=requeue)
        if not requeue:
            done[number % groups].append(number)
    for group, numbers in done.items():
        assert numbers == list(range(group, messages, groups))
    assert_nothing_is_left(harness)


@pytest.mark.parametrize("seed", range(12))
def test_a_limit_drops_what_came_first_and_each_group_keeps_its_order(
    store: Store, seed: int
) -> None:
    random = Random(seed)
    groups, limit = random.choice((1, 3, 40)), 10
    harness = started(store)
    client = Client(harness)
    client.ask(Queue.Declare(queue="dead"))
    dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    arguments = {**ARGUMENTS, "x-max-length": limit, **dead}
    client.ask(Queue.Declare(queue="q", durable=True, arguments=arguments))
    client.tell(Basic.Consume(queue="dead", no_ack=True))
    workers = [Worker(harness, random.choice((1, 3, 20))) for _ in range(2)]
    queue = harness.core.broker.vhosts["/"].queues["q"]
    waiting: list[int] = []  # published and neither delivered nor dropped
    done = 0
    for number in range(300):
        headers = {"x-group-id": f"g{number % groups}"}
        client.send(
            publish_bytes(b"%d" % number, routing_key="q", headers=headers, delivery_mode=2)
        )
        waiting.append(number)
        for worker in workers:
            for came in worker.listen():
                assert came == next(each for each in waiting if each % groups == came % groups)
                waiting.remove(came)
        for body in client.bodies():
            assert int(body) == waiting.pop(0), "what came first is dropped first"
            done += 1
        assert queue.ready == len(waiting) <= limit
        busy = [worker for worker in workers if worker.unsettled]
        if busy and random.random() < 0.6:
            worker = random.choice(busy)
            worker.settle(random.randrange(len(worker.unsettled)), requeue=False)
            done += 1
    for worker in workers * 20:
        worker.listen()
        while worker.unsettled:
            worker.settle(0, requeue=False)
            done += 1
    assert done == 300
    assert_nothing_is_left(harness)


def assert_nothing_is_left(harness: Harness) -> None:
    backlog: Any = harness.core.broker.vhosts["/"].queues["q"].backlog
    assert (backlog.ready, backlog.ready_bytes, backlog.window_bytes) == (0, 0, 0)
    assert not backlog._parked
    assert not backlog._group_of
    assert harness.core.broker.memory.held == 0


def test_all_that_was_not_acknowledged_comes_back_in_order_after_a_crash(store: Store) -> None:
    harness = started(store, 3000)
    fill(harness, 4, 100)
    worker = Worker(harness, 3)
    worker.listen()
    worker.settle(0, requeue=False)
    harness.wait(1)
    again = started(store, 3000)
    found: list[int] = []
    worker = Worker(again, 2)
    while worker.listen():
        while worker.unsettled:
            found.append(worker.settle(0, requeue=False))
    assert sorted(found) == list(range(1, 100))
    for group in range(4):
        numbers = [number for number in found if number % 4 == group]
        assert numbers == sorted(numbers)
    assert_nothing_is_left(again)


def test_what_stood_behind_its_group_is_not_redelivered_after_a_stop(store: Store) -> None:
    harness = started(store)
    fill(harness, 1, 5)
    worker = Worker(harness, 1)
    assert worker.listen() == [0]
    worker.settle(0, requeue=False)
    worker.client.link.close()
    harness.core.stopped()
    harness.commit()
    client = Client(started(store))
    client.tell(Basic.Consume(queue="q", no_ack=True))
    told = [each.method for each in client.heard() if isinstance(each.method, Basic.Deliver)]
    assert [each.redelivered for each in told] == [True, False, False, False]


def test_groups_cost_nothing_when_they_are_idle(store: Store) -> None:
    harness = started(store)
    fill(harness, 1000, 1000)
    worker = Worker(harness, 1000)
    assert len(worker.listen()) == 1000
    worker.client.tell(Basic.Ack(delivery_tag=0, multiple=True))
    assert_nothing_is_left(harness)


def test_what_is_purged_does_not_hold_its_group_up(store: Store) -> None:
    harness = started(store)
    fill(harness, 1, 5)
    worker = Worker(harness, 5)
    assert worker.listen() == [0]
    assert Client(harness).ask(Queue.Purge(queue="q")).method.message_count == 4
    fill(harness, 1, 1)
    assert worker.listen() == []
    worker.settle(0, requeue=False)
    assert worker.listen() == [0]


@pytest.mark.parametrize("drops", ["expiration", "x-max-length"])
def test_what_is_dropped_makes_room_for_groups_that_were_not_seen(drops: str) -> None:
    harness = Harness(Config(limits=Limits(queue_memory_bytes_max=100_000)))
    busy, idle, publisher = Client(harness), Client(harness), Client(harness)
    arguments: dict[str, Any] = {"x-message-groups": True}
    if drops == "x-max-length":
        arguments[drops] = 20
    busy.ask(Queue.Declare(queue="q", arguments=arguments))
    busy.ask(Basic.Qos(prefetch_count=1))
    busy.tell(Basic.Consume(queue="q"))
    publisher.publish(b"first", routing_key="q", headers={"x-group-id": "a"})
    idle.tell(Basic.Consume(queue="q", no_ack=True))
    expires = {"expiration": "1000"} if drops == "expiration" else {}
    for _ in range(12):
        publisher.publish(b"x" * 10_000, routing_key="q", headers={"x-group-id": "a"}, **expires)
    publisher.publish(b"1", routing_key="q", headers={"x-group-id": "b"})
    assert idle.bodies() == []
    if drops == "x-max-length":
        for _ in range(12):
            publisher.publish(b"2", routing_key="q", headers={"x-group-id": "b"})
    harness.wait(2)
    assert idle.bodies()[:1] == [b"1"]

"""Streams that are larger than what is held in memory of them, across restarts, and in parts."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from amqpd.broker.queues.cursor import FILTERED_MESSAGES
from amqpd.broker.queues.queue import FILTERED_READS
from amqpd.broker.queues.queue import Queue as QueueModel
from amqpd.config import Config
from amqpd.config.settings import Limits, Policy
from amqpd.storage.memory import MemoryStore
from amqpd.storage.sqlite import SqliteStore
from amqpd.storage.upkeep import Sizes
from amqpd.testing.client import Client, publish_bytes
from amqpd.testing.harness import Harness, Store
from amqpd.wire.methods import Basic, Queue, encode_method

WINDOW = 4000
CONFIG = Config(limits=Limits(queue_memory_bytes_max=WINDOW))
STREAM = {"x-queue-type": "stream"}


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Both stores must do."""
    if request.param == "memory":
        yield MemoryStore()
    else:
        file = SqliteStore(tmp_path / "amqpd.db", "off", Sizes())
        yield file
        file.close()


@pytest.fixture(params=[True, False], ids=["hot", "slow"])
def harness(request: pytest.FixtureRequest, store: Store) -> Harness:
    return Harness(CONFIG, hotpath=request.param, store=store, epoch=1_000_000)


def restarted(harness: Harness) -> Harness:
    """The broker on the same store after a crash."""
    return Harness(CONFIG, store=harness.store, epoch=harness.core.broker.epoch + harness.now)


def declare(harness: Harness, **arguments: Any) -> None:
    arguments = {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}
    Client(harness).ask(Queue.Declare(queue="s", durable=True, arguments=STREAM | arguments))


def publish(harness: Harness, first: int, below: int, size: int = 0, **properties: Any) -> None:
    """Publishes numbered messages, a few at a time."""
    client = Client(harness)
    for start in range(first, below, 7):
        numbers = range(start, min(start + 7, below))
        client.send(
            b"".join(
                publish_bytes(b"%0*d" % (size, n), routing_key="s", **properties) for n in numbers
            )
        )


def the(harness: Harness) -> QueueModel:
    return harness.core.broker.vhosts["/"].queues["s"]


class Reader:
    """A consumer of the stream that acknowledges when it is told to."""

    def __init__(
        self, harness: Harness, offset: Any, prefetch: int = 20, tag: str = "r", **arguments: Any
    ) -> None:
        self.client = Client(harness)
        self.client.ask(Basic.Qos(prefetch_count=prefetch))
        arguments = {f"x-stream-{name.replace('_', '-')}": each for name, each in arguments.items()}
        if offset is not None:
            arguments["x-stream-offset"] = offset
        self.client.tell(Basic.Consume(queue="s", consumer_tag=tag, arguments=arguments))

    def some(self) -> list[tuple[int, int]]:
        """Offsets and bodies of what was delivered."""
        found: list[tuple[int, int]] = []
        for told in self.client.heard():
            if isinstance(told.method, Basic.Deliver):
                self.last_tag = told.method.delivery_tag
                assert told.method.redelivered is False
                found.append((told.properties.headers["x-stream-offset"], int(told.body[-9:])))
        return found

    def ack(self) -> None:
        self.client.send(encode_method(1, Basic.Ack(delivery_tag=self.last_tag, multiple=True)))

    def all(self) -> list[tuple[int, int]]:
        """The same until there is no more, all acknowledged."""
        found: list[tuple[int, int]] = []
        while some := self.some():
            found += some
            self.ack()
        return found


def same(numbers: range) -> list[tuple[int, int]]:
    """Messages whose bodies are their offsets."""
    return [(number, number) for number in numbers]


@pytest.mark.parametrize("prefetch", [1, 7, 1000])
def test_a_stream_much_larger_than_memory_is_read_in_order_from_the_first(
    harness: Harness, prefetch: int
) -> None:
    declare(harness)
    publish(harness, 0, 300)
    assert harness.core.broker.memory.held < WINDOW
    assert Reader(harness, "first", prefetch).all() == same(range(300))
    assert the(harness).ready == 300
    assert the(harness).unacked == 0


def test_readers_go_at_their_own_speeds_and_one_that_stops_holds_nobody_up(
    harness: Harness,
) -> None:
    declare(harness)
    slow = Reader(harness, "first", prefetch=1)
    fast = Reader(harness, "next")
    publish(harness, 0, 200)
    assert fast.all() == same(range(200))
    late = Reader(harness, 150, prefetch=3)
    publish(harness, 200, 300)
    assert fast.all() == same(range(200, 300))
    assert late.all() == same(range(150, 300))
    assert slow.all() == same(range(300))
    assert harness.core.broker.memory.held <= WINDOW


def test_a_reader_of_the_past_catches_up_while_publishing_goes_on(harness: Harness) -> None:
    declare(harness)
    publish(harness, 0, 200)
    reader, read, number = Reader(harness, "first", prefetch=50), [], 200
    while some := reader.some():
        read += some
        if number < 600:
            publish(harness, number, number + 20)
            number += 20
        reader.ack()
    assert read == same(range(number))


def test_all_is_there_after_a_crash_and_offsets_go_on(harness: Harness) -> None:
    declare(harness)
    publish(harness, 0, 40)
    again = restarted(harness)
    publish(again, 40, 60)
    assert the(again).ready == 60
    assert Reader(again, "first").all() == same(range(60))
    assert Reader(again, "last").all() == same(range(59, 60))


def test_nothing_is_delivered_before_it_is_committed(harness: Harness) -> None:
    declare(harness)
    reader = Reader(harness, "first")
    harness.commits = False
    publish(harness, 0, 30)
    assert reader.some() == []
    again = restarted(harness)
    assert Reader(again, "first").all() == []
    harness.commits = True
    harness.commit()
    assert reader.all() == same(range(30))


def test_a_reader_that_waits_for_the_store_misses_nothing(harness: Harness) -> None:
    declare(harness)
    publish(harness, 0, 100)
    harness.fetches = False
    reader = Reader(harness, "first", prefetch=200)
    assert reader.some() == []
    publish(harness, 100, 150)
    assert reader.some() == []
    harness.fetches = True
    harness.fetch()
    assert reader.all() == same(range(150))


def test_a_reader_that_leaves_while_the_store_reads_for_it_is_forgotten(harness: Harness) -> None:
    declare(harness)
    publish(harness, 0, 100)
    harness.fetches = False
    reader = Reader(harness, "first")
    reader.client.link.close()
    harness.fetches = True
    harness.fetch()
    assert harness.core.broker.memory.held == 0
    assert the(harness).unacked == 0


def test_nothing_is_held_in_memory_when_the_readers_have_gone(harness: Harness) -> None:
    declare(harness)
    readers = [Reader(harness, "first", prefetch=5) for _ in range(3)]
    publish(harness, 0, 100)
    for reader in readers:
        assert reader.some() == same(range(5))
        reader.client.link.close()
    assert harness.core.broker.memory.held == 0


def test_a_time_is_found_in_the_store_and_in_memory(harness: Harness) -> None:
    declare(harness)
    for second in range(50):
        publish(harness, second * 4, second * 4 + 4)
        harness.wait(1)
    assert Reader(harness, "30s").all() == same(range(80, 200))
    Reader(harness, "next", prefetch=1)  # now some is kept in memory
    for second in range(50, 60):
        publish(harness, second * 4, second * 4 + 4)
        harness.wait(1)
    assert Reader(harness, "5s").all() == same(range(220, 240))
    assert Reader(harness, "40s").all() == same(range(80, 240))
    assert Reader(harness, "1h").all() == same(range(240))
    assert Reader(harness, "0s").all() == []


def test_a_filter_that_leaves_out_many_lets_others_have_their_turn(store: Store) -> None:
    harness = Harness(store=store)
    declare(harness)
    client = Client(harness)
    for number in range(60):
        hay = {"x-stream-filter-value": f"hay {number}"}
        client.send(publish_bytes(routing_key="s", headers=hay) * 100)
    client.publish(b"needle", routing_key="s", headers={"x-stream-filter-value": "needle"})
    client.ask(Basic.Qos(prefetch_count=10))
    wanted = {"x-stream-offset": "first", "x-stream-filter": "needle"}
    client.tell(Basic.Consume(queue="s", arguments=wanted))
    (consumer,) = the(harness).selection.consumers
    assert consumer.cursor is not None
    turns = 0
    while not client.bodies():
        before = consumer.cursor.number or 0
        harness.core.tick(harness.now)
        harness.settle()
        assert (consumer.cursor.number or 0) - before <= FILTERED_READS * FILTERED_MESSAGES
        turns += 1
    assert turns >= 4


def test_a_filter_finds_what_it_wants_behind_thousands_that_it_does_not(harness: Harness) -> None:
    declare(harness)
    for start in range(0, 300, 50):
        publish(harness, start, start + 49, headers={"x-stream-filter-value": "hay"})
        publish(harness, start + 49, start + 50, headers={"x-stream-filter-value": "needle"})
    found = Reader(harness, "first", prefetch=2, filter="needle").all()
    assert found == same(range(49, 300, 50))


# --- retention ------------------------------------------------------------------------------------


def test_of_a_stream_with_a_maximal_size_the_oldest_part_goes(harness: Harness) -> None:
    size, bytes_max = 10_000, 800_000
    declare(harness, max_length_bytes=bytes_max)
    publish(harness, 0, 200, size)
    kept = the(harness).ready
    assert 0.8 * bytes_max < kept * size <= bytes_max + 70 * 1024
    assert Reader(harness, "first").all() == same(range(200 - kept, 200))
    assert Reader(harness, 0).all()[0][0] == 200 - kept
    again = restarted(harness)
    assert the(again).ready == kept
    publish(again, 200, 300, size)
    still = the(again).ready
    assert 0.8 * bytes_max < still * size <= bytes_max + 70 * 1024
    assert Reader(again, "first").all() == same(range(300 - still, 300))


def test_the_last_messages_stay_however_large_they_are(harness: Harness) -> None:
    declare(harness, max_length_bytes=200_000)
    client = Client(harness)
    client.send(publish_bytes(b"x" * 150_000, routing_key="s") * 2)
    assert the(harness).ready == 1
    client.publish(b"y" * 200_001, routing_key="s")
    harness.commit()
    assert the(harness).ready == 1
    assert the(restarted(harness)).ready == 1


def test_of_many_messages_that_come_at_once_as_many_stay_as_of_others(harness: Harness) -> None:
    declare(harness, max_length_bytes=200_000)
    for _ in range(5):
        Client(harness).send(publish_bytes(b"x" * 1000, routing_key="s") * 300)
    assert 200 - 66 <= the(harness).ready <= 200


def test_what_is_too_old_goes_however_often_the_broker_starts(harness: Harness) -> None:
    declare(harness, max_age="1h")
    for minute in range(180):
        publish(harness, minute, minute + 1)
        harness.wait(60)
        harness = restarted(harness)
    offsets = [offset for offset, _ in Reader(harness, "first").all()]
    assert 100 < offsets[0] <= 120
    assert offsets == list(range(offsets[0], 180))


def test_what_is_too_old_goes_when_something_new_comes(harness: Harness) -> None:
    declare(harness, max_age="1h")
    for minute in range(0, 180, 10):
        publish(harness, minute, minute + 10)
        harness.wait(600)
    offsets = [offset for offset, _ in Reader(harness, "first").all()]
    assert 100 < offsets[0] <= 120
    assert offsets == list(range(offsets[0], 180))


def test_a_reader_of_what_goes_goes_on_with_what_is_left(harness: Harness) -> None:
    declare(harness, max_length_bytes=500_000)
    publish(harness, 0, 30, 10_000)
    reader = Reader(harness, "first", prefetch=5)
    assert reader.some() == same(range(5))
    publish(harness, 30, 200, 10_000)
    reader.ack()
    rest = reader.all()
    assert rest[-1] == (199, 199)
    assert [offset for offset, _ in rest] == sorted({offset for offset, _ in rest})


def test_a_policy_shortens_streams_that_are_there(store: Store) -> None:
    before = Harness(CONFIG, store=store)
    declare(before, stream_max_segment_size_bytes=100_000)
    publish(before, 0, 100, 10_000)
    assert the(before).ready == 100
    limits = {"max-length-bytes": 300_000}
    policy = Policy(name="short", pattern="^s$", apply_to="streams", definition=limits)
    after = Harness(Config(policies=[policy]), store=store)
    assert the(after).ready == 30


def test_a_reader_that_wants_nothing_lets_others_have_their_turn() -> None:
    harness = Harness()
    declare(harness)
    below = 8 * FILTERED_READS * FILTERED_MESSAGES
    tail, picky = Reader(harness, "next"), Client(harness)
    picky.send(publish_bytes(b"", routing_key="s") * below)
    while tail.client.heard():
        tail.client.send(encode_method(1, Basic.Ack(delivery_tag=0, multiple=True)))
    picky.ask(Basic.Qos(prefetch_count=10))
    arguments = {"x-stream-offset": "first", "x-stream-filter": "none"}
    consume = Basic.Consume(queue="s", consumer_tag="picky", arguments=arguments)
    picky.send(encode_method(1, consume) + publish_bytes(b"", routing_key="s"))
    assert the(harness).unacked == 1  # of the one at the tail, in the first turn


# --- places that are remembered -------------------------------------------------------------------


def remembered(harness: Harness, prefetch: int = 10, offset: Any = "first") -> Reader:
    arguments = {"automatic_offset_tracking": True}
    return Reader(harness, offset, prefetch, "app", **arguments)


def test_a_place_is_remembered_across_a_crash(harness: Harness) -> None:
    declare(harness)
    publish(harness, 0, 100)
    reader = remembered(harness)
    assert reader.some() == same(range(10))
    reader.ack()
    assert reader.some() == same(range(10, 20))
    harness.wait(1)
    again = restarted(harness)
    assert remembered(again).all() == same(range(10, 100))
    assert remembered(again).all() == []


@pytest.mark.parametrize("offset", ["next", "last", "1h"])
def test_who_has_acknowledged_nothing_begins_where_it_began(harness: Harness, offset: str) -> None:
    declare(harness)
    publish(harness, 0, 3)
    remembered(harness, offset=offset).client.link.close()
    publish(harness, 3, 5)
    again = restarted(harness)
    again.wait(3600 if offset == "1h" else 0)
    publish(again, 5, 7)
    first = {"next": 3, "last": 2, "1h": 0}[offset]
    assert remembered(again, offset=offset).all() == same(range(first, 7))


def test_a_single_active_consumer_begins_where_the_one_before_it_began(harness: Harness) -> None:
    declare(harness, single_active_consumer=True)
    one, other = (remembered(harness, offset="next") for _ in range(2))
    publish(harness, 0, 3)
    assert (one.some(), other.some()) == (same(range(3)), [])
    one.client.link.close()
    assert other.all() == same(range(3))


def test_late_acks_of_a_consumer_that_has_gone_take_no_place_back(harness: Harness) -> None:
    declare(harness)
    publish(harness, 0, 30)
    reader = remembered(harness)
    assert reader.some() == same(range(10))
    late = reader.last_tag
    reader.client.ask(Basic.Cancel(consumer_tag="app"))
    assert remembered(harness, prefetch=30).all() == same(range(30))
    reader.client.tell(Basic.Ack(delivery_tag=late, multiple=True))
    assert the(harness).stream.places == {"app": 30}


def test_a_place_that_is_gone_is_the_first_that_is_left(harness: Harness) -> None:
    declare(harness, max_length_bytes=500_000)
    publish(harness, 0, 10, 10_000)
    reader = remembered(harness, 5)
    reader.some()
    reader.ack()
    reader.client.link.close()
    publish(harness, 10, 200, 10_000)
    first = 200 - the(harness).ready
    assert remembered(harness).all() == same(range(first, 200))


def test_places_are_forgotten_with_the_stream(harness: Harness) -> None:
    declare(harness)
    publish(harness, 0, 10)
    reader = remembered(harness)
    reader.some()
    reader.ack()
    Client(harness).ask(Queue.Delete(queue="s"))
    declare(harness)
    publish(harness, 0, 10)
    assert remembered(harness).all() == same(range(10))
    harness.wait(1)
    assert remembered(restarted(harness)).all() == []


def test_a_stream_that_is_deleted_leaves_nothing_behind(harness: Harness) -> None:
    declare(harness, max_length_bytes=500_000)
    reader = remembered(harness, 5)
    publish(harness, 0, 100, 10_000)
    reader.some()
    Client(harness).ask(Queue.Delete(queue="s"))
    assert harness.core.broker.memory.held == 0
    recovered = restarted(harness).store.recover()
    assert not recovered.segments
    assert not recovered.places
    assert not recovered.standings


def test_declare_ok_counts_readers(harness: Harness) -> None:
    declare(harness)
    for _ in range(2):
        Reader(harness, "next")
    told = Client(harness).ask(Queue.Declare(queue="s", passive=True))
    assert told.method.consumer_count == 2


def test_an_ack_that_comes_after_the_stream_has_gone_leaves_nothing_behind(
    harness: Harness,
) -> None:
    declare(harness)
    publish(harness, 0, 10)
    reader = remembered(harness)
    reader.some()
    Client(harness).ask(Queue.Delete(queue="s"))
    reader.ack()
    harness.wait(1)
    recovered = harness.store.recover()
    assert not recovered.places
    assert not recovered.standings


def test_who_waits_for_a_time_beyond_2106_gets_nothing_before_it(harness: Harness) -> None:
    declare(harness)
    publish(harness, 0, 30)
    assert Reader(harness, datetime(2200, 1, 1, tzinfo=UTC)).some() == []

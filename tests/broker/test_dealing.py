"""Who gets what: turns, priorities, prefetch, and what idle consumers cost."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpd.testing.client import Client, publish_bytes
from amqpd.testing.harness import Harness
from amqpd.wire.methods import Basic, Channel, Queue, encode_method


class Bench:
    """A queue `q`, a publisher, and consumers on connections of their own."""

    def __init__(self) -> None:
        self.harness = Harness()
        self.publisher = Client(self.harness)
        self.publisher.ask(Queue.Declare(queue="q"))
        self.sent = 0

    def consumer(self, prefetch: int = 0, **consume: Any) -> Client:
        client = Client(self.harness)
        client.ask(Basic.Qos(prefetch_count=prefetch))
        client.ask(Basic.Consume(queue="q", **consume))
        return client

    def send(self, count: int) -> None:
        """Publishes bodies "1", "2", ... in one read."""
        numbers = range(self.sent + 1, self.sent + count + 1)
        self.sent += count
        self.publisher.send(b"".join(publish_bytes(b"%d" % n, routing_key="q") for n in numbers))


def bodies(client: Client) -> list[int]:
    return [int(body) for body in client.bodies()]


def tags(client: Client) -> list[int]:
    return [
        told.method.delivery_tag
        for told in client.heard()
        if isinstance(told.method, Basic.Deliver)
    ]


def test_consumers_get_one_message_each_in_turn() -> None:
    bench = Bench()
    first, second, third = (bench.consumer() for _ in range(3))
    bench.send(7)
    assert [bodies(each) for each in (first, second, third)] == [[1, 4, 7], [2, 5], [3, 6]]


def test_the_turn_goes_on_where_it_was_with_the_next_read() -> None:
    bench = Bench()
    consumers = [bench.consumer(no_ack=True) for _ in range(3)]
    for count in (1, 1, 2, 4, 1):
        bench.send(count)
    assert [bodies(each) for each in consumers] == [[1, 4, 7], [2, 5, 8], [3, 6, 9]]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(1, 5))
def test_dealing_is_fair_however_the_messages_come(reads: list[int], ways: int) -> None:
    bench = Bench()
    consumers = [bench.consumer(no_ack=True) for _ in range(ways)]
    for count in reads:
        bench.send(count)
    got = [bodies(each) for each in consumers]
    assert sorted(number for each in got for number in each) == list(range(1, bench.sent + 1))
    assert all(each == sorted(each) for each in got)
    assert max(map(len, got)) - min(map(len, got)) <= 1


def test_a_consumer_of_higher_priority_gets_all_until_it_is_full() -> None:
    bench = Bench()
    low = bench.consumer()
    high = bench.consumer(prefetch=3, arguments={"x-priority": 5})
    bench.send(5)
    assert (bodies(high), bodies(low)) == ([1, 2, 3], [4, 5])


def test_a_consumer_of_higher_priority_comes_first_again_when_it_has_room() -> None:
    bench = Bench()
    low = bench.consumer(prefetch=1)
    high = bench.consumer(prefetch=1, arguments={"x-priority": 5})
    bench.send(4)
    assert (bodies(high), bodies(low)) == ([1], [2])
    high.tell(Basic.Ack(delivery_tag=1))
    assert bodies(high) == [3]
    low.tell(Basic.Ack(delivery_tag=1))
    assert bodies(low) == [4]


def test_a_consumer_gets_no_more_than_its_prefetch() -> None:
    bench = Bench()
    consumer = bench.consumer(prefetch=2)
    bench.send(5)
    assert bodies(consumer) == [1, 2]
    consumer.tell(Basic.Ack(delivery_tag=1))
    assert bodies(consumer) == [3]
    consumer.tell(Basic.Ack(delivery_tag=3, multiple=True))
    assert bodies(consumer) == [4, 5]


def test_a_prefetch_that_is_changed_is_that_of_later_consumers() -> None:
    bench = Bench()
    consumer = bench.consumer(prefetch=1)
    consumer.ask(Basic.Qos(prefetch_count=9))
    bench.send(3)
    assert bodies(consumer) == [1]
    consumer.tell(Basic.Consume(queue="q"))
    assert bodies(consumer) == [2, 3]


def test_the_consumers_of_a_channel_share_a_global_prefetch() -> None:
    bench = Bench()
    consumer = Client(bench.harness)
    consumer.ask(Basic.Qos(prefetch_count=3, global_=True))
    consumer.ask(Basic.Consume(queue="q", consumer_tag="a"))
    consumer.ask(Basic.Consume(queue="q", consumer_tag="b"))
    bench.send(9)
    assert bodies(consumer) == [1, 2, 3]
    consumer.tell(Basic.Ack(delivery_tag=2))
    assert bodies(consumer) == [4]
    consumer.tell(Basic.Qos(prefetch_count=5, global_=True))
    assert bodies(consumer) == [5, 6]


def test_a_consumer_that_goes_leaves_what_it_has_to_its_channel() -> None:
    bench = Bench()
    consumer = bench.consumer(prefetch=2, consumer_tag="c")
    bench.send(3)
    assert bodies(consumer) == [1, 2]
    assert consumer.ask(Basic.Cancel(consumer_tag="c")).method.consumer_tag == "c"
    consumer.tell(Basic.Ack(delivery_tag=1))
    assert bench.publisher.ask(Queue.Declare(queue="q", passive=True)).method.message_count == 1
    consumer.tell(Channel.Close(200, "", 0, 0))
    assert bench.publisher.ask(Queue.Declare(queue="q", passive=True)).method.message_count == 2


def test_messages_that_come_back_stand_where_they_were() -> None:
    bench = Bench()
    consumer = bench.consumer(prefetch=4, consumer_tag="c")
    bench.send(6)
    assert bodies(consumer) == [1, 2, 3, 4]
    consumer.ask(Basic.Cancel(consumer_tag="c"))
    for tag in (3, 1):
        consumer.tell(Basic.Reject(delivery_tag=tag, requeue=True))
    got = [bench.publisher.ask(Basic.Get(queue="q", no_ack=True)) for _ in range(4)]
    assert [told.body for told in got] == [b"1", b"3", b"5", b"6"]
    assert [told.method.redelivered for told in got] == [True, True, False, False]


@given(st.permutations(range(1, 9)), st.integers(1, 8))
def test_whoever_gives_messages_back_in_whatever_order_they_stay_in_order(
    order: list[int], count: int
) -> None:
    bench = Bench()
    consumer = bench.consumer(prefetch=8, consumer_tag="c")
    bench.send(12)
    consumer.ask(Basic.Cancel(consumer_tag="c"))
    back = order[:count]
    for tag in back:
        consumer.tell(Basic.Nack(delivery_tag=tag, requeue=True))
    found = []
    while isinstance(
        (told := bench.publisher.ask(Basic.Get(queue="q", no_ack=True))).method, Basic.GetOk
    ):
        found.append(int(told.body))
    assert found == [*sorted(back), 9, 10, 11, 12]


def calls_of(action: Callable[[], Any]) -> int:
    count = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


def full_consumers(bench: Bench, count: int) -> Client:
    """Consumers of `q` on one connection, each with its one message."""
    idle = Client(bench.harness)
    idle.ask(Basic.Qos(prefetch_count=1))
    idle.send(
        b"".join(
            encode_method(1, Basic.Consume(queue="q", consumer_tag=str(n), nowait=True))
            for n in range(count)
        )
    )
    bench.send(count)
    assert len(tags(idle)) == count
    return idle


@pytest.mark.slow
def test_a_message_costs_the_same_beside_a_thousand_full_consumers() -> None:
    """Slow because it makes a thousand consumers."""
    costs = []
    for count in (1, 1000):
        bench = Bench()
        full_consumers(bench, count)
        worker = bench.consumer(prefetch=1)
        bench.send(1)
        ack = encode_method(1, Basic.Ack(delivery_tag=1))
        bench.send(1)
        costs.append(calls_of(lambda worker=worker, ack=ack: worker.send(ack)))
        assert len(tags(worker)) == 2
    assert costs[1] <= costs[0] + 2


@pytest.mark.slow
def test_a_message_costs_the_same_beside_a_thousand_queues_and_sessions() -> None:
    """Slow because it makes a thousand queues."""
    costs = []
    for count in (1, 1000):
        bench = Bench()
        for _ in range(count // 10):
            Client(bench.harness)
        bench.publisher.send(
            b"".join(
                encode_method(1, Queue.Declare(queue=f"idle{n}", nowait=True)) for n in range(count)
            )
        )
        bench.consumer(no_ack=True)
        bench.send(1)
        data = publish_bytes(b"1", routing_key="q")
        costs.append(calls_of(lambda bench=bench, data=data: bench.publisher.send(data)))
    assert costs[1] <= costs[0] + 2

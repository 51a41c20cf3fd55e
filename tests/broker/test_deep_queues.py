"""Queues that are larger than their windows, as clients see them."""

from typing import Any

import pytest

from amqpd.broker.fetch import Fetched
from amqpd.broker.queues.queue import Queue as QueueModel
from amqpd.config import Config
from amqpd.config.settings import Limits
from amqpd.testing.client import Client, publish_bytes
from amqpd.testing.harness import Harness
from amqpd.wire.methods import Basic, Channel, Connection, Queue, encode_method

WINDOW = 2000
CONFIG = Config(limits=Limits(queue_memory_bytes_max=WINDOW))


@pytest.fixture(params=[True, False], ids=["hot", "slow"])
def harness(request: pytest.FixtureRequest) -> Harness:
    """A broker with the durable queue `d` and the transient queue `t`."""
    harness = Harness(CONFIG, hotpath=request.param)
    client = Client(harness)
    client.ask(Queue.Declare(queue="d", durable=True))
    client.ask(Queue.Declare(queue="t"))
    return harness


def restarted(harness: Harness) -> Harness:
    return Harness(CONFIG, store=harness.store)


def fill(harness: Harness, queue: str, count: int, mode: int = 2, first: int = 0) -> Client:
    """Publishes numbered messages, a few at a time."""
    client = Client(harness)
    for start in range(first, first + count, 7):
        numbers = range(start, min(start + 7, first + count))
        client.send(
            b"".join(
                publish_bytes(b"%d" % n, routing_key=queue, delivery_mode=mode) for n in numbers
            )
        )
    return client


def the(harness: Harness, queue: str) -> QueueModel:
    return harness.core.broker.vhosts["/"].queues[queue]


def numbers(client: Client) -> list[int]:
    return [int(body) for body in client.bodies()]


def count(client: Client, queue: str) -> int:
    return client.ask(Queue.Declare(queue=queue, passive=True)).method.message_count


def get(client: Client, queue: str, *, no_ack: bool = True) -> Any:
    return client.ask(Basic.Get(queue=queue, no_ack=no_ack))


def taken_from_the_window(harness: Harness, queue: str) -> None:
    """Gets what is at hand while nothing is read back."""
    harness.fetches = False
    client = Client(harness)
    while the(harness, queue).backlog.at_hand:
        get(client, queue)


@pytest.mark.parametrize("prefetch", [0, 1, 5])
@pytest.mark.parametrize("mode", [1, 2])
@pytest.mark.parametrize("queue", ["d", "t"])
def test_a_queue_much_larger_than_its_window_delivers_everything_in_order(
    harness: Harness, queue: str, mode: int, prefetch: int
) -> None:
    fill(harness, queue, 300, mode)
    assert the(harness, queue).backlog.behind > 280
    assert harness.core.broker.memory.held <= WINDOW
    client = Client(harness)
    client.ask(Basic.Qos(prefetch_count=prefetch))
    client.tell(Basic.Consume(queue=queue))
    got: list[int] = []
    while heard := numbers(client):
        assert len(heard) == prefetch or not prefetch
        got += heard
        client.tell(Basic.Ack(delivery_tag=0, multiple=True))
    assert got == list(range(300))
    harness.commit()
    assert harness.core.broker.memory.held == 0
    assert harness.store.spilled == {}
    assert not any(harness.store.messages.values())


def test_a_restarted_queue_delivers_everything_in_order(harness: Harness) -> None:
    fill(harness, "d", 300)
    harness = restarted(harness)
    assert harness.core.broker.memory.held == 0
    client = Client(harness)
    client.tell(Basic.Consume(queue="d", no_ack=True))
    assert numbers(client) == list(range(300))
    assert count(client, "d") == 0


def test_two_queues_share_the_messages_of_a_fanout_and_neither_needs_the_other(
    harness: Harness,
) -> None:
    client = Client(harness)
    for queue in ("d", "t"):
        client.ask(Queue.Bind(queue=queue, exchange="amq.fanout"))
    for n in range(200):
        client.publish(b"%d" % n, exchange="amq.fanout", delivery_mode=1 + n % 2)
    for queue in ("d", "t"):
        client.tell(Basic.Consume(queue=queue, no_ack=True))
        assert numbers(client) == list(range(200))


def test_counts_are_exact_for_messages_that_are_only_in_the_file(harness: Harness) -> None:
    fill(harness, "d", 100)
    harness = restarted(harness)
    client = Client(harness)
    assert count(client, "d") == 100
    assert client.ask(Queue.Delete(queue="d", if_empty=True)).method.reply_code == 406
    client.tell(Channel.CloseOk())
    client.tell(Channel.Open())
    client.heard()
    told = get(client, "d", no_ack=False)
    assert (told.body, told.method.message_count) == (b"0", 99)
    assert client.ask(Queue.Purge(queue="d")).method.message_count == 99
    assert the(harness, "d").kept == 1
    fill(harness, "d", 50)
    assert client.ask(Queue.Delete(queue="d")).method.message_count == 50
    assert harness.store.messages == {}


def test_a_purge_forgets_what_is_being_fetched(harness: Harness) -> None:
    fill(harness, "d", 100)
    taken_from_the_window(harness, "d")
    client = Client(harness)
    client.tell(Basic.Consume(queue="d", no_ack=True))
    left = the(harness, "d").ready
    purger = fill(harness, "d", 10, first=100)
    assert purger.ask(Queue.Purge(queue="d")).method.message_count == left + 10
    fill(harness, "d", 90, first=1000)
    harness.fetch()
    harness.fetches = True
    assert numbers(client) == list(range(1000, 1090))
    assert harness.store.messages == {1: {}}


def test_what_was_read_before_a_purge_is_dropped_also_while_something_else_is_read(
    harness: Harness,
) -> None:
    fill(harness, "d", 100)
    taken_from_the_window(harness, "d")
    client = Client(harness)
    client.tell(Basic.Consume(queue="d"))
    old = harness.wanted.pop()
    read = harness.store.fetch(old)
    assert read.numbers
    client.ask(Queue.Purge(queue="d"))
    client.ask(Basic.Qos(prefetch_count=1, global_=True))
    fill(harness, "d", 100, first=1000)
    client.tell(Basic.Ack(delivery_tag=0, multiple=True))
    assert len(harness.wanted) == 1
    harness.core.fetched(old, read, harness.now)
    assert len(harness.wanted) == 1
    harness.fetches = True
    harness.fetch()
    got: list[int] = []
    while heard := numbers(client):
        got += heard
        client.tell(Basic.Ack(delivery_tag=0, multiple=True))
    assert got == list(range(1000, 1100))


def test_what_is_being_fetched_for_a_deleted_queue_does_not_turn_up_in_its_successor(
    harness: Harness,
) -> None:
    fill(harness, "t", 100)
    taken_from_the_window(harness, "t")
    client = Client(harness)
    client.tell(Basic.Consume(queue="t", no_ack=True))
    client.ask(Queue.Delete(queue="t"))
    client.ask(Queue.Declare(queue="t"))
    client.tell(Basic.Consume(queue="t", no_ack=True))
    harness.fetch()
    assert numbers(client) == []
    assert harness.store.spilled == {}
    assert harness.core.broker.memory.held == 0


def test_requeued_messages_go_to_their_places_before_those_behind_the_window(
    harness: Harness,
) -> None:
    fill(harness, "d", 100)
    client = Client(harness)
    client.ask(Basic.Qos(prefetch_count=50))
    client.tell(Basic.Consume(queue="d", consumer_tag="c"))
    assert numbers(client) == list(range(50))
    client.ask(Basic.Cancel(consumer_tag="c"))
    for tag in (46, 8, 31):
        client.tell(Basic.Nack(delivery_tag=tag))
    assert count(client, "d") == 53
    client.tell(Basic.Consume(queue="d", no_ack=True))
    told = [each for each in client.heard() if isinstance(each.method, Basic.Deliver)]
    assert [int(each.body) for each in told] == [7, 30, 45, *range(50, 100)]
    assert [each.method.redelivered for each in told] == [True] * 3 + [False] * 50


def test_transient_messages_behind_the_window_live_as_long_as_the_broker(harness: Harness) -> None:
    fill(harness, "d", 100, mode=1)
    fill(harness, "d", 20, mode=2, first=100)
    fill(harness, "t", 100, mode=2)
    harness.commit()
    assert harness.store.spilled.keys() == {1, 2}
    assert (the(harness, "d").ready, the(harness, "d").kept) == (120, 20)
    client = Client(harness)
    assert [int(get(client, "d").body) for _ in range(50)] == list(range(50))
    harness = restarted(harness)
    client = Client(harness)
    assert harness.store.spilled == {}
    assert count(client, "d") == 20
    client.tell(Basic.Consume(queue="d", no_ack=True))
    assert numbers(client) == list(range(100, 120))


def test_a_transient_queue_that_goes_takes_along_what_it_has_spilled(harness: Harness) -> None:
    client = fill(harness, "t", 100)
    harness.commit()
    assert len(harness.store.spilled[2]) > 80
    assert client.ask(Queue.Delete(queue="t")).method.message_count == 100
    harness.commit()
    assert harness.store.spilled == {}
    assert harness.core.broker.memory.held == 0


@pytest.mark.parametrize("queue", ["d", "t"])
def test_a_consumer_that_keeps_up_makes_the_window_whole_again(
    harness: Harness, queue: str
) -> None:
    """The publisher does not pause; else a queue that was once deep would stay on the disk."""
    fill(harness, queue, 100)
    client = Client(harness)
    client.tell(Basic.Consume(queue=queue, no_ack=True))
    got = numbers(client)
    for turn in range(10):
        fill(harness, queue, 7, first=100 + 7 * turn)
        got += numbers(client)
        assert the(harness, queue).backlog.behind == 0
    assert got == list(range(170))


@pytest.mark.parametrize("queue", ["d", "t"])
def test_what_is_on_its_way_to_the_disk_is_delivered_from_memory(
    harness: Harness, queue: str
) -> None:
    harness.commits = harness.fetches = False
    fill(harness, queue, 300)
    assert the(harness, queue).backlog.behind > 280
    client = Client(harness)
    client.tell(Basic.Consume(queue=queue, no_ack=True))
    assert the(harness, queue).ready == 0
    assert harness.wanted == []
    harness.commit()
    assert numbers(client) == list(range(300))
    assert not any(harness.store.messages.values())
    assert harness.store.spilled == {}


def test_what_is_committed_comes_from_the_store_and_the_rest_from_memory(harness: Harness) -> None:
    fill(harness, "d", 100)
    harness.commits = harness.fetches = False
    fill(harness, "d", 100, first=100)
    client = Client(harness)
    client.tell(Basic.Consume(queue="d"))
    while harness.wanted or harness.held:
        harness.fetch()
        harness.commit(1)
    assert numbers(client) == list(range(200))


def test_all_queues_together_hold_no_more_than_they_may_and_little_each() -> None:
    limits = Limits(queue_memory_bytes_max=200_000, queues_memory_bytes_max=300_000)
    harness = Harness(Config(limits=limits))
    client = Client(harness)
    for n in range(10):
        client.ask(Queue.Declare(queue=f"q{n}"))
        for _ in range(15):
            client.publish(b"." * 20_000, routing_key=f"q{n}")
    held = harness.core.broker.memory.held
    assert 300_000 <= held <= 300_000 + 10 * 65_536
    assert all(the(harness, f"q{n}").backlog.at_hand >= 3 for n in range(10))
    for n in range(10):
        client.tell(Basic.Consume(queue=f"q{n}", no_ack=True))
        assert client.bodies() == [b"." * 20_000] * 15
    assert harness.core.broker.memory.held == 0


# --- messages that the store cannot give back -----------------------------------------------------


def answer_badly(harness: Harness, damaged: int, lost: int) -> None:
    """Answers a fetch of everything with its first messages damaged and the next ones missing."""
    fetch = harness.wanted.pop()
    found = harness.store.fetch(fetch)
    assert found.read_below == fetch.below
    bad = damaged + lost
    answer = Fetched(
        found.numbers[bad:], found.messages[bad:], found.numbers[:damaged], found.read_below
    )
    harness.core.fetched(fetch, answer, harness.now)
    harness.settle()


@pytest.mark.parametrize(("damaged", "lost"), [(2, 0), (0, 2), (1, 1), (6, 0), (0, 6)])
def test_messages_that_are_damaged_or_missing_are_not_waited_for(
    harness: Harness, damaged: int, lost: int
) -> None:
    fill(harness, "d", 6)
    harness = restarted(harness)
    harness.fetches = False
    client = Client(harness)
    client.tell(Basic.Consume(queue="d"))
    answer_badly(harness, damaged, lost)
    assert numbers(client) == list(range(damaged + lost, 6))
    assert count(client, "d") == 0
    harness.commit()
    assert the(harness, "d").kept == harness.store.standings[1].messages == 6 - damaged - lost


def test_missing_messages_that_were_spilled_are_no_loss_of_kept_ones(harness: Harness) -> None:
    fill(harness, "d", 1)
    fill(harness, "d", 20, mode=1)
    harness.fetches = False
    client = Client(harness)
    client.tell(Basic.Consume(queue="d"))
    harness.store.spilled.clear()
    while harness.wanted:
        harness.fetch()
    assert (the(harness, "d").ready, the(harness, "d").kept) == (0, 1)


@pytest.mark.parametrize("queue", ["d", "t"])
def test_large_headers_count_as_large_bodies_do(harness: Harness, queue: str) -> None:
    client = Client(harness)
    for number in range(50):
        headers = {"large": f"{number:0900}"}
        client.send(publish_bytes(b"%d" % number, routing_key=queue, headers=headers))
    assert the(harness, queue).backlog.behind > 40
    assert harness.core.broker.memory.held <= WINDOW
    client.tell(Basic.Consume(queue=queue, no_ack=True))
    assert numbers(client) == list(range(50))
    assert harness.core.broker.memory.held == 0


def test_what_comes_back_is_held_in_memory_too(harness: Harness) -> None:
    fill(harness, "t", 100)
    client = Client(harness)
    client.tell(Basic.Consume(queue="t"))
    assert len(numbers(client)) == 100
    assert harness.core.broker.memory.held == 0
    client.link.close()
    held = harness.core.broker.memory.held
    assert held > 100 * 165
    fill(harness, "t", 10, first=100)  # there is no room for them
    assert harness.core.broker.memory.held == held
    client = Client(harness)
    client.tell(Basic.Consume(queue="t", no_ack=True))
    assert numbers(client) == list(range(110))
    assert harness.core.broker.memory.held == 0


def test_a_message_that_cannot_be_delivered_does_not_stop_other_queues(harness: Harness) -> None:
    """It cannot come from a store; but whatever a bug is, it must not spread."""
    fill(harness, "d", 2)
    harness = restarted(harness)
    harness.fetches = False
    client, other = Client(harness), Client(harness)
    client.ask(Queue.Declare(queue="t"))
    other.tell(Basic.Consume(queue="t", no_ack=True))
    client.ask(Basic.Qos(prefetch_count=1))
    client.tell(Basic.Consume(queue="d"))
    (fetch,) = harness.wanted
    found = harness.store.fetch(fetch)
    good = found.messages[0]
    bad: Any = (None, good[1], good[2], True)
    answer = Fetched(found.numbers, [good, bad], [], found.read_below)
    harness.core.fetched(fetch, answer, harness.now)
    harness.settle()
    assert numbers(client) == [0]
    ack = encode_method(1, Basic.Ack(delivery_tag=1))
    client.send(ack + publish_bytes(b"1", routing_key="t"))
    assert client.heard()[0].method.reply_code == 541
    fill(harness, "t", 1, first=2)
    assert numbers(other) == [1, 2]


def test_a_transient_queue_has_nothing_to_keep_whatever_is_missing(harness: Harness) -> None:
    fill(harness, "t", 20)
    harness.commit()
    harness.fetches = False
    harness.store.spilled.clear()
    client = Client(harness)
    client.tell(Basic.Consume(queue="t", no_ack=True))
    while harness.wanted:
        harness.fetch()
    assert (the(harness, "t").ready, the(harness, "t").kept) == (0, 0)


def test_a_durable_queue_of_transient_messages_does_not_touch_the_disk(harness: Harness) -> None:
    client = Client(harness)
    client.tell(Basic.Consume(queue="d"))
    client.heard()
    harness.commits = False
    fill(harness, "d", 50, mode=1)
    assert numbers(client) == list(range(50))
    assert harness.held == []


# --- basic.get ------------------------------------------------------------------------------------


def test_a_get_waits_for_the_store_and_what_is_behind_it_waits_too(harness: Harness) -> None:
    fill(harness, "d", 60)
    taken_from_the_window(harness, "d")
    client, other = Client(harness), Client(harness)
    first = 60 - the(harness, "d").ready
    pipeline = [Basic.Get(queue="d", no_ack=True), Basic.Get(queue="d", no_ack=True)]
    client.tell(pipeline[0])
    client.tell(pipeline[1])
    client.tell(Basic.Qos(prefetch_count=1))
    client.publish(b"60", routing_key="d", delivery_mode=2)
    client.tell(Basic.Get(queue="t"))
    assert client.heard() == []
    assert count(other, "d") == 60 - first
    assert get(other, "t").method.name == "Basic.GetEmpty"
    harness.fetch()
    told = client.heard()
    assert [each.method.name for each in told] == [
        *("Basic.GetOk", "Basic.GetOk"),
        *("Basic.QosOk", "Basic.GetEmpty"),
    ]
    assert [each.body for each in told[:2]] == [b"%d" % first, b"%d" % (first + 1)]
    assert count(other, "d") == 59 - first


def test_gets_empty_a_queue_in_order_however_little_of_it_is_in_memory(harness: Harness) -> None:
    fill(harness, "d", 60)
    harness = restarted(harness)
    client = Client(harness)
    for _ in range(61):
        client.tell(Basic.Get(queue="d", no_ack=True))
    *told, last = client.heard()
    assert [int(each.body) for each in told] == list(range(60))
    assert [each.method.message_count for each in told] == list(range(59, -1, -1))
    assert last.method.name == "Basic.GetEmpty"


@pytest.mark.parametrize("end", ["purge", "delete", "requeue"])
def test_a_get_that_waits_is_answered_when_others_change_the_queue(
    harness: Harness, end: str
) -> None:
    fill(harness, "d", 60)
    client, other = Client(harness), Client(harness)
    get(other, "d", no_ack=False)
    taken_from_the_window(harness, "d")
    client.tell(Basic.Get(queue="d"))
    assert client.heard() == []
    if end == "purge":
        other.tell(Queue.Purge(queue="d"))
        assert client.heard()[0].method.name == "Basic.GetEmpty"
    elif end == "delete":
        other.tell(Queue.Delete(queue="d"))
        assert client.heard()[0].method.reply_code == 404
    else:
        other.tell(Basic.Reject(delivery_tag=1))
        assert client.heard()[0].body == b"0"
    harness.fetch()
    assert client.heard() == []


def test_of_many_that_wait_each_gets_its_own_message(harness: Harness) -> None:
    fill(harness, "d", 30)
    taken_from_the_window(harness, "d")
    clients = [Client(harness) for _ in range(12)]
    for client in clients:
        client.tell(Basic.Get(queue="d", no_ack=True))
    first = 30 - the(harness, "d").ready
    while harness.wanted:
        harness.fetch()
    got = [int(client.heard()[0].body) for client in clients]
    assert got == list(range(first, first + 12))


def test_a_get_that_waits_has_its_turn_before_a_consumer_that_takes_all(harness: Harness) -> None:
    fill(harness, "d", 60)
    taken_from_the_window(harness, "d")
    client, greedy = Client(harness), Client(harness)
    client.tell(Basic.Get(queue="d", no_ack=True))
    greedy.tell(Basic.Consume(queue="d", no_ack=True))
    first = 60 - the(harness, "d").ready
    harness.fetches = True
    harness.fetch()
    assert client.heard()[0].body == b"%d" % first
    assert numbers(greedy) == list(range(first + 1, 60))


@pytest.mark.parametrize("end", ["socket", "shutdown"])
def test_a_client_that_goes_while_its_get_waits_is_forgotten(harness: Harness, end: str) -> None:
    fill(harness, "d", 60)
    taken_from_the_window(harness, "d")
    client = Client(harness)
    client.tell(Basic.Get(queue="d"))
    client.tell(Queue.Purge(queue="d"))
    if end == "socket":
        client.link.close()
    else:
        harness.core.shutdown("test", harness.now)
        client.tell(Connection.CloseOk(), 0)
    assert client.link.closed
    left = the(harness, "d").ready
    assert the(harness, "d").waiters == {}
    harness.fetch()
    assert the(harness, "d").ready == left > 0

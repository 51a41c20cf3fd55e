"""A client that does not read: it is given no more, loses nothing, and others go on."""

import pytest

from amqpd.config import Config
from amqpd.config.settings import Limits
from amqpd.testing.client import Client, publish_bytes
from amqpd.testing.harness import Harness
from amqpd.wire.methods import Basic, Confirm, Queue, Tx

HIGH = 10_000
CONFIG = Config(limits=Limits(output_bytes_high=HIGH))
BODY = b"." * 100


@pytest.fixture(params=[True, False], ids=["hot", "slow"])
def harness(request: pytest.FixtureRequest) -> Harness:
    harness = Harness(CONFIG, hotpath=request.param)
    Client(harness).ask(Queue.Declare(queue="q"))
    return harness


def consumer(harness: Harness, *, no_ack: bool = True) -> Client:
    client = Client(harness)
    client.ask(Basic.Consume(queue="q", no_ack=no_ack))
    return client


def publish(harness: Harness, count: int, reads: int) -> None:
    """Numbered messages in so many reads."""
    publisher = Client(harness)
    for read in range(reads):
        numbers = range(read * count, (read + 1) * count)
        publisher.send(
            b"".join(publish_bytes(b"%06d" % n + BODY, routing_key="q") for n in numbers)
        )


def numbers(client: Client) -> list[int]:
    return [int(body[:6]) for body in client.bodies()]


@pytest.mark.parametrize("no_ack", [True, False], ids=["auto-ack", "ack"])
def test_a_consumer_that_does_not_read_is_given_a_bounded_number_and_all_later(
    harness: Harness, no_ack: bool
) -> None:
    client = consumer(harness, no_ack=no_ack)
    client.link.reads = False
    publish(harness, 50, 40)
    queue = harness.core.broker.vhosts["/"].queues["q"]
    assert client.session.clogged
    assert client.session.output.size < 2 * HIGH + 50 * 250  # one chunk more than the limit
    assert queue.ready > 1800
    client.link.read_again()
    assert numbers(client) == list(range(2000))
    assert not client.session.clogged


def test_a_consumer_that_reads_gets_what_the_one_that_does_not_leaves(harness: Harness) -> None:
    stuck, reading = consumer(harness), consumer(harness)
    stuck.link.reads = False
    publish(harness, 50, 20)
    got = numbers(reading)
    assert got == sorted(got)
    assert len(got) > 800
    stuck.link.read_again()
    assert sorted(got + numbers(stuck)) == list(range(1000))


def test_a_consumer_that_clogs_again_and_again_loses_nothing(harness: Harness) -> None:
    client = consumer(harness)
    got: list[int] = []
    publisher = Client(harness)
    for turn in range(60):
        client.link.reads = False
        data = [publish_bytes(b"%06d" % (turn * 40 + n) + BODY, routing_key="q") for n in range(40)]
        publisher.send(b"".join(data))
        if turn % 3 == 0:
            client.link.reads = True
            client.link.take_output()
            got += numbers(client)
    client.link.read_again()
    assert got + numbers(client) == list(range(2400))


def test_a_message_larger_than_the_limit_passes(harness: Harness) -> None:
    client = consumer(harness)
    publisher = Client(harness)
    for _ in range(3):
        publisher.publish(b"x" * 50_000, routing_key="q")
    assert [len(body) for body in client.bodies()] == [50_000] * 3


def test_a_client_with_a_small_frame_max_gets_bodies_in_frames_that_fit(harness: Harness) -> None:
    client = Client(harness, frame_bytes_max=8192)
    client.ask(Basic.Consume(queue="q", no_ack=True))
    publisher = Client(harness)
    for size in (0, 1, 8183, 8184, 8185, 16368, 16369, 100_000):
        publisher.publish(b"x" * size, routing_key="q")
        data = client.link.receive()
        assert longest_frame(data) <= 8192
        assert sum(map(len, [each.body for each in client._hearing.hear(data)])) == size


def longest_frame(data: bytes) -> int:
    longest = offset = 0
    while offset < len(data):
        size = int.from_bytes(data[offset + 3 : offset + 7], "big") + 8
        longest = max(longest, size)
        offset += size
    return longest


def test_what_a_session_has_taken_is_not_counted_any_more(harness: Harness) -> None:
    client = consumer(harness)
    publish(harness, 50, 3)
    assert len(numbers(client)) == 150
    assert client.session.output.size == 0


def test_settled_messages_are_not_kept_anywhere_in_the_session(harness: Harness) -> None:
    client = consumer(harness, no_ack=False)
    publish(harness, 50, 1)
    assert len(client.session.channels[1].unacked.by_tag) == 50
    client.tell(Basic.Ack(delivery_tag=0, multiple=True))
    assert client.session.channels[1].unacked.by_tag == {}


def test_a_transaction_is_forgotten_when_it_ends(harness: Harness) -> None:
    client = Client(harness)
    client.ask(Tx.Select())
    publish_all = b"".join(publish_bytes(BODY, routing_key="q") for _ in range(20))
    client.send(publish_all)
    channel = client.session.channels[1]
    assert len(channel.transaction.publishes) == 20
    client.ask(Tx.Rollback())
    assert channel.transaction.publishes == []


def test_routes_are_bounded_and_go_with_the_generation(harness: Harness) -> None:
    client = Client(harness)
    config = harness.core.broker.config.limits
    for number in range(config.envelopes_max + 10):
        client.publish(b"", routing_key=f"key{number}")
    assert len(client.session.routes.by_frame) <= config.envelopes_max
    client.ask(Queue.Declare(queue="another"))
    client.publish(b"", routing_key="q")
    assert len(client.session.routes.by_frame) == 1


def test_remembered_headers_are_bounded(harness: Harness) -> None:
    client = Client(harness)
    for number in range(1000):
        client.publish(b"x", routing_key="q", message_id=str(number))
    assert len(client.session.plain_headers) <= 256


def test_prefixes_of_a_consumer_are_bounded_by_the_lengths_of_names(harness: Harness) -> None:
    client = consumer(harness)
    Client(harness).ask(Queue.Bind(queue="q", exchange="amq.topic", routing_key="#"))
    publisher = Client(harness)
    for number in range(600):
        publisher.publish(b"x", exchange="amq.topic", routing_key="k" * (number % 256))
    held = client.session.channels[1].consumers.popitem()[1]
    assert len(held.prefixes) <= 512


def test_waiting_confirms_do_not_grow_with_messages() -> None:
    harness = Harness(CONFIG)
    client = Client(harness)
    client.ask(Queue.Declare(queue="d", durable=True))
    client.ask(Confirm.Select())
    harness.commits = False
    client.send(publish_bytes(b"x", routing_key="d", delivery_mode=2) * 500)
    assert len(client.session.channels[1].confirms._waiting) == 1

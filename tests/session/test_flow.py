"""When clients are not read: alarms, and too much on its way to the disk."""

import pytest

from amqpd.broker.journal import MESSAGE_OVERHEAD_BYTES
from amqpd.config import Config
from amqpd.config.settings import Limits
from amqpd.session.connection import READ_BYTES, READ_BYTES_MIN, SLOW_FRAMES_MAX
from amqpd.session.heartbeat import EMPTY_LOOKS_MAX
from amqpd.testing.client import Client, publish_bytes
from amqpd.testing.harness import Harness
from amqpd.wire.methods import Basic, Confirm, Connection, Exchange, Queue, Tx

UNCOMMITTED = 10_000
CONFIG = Config(limits=Limits(uncommitted_bytes_max=UNCOMMITTED, queue_memory_bytes_max=2000))
CAN_BLOCK = {"connection.blocked": True}


@pytest.fixture(params=[True, False], ids=["hot", "slow"])
def harness(request: pytest.FixtureRequest) -> Harness:
    """A broker with the durable queue `d` and the transient queue `t`."""
    harness = Harness(CONFIG, hotpath=request.param)
    client = Client(harness)
    client.ask(Queue.Declare(queue="d", durable=True))
    client.ask(Queue.Declare(queue="t"))
    return harness


def alarm(harness: Harness, resource: str, on: bool) -> None:
    harness.core.alarmed(resource, on, harness.now)
    harness.settle()


def methods(client: Client) -> list[str]:
    return [each.method.name for each in client.heard()]


# --- alarms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resources", "reason"),
    [
        (["memory"], "low on memory"),
        (["disk"], "low on disk"),
        (["store"], "low on disk"),
        (["disk", "store"], "low on disk"),
        (["memory", "disk"], "low on disk & memory"),
    ],
)
def test_a_publisher_is_told_once_why_it_is_not_read_and_when_it_is_again(
    harness: Harness, resources: list[str], reason: str
) -> None:
    client = Client(harness, capabilities=CAN_BLOCK)
    for resource in resources:
        alarm(harness, resource, True)
    assert client.heard() == []
    assert not client.session.flow.stopped
    client.publish(b"x", routing_key="d", delivery_mode=2)
    client.publish(b"y", routing_key="d", delivery_mode=2)
    (told,) = client.heard()
    assert (told.channel, told.method.name) == (0, "Connection.Blocked")
    assert told.method.reason == reason
    assert client.session.flow.stopped
    for resource in resources:
        assert client.heard() == []
        alarm(harness, resource, False)
    assert methods(client) == ["Connection.Unblocked"]
    assert not client.session.flow.stopped


@pytest.mark.parametrize("capabilities", [{}, {"connection.blocked": False}])
def test_a_publisher_that_cannot_hear_it_is_blocked_without_a_word(
    harness: Harness, capabilities: dict[str, bool]
) -> None:
    client = Client(harness, capabilities=capabilities)
    alarm(harness, "disk", True)
    client.publish(b"x", routing_key="d")
    assert client.session.flow.stopped
    alarm(harness, "disk", False)
    assert not client.session.flow.stopped
    assert client.heard() == []


def test_a_publisher_hears_that_it_is_blocked_also_while_it_waits_for_the_disk(
    harness: Harness,
) -> None:
    client = Client(harness, capabilities=CAN_BLOCK)
    harness.commits = False
    client.tell(Queue.Declare(queue="new", durable=True))
    alarm(harness, "store", True)
    client.publish(b"x", routing_key="d")
    assert methods(client) == ["Connection.Blocked"]
    alarm(harness, "store", False)
    assert methods(client) == ["Connection.Unblocked"]
    harness.commit()
    assert methods(client) == ["Queue.DeclareOk"]


def test_what_the_publisher_had_sent_before_it_was_blocked_is_taken(harness: Harness) -> None:
    client = Client(harness, capabilities=CAN_BLOCK)
    client.ask(Confirm.Select())
    alarm(harness, "memory", True)
    client.send(publish_bytes(b"x", routing_key="d", delivery_mode=2) * 5)
    assert methods(client) == ["Connection.Blocked", "Basic.Ack"]
    assert harness.core.broker.vhosts["/"].queues["d"].ready == 5


def test_clients_that_do_not_publish_are_read_while_something_runs_short(harness: Harness) -> None:
    publisher, consumer = Client(harness), Client(harness, capabilities=CAN_BLOCK)
    publisher.publish(b"x", routing_key="t")
    alarm(harness, "memory", True)
    consumer.ask(Basic.Consume(queue="t"))
    consumer.tell(Basic.Ack(delivery_tag=1))
    consumer.ask(Queue.Declare(queue="another"))
    consumer.ask(Exchange.Declare(exchange="e"))
    assert not consumer.session.flow.stopped
    assert harness.core.broker.vhosts["/"].queues["t"].unacked == 0


@pytest.mark.parametrize("where", ["nowhere", "t"])
def test_it_does_not_matter_where_a_client_publishes(harness: Harness, where: str) -> None:
    client = Client(harness, capabilities=CAN_BLOCK)
    alarm(harness, "disk", True)
    client.publish(b"x", routing_key=where)
    assert methods(client) == ["Connection.Blocked"]


def test_a_client_that_was_blocked_can_go_and_be_told_to_go(harness: Harness) -> None:
    client, other = Client(harness, capabilities=CAN_BLOCK), Client(harness)
    alarm(harness, "disk", True)
    for each in (client, other):
        each.publish(b"x", routing_key="d")
    other.link.close()
    harness.core.shutdown("test", harness.now)
    harness.settle()
    assert methods(client) == ["Connection.Blocked", "Connection.Close"]
    assert not client.session.flow.stopped  # its close-ok must be read
    alarm(harness, "disk", False)
    assert client.heard() == []
    client.tell(Connection.CloseOk(), 0)
    assert client.link.closed


def test_an_alarm_that_comes_and_goes_blocks_again(harness: Harness) -> None:
    client = Client(harness, capabilities=CAN_BLOCK)
    for _ in range(3):
        alarm(harness, "disk", True)
        client.publish(b"x", routing_key="d")
        alarm(harness, "disk", False)
        alarm(harness, "disk", False)
        client.publish(b"x", routing_key="d")
        assert methods(client) == ["Connection.Blocked", "Connection.Unblocked"]


# --- too much on its way to the disk --------------------------------------------------------------


def publish_until_stopped(client: Client, queue: str = "d") -> int:
    """How many messages it took."""
    for published in range(1000):
        if client.session.flow.stopped:
            return published
        client.publish(b"." * 500, routing_key=queue, delivery_mode=2)
    raise AssertionError("never stopped")


def test_who_declares_without_end_is_not_read_while_too_much_is_on_its_way_to_the_disk(
    harness: Harness,
) -> None:
    client, other = Client(harness), Client(harness)
    harness.commits = False
    declared = 0
    while not client.session.flow.stopped:
        declared += 1
        client.tell(Queue.Declare(queue=f"new{declared}", durable=True, nowait=True))
        assert declared < 100
    assert not other.session.flow.stopped
    harness.commit()
    assert not client.session.flow.stopped


@pytest.mark.parametrize("queue", ["d", "t"])
def test_publishers_are_not_read_while_too_much_is_on_its_way_to_the_disk(
    harness: Harness, queue: str
) -> None:
    publisher, consumer, idle = Client(harness), Client(harness), Client(harness)
    harness.commits = False
    published = publish_until_stopped(publisher, queue)
    size = 500 + MESSAGE_OVERHEAD_BYTES
    if queue == "d":
        assert (published - 2) * size <= UNCOMMITTED
    assert not consumer.session.flow.stopped
    consumer.tell(Basic.Consume(queue=queue))
    consumer.tell(Basic.Ack(delivery_tag=0, multiple=True))
    idle.ask(Basic.Qos(prefetch_count=1))
    assert publisher.session.flow.stopped
    harness.commit()
    assert not publisher.session.flow.stopped
    assert len(consumer.bodies()) == published
    if queue == "d":  # the other has a consumer now that takes all
        assert publish_until_stopped(publisher, queue) > 5


def test_a_publisher_that_has_reached_the_limit_does_not_wait_for_what_nobody_waits_for(
    harness: Harness,
) -> None:
    publisher = Client(harness)
    for _ in range(100):
        publisher.publish(b"." * 500, routing_key="t")  # of which most goes to the disk, lazily
        assert not publisher.session.flow.stopped


def test_a_publisher_whose_messages_go_nowhere_is_read(harness: Harness) -> None:
    publisher, other = Client(harness), Client(harness)
    harness.commits = False
    publish_until_stopped(publisher)
    other.publish(b"x", routing_key="nowhere")
    assert not other.session.flow.stopped


def test_a_client_that_has_not_logged_in_and_one_that_closes_are_read(harness: Harness) -> None:
    publisher = Client(harness)
    harness.commits = False
    publish_until_stopped(publisher)
    newcomer = harness.connect()
    assert not newcomer.session.flow.stopped
    publisher.tell(Connection.Close(200, "", 0, 0), 0)
    assert not publisher.session.flow.stopped


# --- heartbeats -----------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["alarm", "uncommitted", "get"])
def test_heartbeats_of_a_client_that_is_not_read_are_not_missed(harness: Harness, why: str) -> None:
    client = Client(harness, heartbeat_s=10)
    if why == "alarm":
        alarm(harness, "disk", True)
        client.publish(b"x", routing_key="d")
    elif why == "uncommitted":
        harness.commits = False
        publish_until_stopped(client)
    else:
        wait_for_the_store(harness, client)
    assert client.session.flow.stopped
    harness.wait(1000)
    assert not client.link.closed
    alarm(harness, "disk", False)
    harness.commit()
    harness.fetch()
    assert not client.session.flow.stopped
    harness.wait(10 * (EMPTY_LOOKS_MAX + 1))
    assert client.link.closed


def wait_for_the_store(harness: Harness, client: Client) -> None:
    """The client gets from a queue of which nothing is in memory."""
    for _ in range(10):
        client.publish(b"." * 1000, routing_key="d", delivery_mode=2)
    harness.fetches = False
    while not client.session.flow.suspended:
        client.tell(Basic.Get(queue="d", no_ack=True))


def test_heartbeats_to_a_client_do_not_wait_for_the_disk(harness: Harness) -> None:
    client = Client(harness, heartbeat_s=10)
    harness.commits = False
    client.tell(Queue.Declare(queue="new", durable=True))
    heard = 0
    for _ in range(20):
        harness.wait(5)
        client.send(b"\x08\x00\x00\x00\x00\x00\x00\xce")
        heard += len(client.heard())
    assert heard >= 19
    harness.commit()
    assert methods(client) == ["Queue.DeclareOk"]


def test_what_a_session_will_never_say_does_not_count_as_waiting_to_be_said(
    harness: Harness,
) -> None:
    client, publisher = Client(harness), Client(harness)
    client.ask(Basic.Consume(queue="t", no_ack=True))
    harness.commits = False
    client.tell(Queue.Declare(queue="new", durable=True))
    publisher.publish(b"." * 5000, routing_key="t")
    assert client.session.output.size > 5000
    client.tell(Connection.Close(200, "", 0, 0), 0)
    assert client.session.output.size == 0


# --- how much is read at once ---------------------------------------------------------------------


def test_a_client_whose_frames_take_long_is_read_in_small_pieces_so_that_others_need_not_wait() -> (
    None
):
    client = Client(Harness())
    client.ask(Queue.Declare(queue="q", arguments={"x-max-length": 0}))  # nothing is crowded
    data = publish_bytes(b"x" * 100, routing_key="q") * 3000
    client.send(data)
    assert client.session.appetite() == READ_BYTES
    client.ask(Tx.Select())
    client.send(data)
    pieces = publish_bytes(b"x" * 100, routing_key="q")
    frames = client.session.appetite() / len(pieces) * 3
    assert SLOW_FRAMES_MAX * 0.9 < frames <= SLOW_FRAMES_MAX
    client.ask(Tx.Rollback())
    client.tell(Tx.Commit())
    assert client.session.appetite() == READ_BYTES_MIN

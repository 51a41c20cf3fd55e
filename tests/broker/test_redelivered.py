"""`redelivered` across restarts: what was handed out before says so, what was not does not."""

import pytest

from amqpd.broker.queues.handed_out import AHEAD
from amqpd.testing.client import Client, publish_bytes
from amqpd.testing.harness import Harness
from amqpd.wire.methods import Basic, Queue


def declared() -> tuple[Harness, Client]:
    harness = Harness()
    client = Client(harness)
    client.ask(Queue.Declare(queue="q", durable=True))
    return harness, client


def publish(client: Client, *bodies: bytes) -> None:
    client.send(b"".join(publish_bytes(body, routing_key="q", delivery_mode=2) for body in bodies))


def crashed(harness: Harness) -> Harness:
    """The next broker on what the last one has committed."""
    return Harness(store=harness.store)


def stopped(harness: Harness) -> Harness:
    """The next broker after a stop in good order."""
    for link in list(harness.links.values()):
        link.close()
    harness.core.stopped()
    harness.settle()
    return crashed(harness)


def drained(harness: Harness) -> list[tuple[bytes, bool]]:
    """Bodies and whether they are redelivered, of all that is in the queue."""
    client = Client(harness)
    client.tell(Basic.Consume(queue="q"))
    told = [each for each in client.heard() if isinstance(each.method, Basic.Deliver)]
    client.link.close()  # and all of them come back
    return [(each.body, each.method.redelivered) for each in told]


def test_after_a_stop_exactly_what_was_delivered_is_redelivered() -> None:
    harness, client = declared()
    publish(client, b"a", b"b", b"c", b"d")
    client.ask(Basic.Get(queue="q"))
    client.ask(Basic.Get(queue="q"))
    harness = stopped(harness)
    assert drained(harness) == [(b"a", True), (b"b", True), (b"c", False), (b"d", False)]


def test_restarts_in_which_nothing_is_delivered_forget_no_delivery() -> None:
    harness, client = declared()
    publish(client, b"a", b"b")
    client.ask(Basic.Get(queue="q"))
    harness = stopped(stopped(stopped(harness)))
    assert drained(harness) == [(b"a", True), (b"b", False)]


def test_a_restart_after_which_only_the_first_is_delivered_again_forgets_no_delivery() -> None:
    harness, client = declared()
    publish(client, b"a", b"b", b"c")
    client.ask(Basic.Get(queue="q"))
    client.ask(Basic.Get(queue="q"))
    harness = stopped(harness)
    Client(harness).ask(Basic.Get(queue="q"))
    harness = stopped(harness)
    assert drained(harness) == [(b"a", True), (b"b", True), (b"c", False)]


def test_after_a_crash_what_was_delivered_is_redelivered() -> None:
    harness, client = declared()
    publish(client, b"a", b"b")
    client.ask(Basic.Get(queue="q"))
    assert drained(crashed(harness))[0] == (b"a", True)


def test_after_a_crash_messages_of_a_queue_without_consumers_are_not_redelivered() -> None:
    harness, client = declared()
    publish(client, b"a", b"b")
    assert drained(crashed(harness)) == [(b"a", False), (b"b", False)]


def test_what_is_published_after_a_crash_is_new() -> None:
    harness, client = declared()
    publish(client, b"old")
    client.ask(Basic.Get(queue="q"))
    harness = crashed(harness)
    publish(Client(harness), b"new")
    assert drained(harness) == [(b"old", True), (b"new", False)]


def test_what_is_published_after_a_crash_and_not_delivered_is_new_after_the_next() -> None:
    harness, client = declared()
    publish(client, b"old")
    client.ask(Basic.Get(queue="q"))
    harness = crashed(harness)
    publish(Client(harness), b"new")
    assert drained(crashed(harness)) == [(b"old", True), (b"new", False)]


@pytest.mark.parametrize("what", ["consume", "get"])
def test_a_stored_message_is_handed_out_when_the_store_knows_that_it_will_be(what: str) -> None:
    harness, client = declared()
    publish(client, b"stored")
    harness.commits = False
    client.tell(Basic.Get(queue="q") if what == "get" else Basic.Consume(queue="q"))
    assert b"stored" not in client.link.receive()
    assert drained(Harness(store=harness.store)) == [(b"stored", False)]


def test_a_message_that_came_back_before_it_was_heard_is_still_held() -> None:
    harness, client = declared()
    publish(client, b"stored")
    other = Client(harness)
    harness.commits = False
    client.tell(Basic.Consume(queue="q"))
    client.link.close()
    other.tell(Basic.Get(queue="q"))
    assert b"stored" not in other.link.receive()
    assert drained(Harness(store=harness.store)) == [(b"stored", False)]
    harness.commit()
    assert b"stored" in other.link.receive()


def test_a_message_that_is_stored_together_with_the_mark_is_handed_out_at_once() -> None:
    harness, client = declared()
    client.ask(Basic.Consume(queue="q"))
    harness.commits = False
    publish(client, b"a")
    assert client.bodies() == [b"a"]


def filled() -> tuple[Harness, Client]:
    """A queue of which the first message was delivered, and enough others to move the mark."""
    harness, client = declared()
    publish(client, *[b"%d" % number for number in range(AHEAD // 2 + 10)])
    client.ask(Basic.Get(queue="q"))
    harness.commit()
    return harness, client


def test_the_mark_is_moved_once_in_thousands_of_deliveries_and_nothing_waits_for_it() -> None:
    harness, client = filled()
    harness.commits = False
    client.tell(Basic.Consume(queue="q", no_ack=True))
    assert len(client.bodies()) == AHEAD // 2 + 9
    (batch,) = harness.held
    (changes,) = batch.changes.values()
    assert changes.marked


def test_no_failing_power_takes_back_a_mark_that_deliveries_rely_on() -> None:
    harness, client = filled()
    harness.commits = False
    client.tell(Basic.Consume(queue="q", no_ack=True))
    assert [batch.promised for batch in harness.held] == [True]

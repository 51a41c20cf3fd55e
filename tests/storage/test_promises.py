"""No byte that promises durability exists before its ticket is committed."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amqpd.testing.client import Client, Told, publish_bytes
from amqpd.testing.harness import Harness
from amqpd.wire.methods import (
    Basic,
    Channel,
    Confirm,
    Exchange,
    Method,
    Queue,
    Tx,
    encode_method,
)


@pytest.fixture
def harness() -> Harness:
    """A broker with the durable queue `q`, exchange `e`, their binding and a stored message."""
    harness = Harness()
    client = Client(harness)
    client.ask(Queue.Declare(queue="q", durable=True))
    client.ask(Exchange.Declare(exchange="e", durable=True))
    client.ask(Queue.Bind(queue="q", exchange="e", routing_key="k"))
    client.publish(b"kept", routing_key="q", delivery_mode=2)
    return harness


def names(told: list[Told]) -> list[str]:
    return [each.method.name for each in told]


@pytest.mark.parametrize(
    "method",
    [
        Queue.Declare(queue="new", durable=True),
        Exchange.Declare(exchange="new", durable=True),
        Queue.Bind(queue="q", exchange="e", routing_key="another"),
        Queue.Unbind(queue="q", exchange="e", routing_key="k"),
        Exchange.Bind(source="e", destination="amq.topic", routing_key="k"),
        Queue.Purge(queue="q"),
        Queue.Delete(queue="q"),
        Exchange.Delete(exchange="e"),
    ],
    ids=lambda method: method.name,
)
def test_what_is_durable_is_answered_when_it_is_committed(harness: Harness, method: Method) -> None:
    client = Client(harness)
    harness.commits = False
    client.tell(method)
    assert client.heard() == []
    harness.commit()
    assert names(client.heard()) == [f"{method.name}Ok"]


def test_an_answer_waits_for_what_was_done_before_it_and_not_for_what_came_after(
    harness: Harness,
) -> None:
    client, other = Client(harness), Client(harness)
    harness.commits = False
    client.tell(Queue.Declare(queue="first", durable=True))
    other.tell(Queue.Declare(queue="second", durable=True))
    harness.commit(1)
    assert names(client.heard()) == ["Queue.DeclareOk"]
    assert other.heard() == []
    harness.commit(1)
    assert names(other.heard()) == ["Queue.DeclareOk"]


def test_a_second_declare_of_what_is_not_yet_committed_waits_too(harness: Harness) -> None:
    client, other = Client(harness), Client(harness)
    harness.commits = False
    client.tell(Queue.Declare(queue="new", durable=True))
    other.tell(Queue.Declare(queue="new", durable=True))
    assert other.heard() == []
    harness.commit()
    assert names(other.heard()) == ["Queue.DeclareOk"]


def test_nothing_overtakes_an_answer_that_waits(harness: Harness) -> None:
    client = Client(harness, channels=2)
    harness.commits = False
    client.tell(Queue.Declare(queue="new", durable=True))
    client.tell(Basic.Qos(prefetch_count=1))
    client.tell(Basic.Qos(prefetch_count=1), 2)
    client.tell(Exchange.Declare(exchange="new", durable=True))
    client.tell(Basic.Get(queue="q", no_ack=True))
    assert client.heard() == []
    harness.commit(1)
    assert names(client.heard()) == ["Queue.DeclareOk", "Basic.QosOk", "Basic.QosOk"]
    harness.commit()
    assert names(client.heard()) == ["Exchange.DeclareOk", "Basic.GetOk"]


def test_a_transaction_is_answered_when_its_messages_are_committed(harness: Harness) -> None:
    client = Client(harness)
    client.ask(Tx.Select())
    harness.commits = False
    client.publish(b"more", routing_key="q", delivery_mode=2)
    client.tell(Tx.Commit())
    assert client.heard() == []
    harness.commit()
    assert names(client.heard()) == ["Tx.CommitOk"]
    assert len(harness.store.messages[1]) == 2


def test_an_acknowledgement_in_a_transaction_is_answered_when_it_is_committed(
    harness: Harness,
) -> None:
    client = Client(harness)
    client.ask(Tx.Select())
    client.ask(Basic.Get(queue="q"))
    harness.commits = False
    client.tell(Basic.Ack(delivery_tag=1))
    client.tell(Tx.Commit())
    assert client.heard() == []
    harness.commit()
    assert names(client.heard()) == ["Tx.CommitOk"]
    assert harness.store.messages == {1: {}}


@pytest.mark.parametrize("end", ["hang up", "close", "close channel"])
def test_a_client_that_goes_while_an_answer_waits_leaves_nothing_behind(
    harness: Harness, end: str
) -> None:
    client = Client(harness)
    client.ask(Confirm.Select())
    harness.commits = False
    client.tell(Queue.Declare(queue="new", durable=True))
    client.publish(b"more", routing_key="q", delivery_mode=2)
    if end == "hang up":
        client.link.close()
    elif end == "close":
        client.send(encode_method(0, Channel.Close(200, "", 0, 0)))
    else:
        client.tell(Channel.Close(200, "", 0, 0))
    harness.commit()
    if end == "close channel":
        assert names(client.heard()) == ["Queue.DeclareOk", "Channel.CloseOk"]
    else:
        assert harness.core._promisers == {}
    assert len(harness.store.messages[1]) == 2


def test_a_consumer_of_the_same_connection_waits_behind_an_answer_and_loses_nothing(
    harness: Harness,
) -> None:
    client, publisher = Client(harness), Client(harness)
    client.ask(Queue.Declare(queue="t"))
    client.ask(Basic.Consume(queue="t", no_ack=True))
    harness.commits = False
    client.tell(Queue.Declare(queue="new", durable=True))
    for number in range(5):
        publisher.publish(b"%d" % number, routing_key="t")
    assert client.heard() == []
    harness.commit()
    told = client.heard()
    assert names(told) == ["Queue.DeclareOk", *["Basic.Deliver"] * 5]
    assert [each.body for each in told[1:]] == [b"%d" % number for number in range(5)]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.booleans(), st.integers(1, 4)),
        st.tuples(st.just("declare"), st.booleans(), st.just(1)),
        st.tuples(st.just("commit"), st.just(True), st.integers(1, 3)),
    ),
    max_size=30,
)


@settings(max_examples=2 * settings.default.max_examples)
@given(steps, st.booleans())
def test_confirms_and_answers_come_when_they_are_true_and_all_come_in_the_end(
    conversation: list[tuple[str, bool, int]], hotpath: bool
) -> None:
    harness = Harness(hotpath=hotpath)
    client = Client(harness)
    client.ask(Queue.Declare(queue="q", durable=True))
    client.ask(Confirm.Select())
    harness.commits = False
    tickets: list[int] = []  # of each publish
    declared: list[int] = []  # of each declare
    answered = confirmed = 0

    def listen() -> None:
        nonlocal answered, confirmed
        committed = harness.core.broker.journal.committed
        for told in client.heard():
            method: Any = told.method
            if isinstance(method, Basic.Ack):
                assert confirmed < method.delivery_tag
                assert method.multiple or method.delivery_tag == confirmed + 1
                confirmed = method.delivery_tag
                assert max(tickets[:confirmed]) <= committed, "confirmed before it was kept"
            else:
                assert method.queue == f"new{answered}", "answers out of order"
                assert declared[answered] <= committed, "answered before it was kept"
                answered += 1

    for what, durable, count in conversation:
        if what == "commit":
            harness.commit(count)
        elif what == "declare":
            client.tell(Queue.Declare(queue=f"new{len(declared)}", durable=durable))
            declared.append(harness.core.broker.journal.last_ticket() if durable else 0)
        else:
            mode = 2 if durable else 1
            client.send(publish_bytes(b"x", routing_key="q", delivery_mode=mode) * count)
            tickets += [harness.core.broker.journal.last_ticket() if durable else 0] * count
        listen()
    harness.commit()
    listen()
    assert (answered, confirmed) == (len(declared), len(tickets))

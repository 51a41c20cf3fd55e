"""Deliveries that stay unsettled for too long (K12), where a conversation cannot tell it."""

from amqpd.broker.policies import policy
from amqpd.config import Config
from amqpd.config.settings import Consumer
from amqpd.session.ack_timeout import LOOKS_MAX
from amqpd.testing.client import Client
from amqpd.testing.harness import Harness
from amqpd.wire.methods import Basic, Channel, Queue, Tx

AS_4_3 = Config(consumer=Consumer(ack_timeout_s=10.0, ack_timeout_cancels=True))
QUORUM = {"x-queue-type": "quorum"}


def consuming(harness: Harness, client: Client) -> None:
    client.ask(Queue.Declare(queue="q", durable=True, arguments=QUORUM))
    client.ask(Basic.Consume(queue="q", consumer_tag="slow"))
    client.publish(b"1", routing_key="q")


def test_as_in_4_3_the_consumer_is_cancelled_and_its_messages_come_back() -> None:
    harness = Harness(AS_4_3)
    client = Client(harness, capabilities={"consumer_cancel_notify": True})
    consuming(harness, client)
    harness.wait(9.9)
    assert [type(each.method) for each in client.heard()] == [Basic.Deliver]
    harness.wait(1.2)
    (told,) = client.heard()
    assert isinstance(told.method, Basic.Cancel)
    assert told.method.consumer_tag == "slow"
    got = client.ask(Basic.Get(queue="q", no_ack=True))
    assert (got.body, got.properties.headers) == (b"1", {"x-delivery-count": 1})


def test_as_in_4_3_the_channel_is_closed_of_a_client_that_does_not_know_cancels() -> None:
    harness = Harness(AS_4_3)
    client = Client(harness, capabilities={})
    consuming(harness, client)
    client.heard()
    harness.wait(11.1)
    (told,) = client.heard()
    assert isinstance(told.method, Channel.Close)
    assert "Timeout value used: -1 ms." in told.method.reply_text


def test_as_in_4_3_classic_queues_have_no_time_limit() -> None:
    harness = Harness(AS_4_3)
    client = Client(harness)
    client.ask(Queue.Declare(queue="q"))
    client.ask(Basic.Consume(queue="q"))
    client.publish(b"1", routing_key="q")
    client.heard()
    harness.wait(50)
    assert client.heard() == []


def test_what_is_remembered_of_a_channel_is_bounded() -> None:
    harness = Harness()
    client = Client(harness)
    for name, ms in (("quick", 1000), ("slow", 3_600_000)):
        client.ask(Queue.Declare(queue=name, arguments={"x-consumer-timeout": ms}))
        client.publish(b"1", routing_key=name)
    client.ask(Basic.Get(queue="slow"))
    client.ask(Basic.Get(queue="quick"))
    client.tell(Basic.Ack(delivery_tag=2))
    channel = client.session.channels[1]
    for _ in range(60):
        client.publish(b"1", routing_key="quick")
        tag = client.ask(Basic.Get(queue="quick")).method.delivery_tag
        harness.wait(0.9)
        client.tell(Basic.Ack(delivery_tag=tag))
    harness.wait(3000)
    assert 0 < len(channel.ack_timeout._looks) <= LOOKS_MAX
    assert client.heard() == []
    harness.wait(600)
    (told,) = client.heard()
    assert "Timeout value used: 3600000 ms." in told.method.reply_text
    harness.wait(100)
    assert not channel.ack_timeout._looks or channel.closing


def test_a_policy_holds_for_consumers_and_deliveries_that_were_there_before() -> None:
    harness = Harness()
    client = Client(harness)
    client.ask(Queue.Declare(queue="q"))
    client.ask(Basic.Consume(queue="q"))
    client.publish(b"1", routing_key="q")
    vhost = harness.core.broker.vhosts["/"]
    vhost.set_policy(policy("p", "q", {"ack-timeout": 1000}))
    harness.wait(1.2)
    told = [each.method for each in client.heard()]
    assert [each.redelivered for each in told if isinstance(each, Basic.Deliver)] == [False, True]
    vhost.clear_policy("p")
    harness.wait(100)
    assert client.heard() == []


def test_what_a_consumer_asked_for_itself_goes_before_a_policy() -> None:
    harness = Harness()
    client = Client(harness)
    client.ask(Queue.Declare(queue="q"))
    client.ask(Basic.Consume(queue="q", arguments={"x-ack-timeout": 5000}))
    vhost = harness.core.broker.vhosts["/"]
    vhost.set_policy(policy("p", "q", {"ack-timeout": 1000}))
    client.publish(b"1", routing_key="q")
    client.heard()
    harness.wait(4.9)
    assert client.heard() == []
    harness.wait(0.7)
    assert len(client.heard()) == 1


def test_deliveries_that_a_rollback_brings_back_have_their_time_again() -> None:
    harness = Harness()
    client = Client(harness)
    client.ask(Queue.Declare(queue="q", arguments={"x-ack-timeout": 1000}))
    client.ask(Tx.Select())
    client.tell(Basic.Consume(queue="q"))
    Client(harness).publish(b"1", routing_key="q")
    (told,) = [each for each in client.heard() if isinstance(each.method, Basic.Deliver)]
    client.tell(Basic.Ack(delivery_tag=told.method.delivery_tag))
    harness.wait(0.5)
    client.ask(Tx.Rollback())
    harness.wait(1.2)
    (again,) = client.heard()
    assert again.method.redelivered

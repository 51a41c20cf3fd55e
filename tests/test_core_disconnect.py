"""A client that goes takes along what is its own, at whatever moment it goes."""

from hypothesis import given, settings
from hypothesis import strategies as st
from random_clients import HAPPENS, TINY_WINDOWS, Act, Encoder, conversations, handshake
from watching import no_internal_error

from amqpd.config import Config
from amqpd.testing.client import Client
from amqpd.testing.harness import Harness
from amqpd.wire.methods import Basic, Confirm, Queue, Tx


def test_exclusive_queues_go_with_their_session_and_others_stay() -> None:
    harness = Harness()
    client = Client(harness)
    client.ask(Queue.Declare(queue="mine", exclusive=True))
    client.ask(Queue.Declare(queue="everybody's"))
    client.link.close()
    assert list(harness.core.broker.vhosts["/"].queues) == ["everybody's"]


def test_unacknowledged_messages_come_back_in_order_and_go_to_the_next_consumer() -> None:
    harness = Harness()
    first, second = Client(harness), Client(harness)
    first.ask(Queue.Declare(queue="q"))
    first.ask(Basic.Consume(queue="q"))
    for number in range(5):
        first.publish(b"%d" % number, routing_key="q")
    first.tell(Basic.Ack(delivery_tag=2))
    first.link.close()
    second.tell(Basic.Consume(queue="q"))
    second.publish(b"5", routing_key="q")
    _, *told = second.heard()  # the first is the consume-ok
    got = [(each.body, each.method.redelivered) for each in told]
    assert got == [(b"0", True), (b"2", True), (b"3", True), (b"4", True), (b"5", False)]


def test_what_was_acknowledged_in_a_transaction_that_never_ended_comes_back() -> None:
    harness = Harness()
    client, other = Client(harness), Client(harness)
    client.ask(Queue.Declare(queue="q"))
    client.publish(b"a", routing_key="q")
    client.ask(Tx.Select())
    client.ask(Basic.Get(queue="q"))
    client.tell(Basic.Ack(delivery_tag=1))
    client.publish(b"never", routing_key="q")
    client.link.close()
    assert other.ask(Queue.Declare(queue="q", passive=True)).method.message_count == 1


def test_a_reply_address_goes_with_its_channel() -> None:
    harness = Harness()
    requester, server = Client(harness), Client(harness)
    server.ask(Queue.Declare(queue="rpc"))
    requester.ask(Basic.Consume(queue="amq.rabbitmq.reply-to", no_ack=True))
    requester.publish(b"?", routing_key="rpc", reply_to="amq.rabbitmq.reply-to")
    address = server.ask(Basic.Get(queue="rpc", no_ack=True)).properties.reply_to
    requester.link.close()
    server.publish(b"!", routing_key=address, mandatory=True)
    assert server.heard()[0].method.reply_code == 312
    assert harness.core.broker.vhosts["/"].replies == {}


def test_a_consumer_of_a_session_that_is_gone_gets_nothing() -> None:
    harness = Harness()
    client, other = Client(harness), Client(harness)
    client.ask(Queue.Declare(queue="q"))
    client.ask(Basic.Consume(queue="q", no_ack=True))
    client.link.close()
    other.publish(b"kept", routing_key="q")
    assert other.ask(Basic.Get(queue="q")).body == b"kept"


def test_the_end_of_a_session_may_come_twice() -> None:
    harness = Harness()
    client = Client(harness)
    harness.core.disconnected(client.session, 0.0)
    harness.core.disconnected(client.session, 0.0)
    assert harness.core.broker.counters.connections_closed == 1


def test_bytes_after_the_end_are_ignored() -> None:
    harness = Harness()
    client = Client(harness)
    harness.core.disconnected(client.session, 0.0)
    harness.core.received(client.session, b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x00\x28\xcd", 0.0)
    harness.core.drained(client.session, 0.0)
    assert client.session.take_output() == b""


@settings(max_examples=settings.default.max_examples)
@given(st.sampled_from((Config(), TINY_WINDOWS)), conversations(garbage=True))
def test_when_all_clients_have_gone_nothing_of_them_is_left(
    config: Config, conversation: list[Act]
) -> None:
    harness = Harness(config)
    links = [harness.connect() for _ in range(3)]
    encoders = [Encoder() for _ in range(3)]
    with no_internal_error():
        for link in links:
            link.send(handshake(heartbeat_s=10))
        for act in conversation:
            if act.what == "wait":
                harness.wait(*act.details)
            elif act.what == "read":
                for encoder, link in zip(encoders, links, strict=True):
                    encoder.hear(link.receive())
            elif act.what == "hold fetches":
                harness.fetches = not act.details[0]
            elif act.what == "answer fetches":
                harness.fetch()
            elif act.what not in HAPPENS:
                links[act.client].send(encoders[act.client].encode(act))
        for link in links:
            link.close()
    harness.fetches = True
    harness.fetch()
    harness.wait(121)  # until all messages with a TTL have expired, and their dead letters
    harness.commit()
    broker, vhost = harness.core.broker, harness.core.broker.vhosts["/"]
    assert harness.deadline is None
    assert harness.core.sessions == {}
    assert harness.core._speakers == {}
    assert harness.core._promisers == {}
    assert not broker.touched
    assert vhost.replies == {}
    assert broker.counters.connections_closed == broker.counters.connections_opened
    assert broker.counters.channels_closed == broker.counters.channels_opened
    for queue in vhost.queues.values():
        assert (queue.unacked, queue.selection.consumers, queue.inbox) == (0, {}, [])
        assert queue.waiters == {}
        assert queue.exclusive_owner is None
        assert queue.exclusive_consumer is None
        assert not queue.auto_delete or not queue.touched


def test_a_client_that_confirms_and_goes_leaves_no_promise() -> None:
    harness = Harness()
    client = Client(harness)
    client.ask(Queue.Declare(queue="q", durable=True))
    client.ask(Confirm.Select())
    harness.commits = False
    client.publish(b"x", routing_key="q", delivery_mode=2)
    assert client.session in harness.core._promisers
    client.link.close()
    assert harness.core._promisers == {}
    harness.commit()

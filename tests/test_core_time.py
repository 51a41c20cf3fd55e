"""Time: heartbeats both ways, and what a client has only so long for."""

import pytest

from amqpd.testing.client import Client
from amqpd.testing.harness import Harness
from amqpd.wire.constants import HEARTBEAT, PROTOCOL_HEADER
from amqpd.wire.methods import Basic, Channel, Connection, Queue, encode_method

CLOSE_OK_S = 30.0
SILENT_S = 3.0
HANDSHAKE_S = 10.0


def heartbeats(client: Client) -> int:
    return sum(told.method is None for told in client.heard())


@pytest.mark.parametrize(
    "said",
    [b"", b"AMQP", PROTOCOL_HEADER, PROTOCOL_HEADER + b"\x01\x00\x00"],
    ids=["nothing", "half a header", "a header", "half a frame"],
)
def test_a_client_that_does_not_finish_the_handshake_is_dropped_in_time(said: bytes) -> None:
    harness = Harness()
    link = harness.connect()
    link.send(said)
    harness.wait(HANDSHAKE_S - 0.1)
    assert not link.closed
    harness.wait(0.2)
    assert link.closed
    assert harness.core.sessions == {}
    assert harness.deadline is None


def test_a_client_that_finished_the_handshake_may_be_silent_without_heartbeats() -> None:
    harness = Harness()
    client = Client(harness, heartbeat_s=0)
    harness.wait(1e6)
    assert not client.link.closed
    assert harness.deadline is None


def test_the_broker_sends_a_heartbeat_every_half_interval_of_silence() -> None:
    harness = Harness()
    client = Client(harness, heartbeat_s=10)
    harness.wait(5)  # in which it said connection.open-ok
    client.heard()
    for _ in range(10):
        client.send(HEARTBEAT)
        harness.wait(5)
        assert heartbeats(client) == 1


def test_the_broker_sends_no_heartbeat_when_it_has_other_things_to_say() -> None:
    harness = Harness()
    client = Client(harness, heartbeat_s=10)
    for _ in range(10):
        harness.wait(4)
        assert isinstance(client.ask(Basic.Qos()).method, Basic.QosOk)
        assert heartbeats(client) == 0


def test_a_client_whose_heartbeats_stop_is_dropped_after_two_intervals_or_a_little_more() -> None:
    harness = Harness()
    client = Client(harness, heartbeat_s=10)
    harness.wait(25)
    client.send(HEARTBEAT)
    harness.wait(19)
    assert not client.link.closed
    harness.wait(11.1)
    assert client.link.closed


@pytest.mark.parametrize(
    "sign", [HEARTBEAT, encode_method(1, Basic.Qos())], ids=["heartbeat", "method"]
)
def test_whatever_a_client_sends_is_a_sign_of_life(sign: bytes) -> None:
    harness = Harness()
    client = Client(harness, heartbeat_s=10)
    for _ in range(10):
        harness.wait(9)
        client.send(sign)
    assert not client.link.closed


def test_a_client_that_does_not_answer_connection_close_is_dropped_in_time() -> None:
    harness = Harness()
    client = Client(harness)
    client.tell(Channel.Open(), 1)  # a second one: 504
    assert client.heard()[0].method.reply_code == 504
    harness.wait(CLOSE_OK_S - 0.1)
    assert not client.link.closed
    harness.wait(0.2)
    assert client.link.closed


def test_a_client_that_answers_connection_close_is_let_go_at_once() -> None:
    harness = Harness()
    client = Client(harness)
    client.tell(Channel.Open(), 1)
    client.tell(Connection.CloseOk(), 0)
    assert client.link.closed
    assert harness.deadline is None


def test_a_client_that_broke_the_framing_is_dropped_soon() -> None:
    harness = Harness()
    client = Client(harness)
    client.send(b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x00\x28\xcd")
    assert client.heard()[0].method.reply_code == 501
    harness.wait(SILENT_S + 0.1)
    assert client.link.closed


def test_a_wrong_password_is_answered_late_and_with_nothing() -> None:
    harness = Harness()
    link = harness.connect()
    link.send(PROTOCOL_HEADER)
    link.receive()
    start_ok = Connection.StartOk({}, "PLAIN", "\x00guest\x00wrong", "en_US")
    link.send(encode_method(0, start_ok))
    harness.wait(SILENT_S - 0.1)
    assert (link.receive(), link.closed) == (b"", False)
    harness.wait(0.2)
    assert (link.receive(), link.closed) == (b"", True)


def test_a_client_that_has_closed_may_leave_its_socket_open_only_so_long() -> None:
    harness = Harness()
    client = Client(harness)
    client.tell(Connection.Close(200, "", 0, 0), 0)
    assert isinstance(client.heard()[0].method, Connection.CloseOk)
    assert not client.link.closed
    harness.wait(CLOSE_OK_S + 0.1)
    assert client.link.closed


def test_a_session_that_is_gone_leaves_no_deadline_behind() -> None:
    harness = Harness()
    for _ in range(500):
        Client(harness, heartbeat_s=10).link.close()
    assert harness.deadline is None
    assert len(harness.core.broker.deadlines._heap) < 200


def test_shutdown_tells_every_client_320_and_lets_it_answer() -> None:
    harness = Harness()
    clients = [Client(harness, heartbeat_s=5 * n) for n in range(3)]
    shaking_hands, silent = harness.connect(), harness.connect()
    shaking_hands.send(PROTOCOL_HEADER)
    clients[0].ask(Queue.Declare(queue="q", exclusive=True))
    harness.core.shutdown("shutdown", harness.now)
    harness.settle()
    for client in clients:
        close = client.heard()[-1].method
        assert (close.reply_code, close.class_id, close.method_id) == (320, 0, 0)
        expected = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"
        assert close.reply_text == expected
        client.tell(Connection.CloseOk(), 0)
        assert client.link.closed
    assert shaking_hands.closed
    assert silent.closed
    assert harness.core.sessions == {}
    assert harness.core.broker.vhosts["/"].queues == {}

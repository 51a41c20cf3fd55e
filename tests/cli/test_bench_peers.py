"""Publisher and consumer against a scripted broker at the other end of a socket pair."""

import multiprocessing
import socket
from collections.abc import Iterator
from itertools import count
from select import POLLIN, POLLOUT

import pytest

from amqpd.cli.bench.board import Board, Field, Phase
from amqpd.cli.bench.consumer import Consumer
from amqpd.cli.bench.errors import BenchError
from amqpd.cli.bench.frames import CHANNEL, STAMPED
from amqpd.cli.bench.link import Link
from amqpd.cli.bench.plan import ConsumerPart, Options, PublisherPart
from amqpd.cli.bench.publisher import Publisher
from amqpd.cli.bench.uri import Address
from amqpd.wire import frames, methods
from amqpd.wire.constants import FRAME_METHOD
from amqpd.wire.methods import Basic, Channel, Confirm, Connection

ADDRESS = Address("127.0.0.1", 5672, "guest", "guest", "/")
MS = 1_000_000


class ScriptedBroker:
    """The other end: says what a test tells it to, and shows what it was sent."""

    def __init__(self) -> None:
        self.sock, ours = socket.socketpair()
        self.sock.setblocking(False)
        self.link = Link(ours, ADDRESS)
        self.board = Board(multiprocessing.get_context(), 1)
        self.board.phase = Phase.MEASURE
        self.row = self.board.row(0)

    def phase(self) -> int:
        return self.board.phase

    def say(self, channel: int, method: methods.Method) -> None:
        self.sock.sendall(methods.encode_method(channel, method))

    def deliver(self, tag: int, body: bytes = b"\x00" * 20) -> None:
        method = Basic.Deliver("bench-1", tag, False, "", "queue")
        self.sock.sendall(
            methods.encode_method(CHANNEL, method)
            + methods.encode_header(CHANNEL, len(body), Basic.Properties())
            + methods.encode_body(CHANNEL, body)
        )

    def heard(self) -> list[methods.Method]:
        """The methods that have come since the last call."""
        data = b""
        while True:
            try:
                data += self.sock.recv(1 << 20)
            except BlockingIOError:
                break
        found = []
        position = 0
        while frame := frames.cut(data, position, 0):
            position = frame.end
            if frame.type == FRAME_METHOD:
                found.append(methods.decode_method(frame.payload))
        assert position == len(data)
        return found

    def publisher(
        self, keys: tuple[str, ...] = ("k",), *, rate: float = 0.0, number: int = 0, **more: object
    ) -> Publisher:
        options = Options(address=ADDRESS, count=number, **more)  # type: ignore[arg-type]
        if options.confirm:
            self.say(CHANNEL, Confirm.SelectOk())
        part = PublisherPart(0, keys, rate, number)
        publisher = Publisher(self.link, "", options, part, self.row, self.phase)
        self.heard()
        return publisher

    def consumer(self, queues: tuple[str, ...] = ("q",), **more: object) -> Consumer:
        options = Options(address=ADDRESS, prefetch=0, **more)  # type: ignore[arg-type]
        part = ConsumerPart(0, queues)
        consumer = Consumer(self.link, options, part, self.row, self.phase)
        consumer.begin(0)
        return consumer


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    broker = ScriptedBroker()
    yield broker
    broker.sock.close()
    broker.link.sock.close()


def test_a_publisher_stops_at_its_window_and_goes_on_with_each_confirm(
    broker: ScriptedBroker,
) -> None:
    publisher = broker.publisher(confirm=10)
    publisher.begin(0)
    assert len(broker.heard()) == 10
    assert publisher.mask == POLLIN
    broker.say(CHANNEL, Basic.Ack(4, multiple=True))
    publisher.readable()
    assert len(broker.heard()) == 4
    assert broker.row[Field.CONFIRMED] == 4
    assert broker.row[Field.PUBLISHED] == 14
    assert publisher.latency.count == 0  # timed is the tenth, the last of the first write
    broker.say(CHANNEL, Basic.Ack(10, multiple=True))
    publisher.readable()
    assert publisher.latency.count == 1


def test_a_publisher_without_a_window_is_always_ready_to_write(broker: ScriptedBroker) -> None:
    publisher = broker.publisher()
    publisher.begin(0)
    assert publisher.mask == POLLIN | POLLOUT
    first = broker.row[Field.PUBLISHED]
    assert len(broker.heard()) == first > 100
    publisher.writable()
    assert broker.row[Field.PUBLISHED] == 2 * first


def test_a_counted_publisher_is_done_when_everything_is_confirmed(broker: ScriptedBroker) -> None:
    publisher = broker.publisher(confirm=3, number=5)
    publisher.begin(0)
    for tag in (3, 5):
        assert not broker.row[Field.DONE]
        broker.say(CHANNEL, Basic.Ack(tag, multiple=True))
        publisher.readable()
    assert broker.row[Field.DONE]
    assert len(broker.heard()) == 5


def test_a_counted_publisher_without_confirms_is_done_when_it_has_sent_everything(
    broker: ScriptedBroker,
) -> None:
    publisher = broker.publisher(number=7)
    publisher.begin(0)
    assert len(broker.heard()) == 7
    assert broker.row[Field.DONE]
    assert publisher.mask == POLLIN


def test_a_paced_publisher_sends_what_is_due_and_says_when_it_wants_to_be_asked_again(
    broker: ScriptedBroker,
) -> None:
    publisher = broker.publisher(rate=100.0)
    publisher.begin(1000 * MS)
    assert publisher.tick(1000 * MS) == 1010 * MS
    assert len(broker.heard()) == 1
    assert publisher.tick(1009 * MS) == 1010 * MS
    assert broker.heard() == []
    assert publisher.tick(1031 * MS) == 1040 * MS
    assert len(broker.heard()) == 3


def test_a_paced_publisher_does_not_overrun_its_window(broker: ScriptedBroker) -> None:
    publisher = broker.publisher(rate=100.0, confirm=2)
    publisher.begin(1000 * MS)
    assert publisher.tick(1100 * MS) is None
    assert len(broker.heard()) == 2


def test_several_keys_take_turns_across_writes(broker: ScriptedBroker) -> None:
    publisher = broker.publisher(("a", "b", "c"), confirm=2)
    publisher.begin(0)
    broker.say(CHANNEL, Basic.Ack(2, multiple=True))
    publisher.readable()
    assert [method.routing_key for method in broker.heard()] == ["a", "b", "c", "a"]


def test_nacks_returns_and_blocking_are_counted(broker: ScriptedBroker) -> None:
    publisher = broker.publisher(confirm=10)
    publisher.begin(0)
    broker.say(CHANNEL, Basic.Return(312, "NO_ROUTE", "", "k"))
    broker.sock.sendall(methods.encode_header(CHANNEL, 1, Basic.Properties()))
    broker.sock.sendall(methods.encode_body(CHANNEL, b"x"))
    broker.say(CHANNEL, Basic.Nack(1, False, False))
    broker.say(0, Connection.Blocked("memory"))
    publisher.readable()
    assert [broker.row[field] for field in (Field.RETURNED, Field.NACKED, Field.BLOCKED)] == [
        1,
        1,
        1,
    ]
    broker.say(0, Connection.Unblocked())
    publisher.readable()
    assert broker.row[Field.BLOCKED] == 0


@pytest.mark.parametrize(
    ("channel", "method", "text"),
    [
        (CHANNEL, Channel.Close(404, "NOT_FOUND - no exchange", 60, 40), "channel: 404 NOT_FOUND"),
        (0, Connection.Close(320, "CONNECTION_FORCED - bye", 0, 0), "connection: 320 CONNECTION"),
    ],
)
def test_what_the_broker_says_when_it_closes_is_the_error(
    broker: ScriptedBroker, channel: int, method: methods.Method, text: str
) -> None:
    publisher = broker.publisher()
    broker.say(channel, method)
    with pytest.raises(BenchError, match=text):
        publisher.readable()


def test_a_broker_that_goes_without_a_word_is_an_error(broker: ScriptedBroker) -> None:
    consumer = broker.consumer()
    broker.sock.close()
    with pytest.raises(BenchError, match="lost the connection"):
        consumer.readable()


def test_a_consumer_is_ready_when_the_broker_has_accepted_all_its_queues(
    broker: ScriptedBroker,
) -> None:
    consumer = broker.consumer(("q-1", "q-2"))
    asked = broker.heard()
    assert [method.queue for method in asked] == ["q-1", "q-2"]
    for method, ready in zip(asked, (0, 1), strict=True):
        broker.say(CHANNEL, Basic.ConsumeOk(method.consumer_tag))
        consumer.readable()
        assert broker.row[Field.CONSUMING] == ready


def test_every_delivery_is_acked_by_its_tag(broker: ScriptedBroker) -> None:
    consumer = broker.consumer()
    broker.heard()
    tags = count(1)
    for size in (1, 5, 2):
        expected = [next(tags) for _ in range(size)]
        for tag in expected:
            broker.deliver(tag)
        consumer.readable()
        acks = broker.heard()
        assert [(ack.delivery_tag, ack.multiple) for ack in acks] == [(t, False) for t in expected]
    assert broker.row[Field.DELIVERED] == 8


def test_one_ack_for_several_deliveries_names_the_last_of_them(broker: ScriptedBroker) -> None:
    consumer = broker.consumer(multi_ack_every=3)
    broker.heard()
    for tag in range(1, 9):
        broker.deliver(tag)
    consumer.readable()
    assert [(ack.delivery_tag, ack.multiple) for ack in broker.heard()] == [(3, True), (6, True)]


def test_a_consumer_without_acks_sends_none(broker: ScriptedBroker) -> None:
    consumer = broker.consumer(auto_ack=True)
    (consume,) = broker.heard()
    assert consume.no_ack
    broker.deliver(1)
    consumer.readable()
    assert broker.heard() == []


@pytest.mark.parametrize(("phase", "timed"), [(Phase.WARM_UP, 0), (Phase.MEASURE, 1)])
def test_stamped_messages_are_timed_while_the_run_is_measured(
    broker: ScriptedBroker, phase: Phase, timed: int
) -> None:
    consumer = broker.consumer()
    broker.board.phase = phase
    broker.deliver(1, (STAMPED | 1).to_bytes(8, "big") + b"body")
    broker.deliver(2)
    consumer.readable()
    assert consumer.latency.count == timed


def test_a_consumer_cancelled_by_the_broker_is_an_error(broker: ScriptedBroker) -> None:
    consumer = broker.consumer()
    broker.say(CHANNEL, Basic.Cancel("bench-1"))
    with pytest.raises(BenchError, match="cancelled the consumer bench-1"):
        consumer.readable()

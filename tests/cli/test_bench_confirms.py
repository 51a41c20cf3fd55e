"""Confirms are counted once, in whatever order and grouping the broker sends them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpd.cli.bench.confirms import Confirms
from amqpd.cli.bench.frames import ACK_BYTES, CHANNEL
from amqpd.wire import methods
from amqpd.wire.methods import Basic


def ack(tag: int, *, multiple: bool = False) -> bytes:
    return methods.encode_method(CHANNEL, Basic.Ack(tag, multiple))


def nack(tag: int, *, multiple: bool = False) -> bytes:
    return methods.encode_method(CHANNEL, Basic.Nack(tag, multiple, requeue=False))


def published(count: int) -> Confirms:
    confirms = Confirms()
    for number in range(1, count + 1):
        confirms.sent(1, number)
    return confirms


def test_single_acks_in_order_are_taken_as_one_run() -> None:
    confirms = published(1000)
    data = b"".join(map(ack, range(1, 1001)))
    assert confirms.received(data, 0, 2000) == len(data)
    assert (confirms.confirmed, confirms.outstanding) == (1000, 0)
    assert sorted(confirms.latencies_ns) == list(range(1000, 2000))


def test_a_multiple_ack_confirms_everything_up_to_its_tag_once() -> None:
    confirms = published(10)
    confirms.received(ack(3) + ack(7, multiple=True) + ack(7, multiple=True), 0, 100)
    assert (confirms.confirmed, confirms.outstanding) == (7, 3)
    assert sorted(confirms.latencies_ns) == [100 - number for number in range(7, 0, -1)]


def test_tag_zero_with_multiple_confirms_everything() -> None:
    confirms = published(10)
    confirms.received(ack(0, multiple=True), 0, 0)
    assert confirms.outstanding == 0


def test_nacks_are_counted_apart() -> None:
    confirms = published(5)
    confirms.received(ack(1) + nack(3, multiple=True) + ack(4), 0, 0)
    assert (confirms.confirmed, confirms.nacked, confirms.outstanding) == (2, 2, 1)


def test_anything_else_stops_it_where_it_begins() -> None:
    confirms = published(5)
    other = methods.encode_method(0, methods.Connection.Blocked("memory"))
    assert confirms.received(ack(1) + other + ack(2), 0, 0) == ACK_BYTES
    assert confirms.received(other, 0, 0) == 0
    assert confirms.received(ack(2)[:10], 0, 0) == 0
    assert confirms.confirmed == 1


def test_only_the_last_message_of_each_write_is_timed() -> None:
    confirms = Confirms()
    confirms.sent(100, 10)
    confirms.sent(100, 20)
    confirms.received(ack(150, multiple=True), 0, 30)
    assert confirms.latencies_ns == [20]
    confirms.received(ack(200, multiple=True), 0, 50)
    assert confirms.latencies_ns == [20, 30]


@pytest.mark.slow
@given(st.data())
def test_every_message_is_settled_once_in_any_order(data: st.DataObject) -> None:
    """A hundred conversations, each settled message by message."""
    count = data.draw(st.integers(1, 60))
    confirms = published(count)
    singles = data.draw(st.permutations(range(1, count + 1)))
    upto = data.draw(st.lists(st.integers(1, count), max_size=3))
    settled: set[int] = set()
    pieces = []
    for position, tag in enumerate(singles):
        if upto and position == data.draw(st.integers(0, count - 1)):
            limit = upto.pop()
            pieces.append(ack(limit, multiple=True))
            settled |= set(range(1, limit + 1))
        if tag not in settled:
            pieces.append(ack(tag))
            settled.add(tag)
    stream = b"".join(pieces)
    position = 0
    while position < len(stream):
        step = data.draw(st.integers(1, len(stream) // ACK_BYTES)) * ACK_BYTES
        chunk = stream[position : position + step]
        assert confirms.received(chunk, 0, 100) == len(chunk)
        position += len(chunk)
    assert (confirms.confirmed, confirms.outstanding) == (count, 0)
    assert sorted(confirms.latencies_ns) == sorted(100 - number for number in range(1, count + 1))

"""Field tables between bytes and values."""

import pytest

from amqpd.testing.client import Client, publish_bytes
from amqpd.testing.harness import Harness
from amqpd.wire import tables
from amqpd.wire.frames import frame
from amqpd.wire.methods import Basic, Queue, decode_table, encode_method, encode_table

MICROSECONDS = 1_700_000_000_000_000  # what clients send that take the unit to be so


def late(name: bytes = b"t", seconds: int = MICROSECONDS) -> bytes:
    """A table entry with a timestamp that no calendar has."""
    return bytes((len(name),)) + name + b"T" + seconds.to_bytes(8, "big")


def table(*entries: bytes) -> bytes:
    body = b"".join(entries)
    return len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize("seconds", [MICROSECONDS, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_timestamp_behind_the_end_of_the_calendar_is_taken_as_a_number(seconds: int) -> None:
    signed = seconds - 2**64 if seconds >= 2**63 else seconds
    assert decode_table(table(late(seconds=seconds), b"\x01ni\x00\x00\x00\x07")) == {
        "t": signed,
        "n": 7,
    }


def test_such_timestamps_are_found_in_nested_tables_and_arrays() -> None:
    array = b"T" + MICROSECONDS.to_bytes(8, "big")
    nested = b"\x01fF" + table(late(), b"\x01aA" + table(array, b"A" + table(array)))
    assert decode_table(table(late(), nested)) == {
        "t": MICROSECONDS,
        "f": {"t": MICROSECONDS, "a": [MICROSECONDS, [MICROSECONDS]]},
    }


def test_such_a_timestamp_in_headers_that_are_looked_at_closes_nothing() -> None:
    client = Client(Harness())
    client.ask(Queue.Declare(queue="q"))
    bound = Queue.Bind(queue="q", exchange="amq.headers", arguments={"n": 7})
    client.ask(bound)
    head = b"\x00\x3c\x00\x00" + (2).to_bytes(8, "big") + b"\x20\x00"
    headers = table(late(), b"\x01ni\x00\x00\x00\x07")
    method = encode_method(1, Basic.Publish(exchange="amq.headers", routing_key=""))
    client.send(method + frame(2, 1, head + headers) + frame(3, 1, b"ab"))
    assert client.heard() == []
    assert client.session.broker.vhosts["/"].queues["q"].ready == 1
    client.send(publish_bytes(b"no", exchange="amq.headers", headers={"n": 8}))
    assert client.session.broker.vhosts["/"].queues["q"].ready == 1


def test_such_a_timestamp_in_the_arguments_of_a_method_is_accepted() -> None:
    client = Client(Harness())
    payload = Queue.Declare(queue="q").marshal()
    client.send(frame(1, 1, b"\x00\x32\x00\x0a" + payload[:-4] + table(late(b"x-since"))))
    assert client.heard()[0].method.queue == "q"


def test_a_length_that_runs_over_the_end_is_refused() -> None:
    data = encode_table({"a": {"b": "text"}})
    for place in range(len(data)):
        cut = data[:place]
        with pytest.raises((ValueError, IndexError)):
            tables.entries(cut, 0)

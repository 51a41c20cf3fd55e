"""Differences from RabbitMQ that conversations cannot show; docs/COMPATIBILITY.md names them."""

from amqpd.testing.client import Client
from amqpd.testing.harness import Harness
from amqpd.wire.constants import FRAME_HEADER
from amqpd.wire.frames import frame
from amqpd.wire.methods import Basic, Queue, encode_body, encode_method


def test_headers_leave_in_the_order_in_which_they_came_repeated_names_too() -> None:
    """RabbitMQ sorts them by name since 4.0, and keeps one of each name."""
    entries = b"\x01bS\x00\x00\x00\x01x" + b"\x01aS\x00\x00\x00\x01y" + b"\x01aS\x00\x00\x00\x01z"
    table = len(entries).to_bytes(4, "big") + entries
    header = b"\x00\x3c\x00\x00" + (2).to_bytes(8, "big") + b"\x20\x00" + table
    client = Client(Harness())
    client.ask(Queue.Declare(queue="q"))
    client.send(
        encode_method(1, Basic.Publish(routing_key="q"))
        + frame(FRAME_HEADER, 1, header)
        + encode_body(1, b"hi")
    )
    client.tell(Basic.Get(queue="q", no_ack=True))
    assert frame(FRAME_HEADER, 1, header) in client.link.receive()

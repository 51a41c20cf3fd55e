"""Bodies of many frames: passed on as they came, cut anew for a receiver of smaller frames."""

import pytest

from amqpd.testing.client import Client
from amqpd.testing.harness import Harness
from amqpd.wire.content import LARGE_BODY_BYTES
from amqpd.wire.methods import Basic, Queue, encode_body, encode_header, encode_method

BODY = bytes(range(251)) * (LARGE_BODY_BYTES // 251 + 700)


def content(payload_bytes: int) -> bytes:
    """A publish of BODY to the queue q, in body frames of that size."""
    frames = [
        encode_body(1, BODY[start : start + payload_bytes])
        for start in range(0, len(BODY), payload_bytes)
    ]
    method = encode_method(1, Basic.Publish(exchange="", routing_key="q"))
    return method + encode_header(1, len(BODY), Basic.Properties()) + b"".join(frames)


@pytest.mark.parametrize("hotpath", [True, False])
@pytest.mark.parametrize("sent_in", [131_064, 100_000, 8184])
@pytest.mark.parametrize("frame_bytes_max", [131_072, 8192])
def test_a_large_body_arrives_whole_whatever_the_frames(
    hotpath: bool, sent_in: int, frame_bytes_max: int
) -> None:
    harness = Harness(hotpath=hotpath)
    publisher, consumer = Client(harness), Client(harness, frame_bytes_max=frame_bytes_max)
    publisher.ask(Queue.Declare(queue="q"))
    consumer.ask(Basic.Consume(queue="q", no_ack=True))
    data = content(sent_in)
    for start in range(0, len(data), 200_000):
        publisher.link.send(data[start : start + 200_000])
    [delivery] = consumer.heard()
    assert delivery.body == BODY
    assert publisher.heard() == []

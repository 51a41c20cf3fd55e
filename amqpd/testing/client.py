"""A tiny AMQP client over a harness: methods in, what the broker says out. No sockets.

client = Client(Harness())
client.ask(Queue.Declare(queue="orders"))
client.publish(b"one", routing_key="orders")
client.ask(Basic.Get(queue="orders", no_ack=True)).body  # b"one"
"""

from __future__ import annotations

from typing import Any, NamedTuple

from amqpd.testing.harness import Harness, Link
from amqpd.wire import frames
from amqpd.wire.constants import (
    FRAME_BODY,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    FRAME_OVERHEAD_BYTES,
    PROTOCOL_HEADER,
)
from amqpd.wire.methods import (
    Basic,
    Channel,
    Connection,
    Method,
    decode_method,
    decode_properties,
    encode_body,
    encode_header,
    encode_method,
)

WITH_CONTENT = (Basic.Deliver, Basic.GetOk, Basic.Return)
FRAME_BYTES_MAX = 131_072


class Told(NamedTuple):
    """One thing that the broker said; a heartbeat has no method."""

    channel: int
    method: Any
    properties: Any = None
    body: bytes = b""


def content_bytes(
    body: bytes, channel: int = 1, frame_bytes_max: int = FRAME_BYTES_MAX, **properties: Any
) -> bytes:
    """The content header and body frames of a message."""
    step = frame_bytes_max - FRAME_OVERHEAD_BYTES
    parts = [body[start : start + step] for start in range(0, len(body), step)]
    header = encode_header(channel, len(body), Basic.Properties(**properties))
    return header + b"".join(encode_body(channel, part) for part in parts)


def publish_bytes(
    body: bytes = b"",
    channel: int = 1,
    *,
    exchange: str = "",
    routing_key: str = "",
    mandatory: bool = False,
    **properties: Any,
) -> bytes:
    """All frames of one basic.publish."""
    method = Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory)
    return encode_method(channel, method) + content_bytes(body, channel, **properties)


class Hearing:
    """Puts what a broker says together again: methods with their content."""

    def __init__(self) -> None:
        self._rest = b""
        self._open: dict[int, tuple[Any, Any, int, bytes]] = {}

    def hear(self, data: bytes) -> list[Told]:
        """All that is complete with these bytes; raises AssertionError for broken content."""
        data, offset, told = self._rest + data, 0, []
        while (frame := frames.cut(data, offset, 0)) is not None:
            offset = frame.end
            complete = self._take(frame)
            if complete is not None:
                told.append(complete)
        self._rest = data[offset:]
        return told

    def _take(self, frame: frames.Frame) -> Told | None:
        channel = frame.channel
        if frame.type == FRAME_HEARTBEAT:
            return Told(channel, None)
        if frame.type == FRAME_METHOD:
            assert channel not in self._open, "a method in the middle of content"
            method = decode_method(frame.payload)
            if not isinstance(method, WITH_CONTENT):
                return Told(channel, method)
            self._open[channel] = (method, None, -1, b"")
            return None
        method, properties, missing, body = self._open.pop(channel)
        if frame.type == FRAME_HEADER:
            assert missing == -1, "a second content header"
            properties = decode_properties(frame.payload)
            missing = int.from_bytes(frame.payload[4:12], "big")
        else:
            assert frame.type == FRAME_BODY and missing > 0, "a body frame out of place"
            body += frame.payload
            missing -= len(frame.payload)
        if missing == 0:
            return Told(channel, method, properties, body)
        assert missing > 0, "a body longer than its header says"
        self._open[channel] = (method, properties, missing, body)
        return None


class Client:
    """A client that has logged in and opened channel 1.

    Args:
        capabilities: those of the client, by name; all that the broker knows of by default.
        channels: how many to open.
    """

    def __init__(
        self,
        harness: Harness,
        *,
        frame_bytes_max: int = FRAME_BYTES_MAX,
        heartbeat_s: int = 0,
        capabilities: dict[str, Any] | None = None,
        channels: int = 1,
    ) -> None:
        self.harness = harness
        self.link: Link = harness.connect()
        self._hearing = Hearing()
        known: dict[str, Any] = {
            "consumer_cancel_notify": True,
            "authentication_failure_close": True,
        }
        properties: dict[str, Any] = {
            "capabilities": known if capabilities is None else capabilities
        }
        self.link.send(PROTOCOL_HEADER)
        self.tell(
            Connection.StartOk(
                client_properties=properties,
                mechanism="PLAIN",
                response="\x00guest\x00guest",
                locale="en_US",
            ),
            0,
        )
        self.tell(Connection.TuneOk(2047, frame_bytes_max, heartbeat_s), 0)
        self.tell(Connection.Open(virtual_host="/"), 0)
        for channel in range(1, channels + 1):
            self.tell(Channel.Open(), channel)
        self.heard()

    @property
    def session(self) -> Any:
        """The broker's side of the connection."""
        return self.link.session

    def send(self, data: bytes) -> None:
        """Sends bytes as they are, in one read of the broker."""
        self.link.send(data)

    def tell(self, method: Method, channel: int = 1) -> None:
        """Sends a method."""
        self.link.send(encode_method(channel, method))

    def ask(self, method: Method, channel: int = 1) -> Told:
        """Sends a method; what the broker then says first on the channel."""
        self.tell(method, channel)
        self.harness.wait(0)  # it may come in several turns of the broker
        replies = [told for told in self.heard() if told.channel == channel]
        assert replies, f"no reply to {method.name}"
        return replies[0]

    def publish(self, body: bytes = b"", channel: int = 1, **address: Any) -> None:
        """Publishes; the arguments are `publish_bytes`'s."""
        self.link.send(publish_bytes(body, channel, **address))

    def heard(self) -> list[Told]:
        """What the broker has said since the last time."""
        return self._hearing.hear(self.link.receive())

    def bodies(self) -> list[bytes]:
        """The bodies of the deliveries since the last time."""
        return [told.body for told in self.heard() if isinstance(told.method, Basic.Deliver)]

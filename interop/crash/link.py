"""A client on a bare socket, with one channel: pipelined publishes, and every wait has an end."""

import contextlib
import select
import socket
import struct
import time
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import stamp
from pamqp import commands, frame, header

PROTOCOL = b"AMQP\x00\x00\x09\x01"
CHANNEL = 1
WAIT_S = 20.0
READ_BYTES = 256 * 1024
WRITE_BYTES = 64 * 1024
FRAME_BYTES_MAX = 131_072
FRAME_HEAD = struct.Struct(">BHI")
BASIC = 60
DELIVER, GET_OK, ACK, NACK = 60, 71, 80, 120
# A content header of class basic: weight, body size, flags; then the properties.
BODY_SIZE = slice(4, 12)
BARE = commands.Basic.Properties()
BARE_PERSISTENT = commands.Basic.Properties(delivery_mode=2)
READY_MADE = {b"\x00\x00": BARE, b"\x10\x00\x02": BARE_PERSISTENT}


class Closed(Exception):
    """The broker has closed the channel or the connection, and said why."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code


class Confirm(NamedTuple):
    """basic.ack or basic.nack from the broker."""

    tag: int
    multiple: bool
    positive: bool


class Arrival(NamedTuple):
    """A message that the broker sent; `queue` is the consumer tag, which we name after it."""

    queue: str
    tag: int
    redelivered: bool
    exchange: str
    key: str
    properties: Any
    body: bytes


@cache
def _publish_method(exchange: str, key: str) -> bytes:
    return frame.marshal(commands.Basic.Publish(exchange=exchange, routing_key=key), CHANNEL)


def publish_frames(exchange: str, key: str, properties: dict[str, Any], body: bytes) -> bytes:
    """All frames of one basic.publish; a body of at most one frame."""
    if properties == {"delivery_mode": 2}:
        head = struct.pack(">HHQHB", BASIC, 0, len(body), 0x1000, 2)
    elif not properties:
        head = struct.pack(">HHQH", BASIC, 0, len(body), 0)
    else:
        head = header.ContentHeader(0, len(body), commands.Basic.Properties(**properties)).marshal()
    parts = [_publish_method(exchange, key), FRAME_HEAD.pack(2, CHANNEL, len(head)), head, b"\xce"]
    if body:
        parts += [FRAME_HEAD.pack(3, CHANNEL, len(body)), body, b"\xce"]
    return b"".join(parts)


def settle_frames(tags: list[int]) -> bytes:
    """One basic.ack for each tag."""
    start = b"\x01\x00\x01\x00\x00\x00\x0d\x00\x3c\x00\x50"
    return b"".join(b"%s%s\x00\xce" % (start, tag.to_bytes(8, "big")) for tag in tags)


class Link:
    """A connection with channel 1 open.

    Attributes:
        blocked: the reason, while the broker has said connection.blocked.
        times_blocked: how often it has.
    """

    def __init__(self, uri: str, hears_blocked: bool = True) -> None:
        parts = urlsplit(uri)
        self.blocked: str | None = None
        self.times_blocked = 0
        self._socket = socket.create_connection((parts.hostname, parts.port or 5672), WAIT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._received = b""
        self._events: list[Any] = []
        self._content: tuple[Any, ...] = ()
        self._body: list[bytes] = []
        self._missing = 0
        try:
            self._handshake(hears_blocked)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def _handshake(self, hears_blocked: bool) -> None:
        able = {"publisher_confirms": True, "basic.nack": True, "consumer_cancel_notify": True}
        mine = {"capabilities": able | {"connection.blocked": hears_blocked}}
        self.send(PROTOCOL)
        self._answer(commands.Connection.Start, WAIT_S)
        self.tell(commands.Connection.StartOk(mine, "PLAIN", "\0guest\0guest"), 0)
        self._answer(commands.Connection.Tune, WAIT_S)
        self.tell(commands.Connection.TuneOk(2047, FRAME_BYTES_MAX, 0), 0)
        self.tell(commands.Connection.Open("/"), 0)
        self._answer(commands.Connection.OpenOk, WAIT_S)
        self.call(commands.Channel.Open(), commands.Channel.OpenOk)

    def call(self, method: Any, answer: type, within: float = WAIT_S) -> Any:
        """Sends a method and waits for its answer; what comes before it is kept for `events`.

        Raises:
            Closed: the broker closes the channel or the connection instead.
            TimeoutError: it says nothing of the kind.
        """
        self.tell(method)
        return self._answer(answer, within)

    def tell(self, method: Any, channel: int = CHANNEL) -> None:
        """Sends a method."""
        self.send(frame.marshal(method, channel))

    def send(self, data: bytes, within: float = WAIT_S) -> None:
        """Sends all of it, and reads meanwhile: neither side can wait for the other for ever."""
        view, deadline = memoryview(data), time.monotonic() + within
        while view:
            left = max(deadline - time.monotonic(), 0)
            readable, writable, _ = select.select([self._socket], [self._socket], [], left)
            if writable:
                view = view[self._socket.send(view[:WRITE_BYTES]) :]
            if readable:
                self._receive()
            if not readable and not writable:
                raise TimeoutError(f"the broker has not read us for {within} s")

    def events(self, within: float = WAIT_S) -> list[Any]:
        """What the broker has said: `Arrival`s, `Confirm`s, methods; nothing only after `within`.

        Raises:
            Closed: it has closed the channel or the connection.
            ConnectionError: it has hung up.
        """
        if not self._events and select.select([self._socket], [], [], within)[0]:
            self._receive()
        events, self._events = self._events, []
        for position, event in enumerate(events):
            if isinstance(event, commands.Connection.Close | commands.Channel.Close):
                # What was said before counts: it is taken first, and the next call raises.
                if position:
                    self._events = events[position:]
                    return events[:position]
                raise Closed(event.reply_code, event.reply_text)
        return events

    def close(self) -> None:
        """Says goodbye; what arrives meanwhile is dropped."""
        try:
            self.tell(commands.Connection.Close(200, "OK", 0, 0), 0)
            self._answer(commands.Connection.CloseOk, WAIT_S)
        finally:
            self._socket.close()

    def _answer(self, answer: type, within: float) -> Any:
        deadline, aside = time.monotonic() + within, []
        while (left := deadline - time.monotonic()) > 0:
            events = self.events(left)
            for position, event in enumerate(events):
                if isinstance(event, answer):
                    self._events = aside + events[position + 1 :] + self._events
                    return event
                aside.append(event)
        raise TimeoutError(f"no {answer.__name__} within {within} s")

    def _receive(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = self._socket.recv(READ_BYTES)
            if not data:
                raise ConnectionError("the broker hung up")
            self._received += data
            self._events.extend(self._parse())

    def _parse(self) -> Iterator[Any]:
        data, start = self._received, 0
        while len(data) - start >= FRAME_HEAD.size:
            kind, _, length = FRAME_HEAD.unpack_from(data, start)
            end = start + FRAME_HEAD.size + length + 1
            if len(data) < end:
                break
            payload = data[start + FRAME_HEAD.size : end - 1]
            if kind == 1:
                yield from self._take_method(payload, data[start:end])
            elif kind in (2, 3):
                yield from self._take_content(kind, payload)
            start = end
        self._received = data[start:]

    def _take_method(self, payload: bytes, whole: bytes) -> Iterator[Any]:
        class_id, method_id = struct.unpack_from(">HH", payload)
        if class_id == BASIC and method_id in (DELIVER, GET_OK):
            self._content = _envelope(payload, method_id == DELIVER)
        elif class_id == BASIC and method_id in (ACK, NACK):
            tag, bits = struct.unpack_from(">QB", payload, 4)
            yield Confirm(tag, bool(bits & 1), method_id == ACK)
        else:
            method = frame.unmarshal(whole)[2]
            if isinstance(method, commands.Connection.Blocked):
                self.blocked = method.reason
                self.times_blocked += 1
            elif isinstance(method, commands.Connection.Unblocked):
                self.blocked = None
            yield method

    def _take_content(self, kind: int, payload: bytes) -> Iterator[Any]:
        if kind == 2:
            self._missing = int.from_bytes(payload[BODY_SIZE], "big")
            self._content += (_properties(payload),)
            self._body = []
        else:
            self._body.append(payload)
            self._missing -= len(payload)
        if self._missing == 0:
            yield Arrival(*self._content, b"".join(self._body))


def _properties(payload: bytes) -> Any:
    if (ready_made := READY_MADE.get(payload[12:])) is not None:
        return ready_made
    decoded = header.ContentHeader()
    decoded.unmarshal(payload)
    return decoded.properties


def _envelope(payload: bytes, delivered: bool) -> tuple[Any, ...]:
    """The fields of basic.deliver or basic.get-ok as far as `Arrival` has them."""
    queue, start = _short_string(payload, 4) if delivered else ("", 4)
    tag, redelivered = struct.unpack_from(">QB", payload, start)
    exchange, start = _short_string(payload, start + 9)
    key, _ = _short_string(payload, start)
    return queue, tag, bool(redelivered & 1), exchange, key


def _short_string(payload: bytes, start: int) -> tuple[str, int]:
    end = start + 1 + payload[start]
    return payload[start + 1 : end].decode(), end


def arrival_stamp(arrival: Arrival) -> tuple[stamp.Stamp, str]:
    """The stamp of a message that arrived; `stamp.Damaged` if it is not whole."""
    return stamp.read(arrival.body, arrival.properties.message_id)

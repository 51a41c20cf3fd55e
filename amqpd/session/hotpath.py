"""The hot path: what is done for every message, and nothing else.

1. It is deletable. Whatever it does, `connection.py` and `methods/` also do, a frame at a time;
   `Core(hotpath=False)` turns it off, and a property test compares every byte of both.
2. It decides nothing. A publish that needs thought (no remembered route, properties that are
   checked or rewritten, a transaction) is left where it is, for the slow way.
3. Only here may code index into frames, alias attributes to locals, or inline by hand; inlined
   lines name the function that they copy.
4. Its cost is a unit test: Python-level calls per message, counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, repeat
from typing import TYPE_CHECKING

from amqpd.broker.message import BODY, ENVELOPE, HEADER, Message
from amqpd.session.route import THOUGHTFUL
from amqpd.wire import content
from amqpd.wire.prefixes import deliver_prefix

if TYPE_CHECKING:
    from amqpd.broker.consumer import Consumer
    from amqpd.session.channel import Channel
    from amqpd.session.connection import Session
    from amqpd.session.route import Route

PUBLISH = b"\x00\x3c\x00\x28"
ACK_FRAME_BYTES = 21
ACK = b"\x00\x00\x00\x0d\x00\x3c\x00\x50"  # a basic.ack frame's size, class and method
ONE_END = b"\x00\xce"  # not multiple, end octet
PLAIN_HEADERS_MAX = 256  # remembered per session


def absorb(session: Session, data: bytes, offset: int) -> tuple[int, bool]:
    """Takes the publishes and acks at `offset`, as far as they need no thought.

    Returns the offset of the first byte that was not taken, and whether that is the start of
    something that needs only more bytes. Otherwise the frame there is for the slow way.
    """
    vhost, end = session.vhost, len(data)
    if session.routes_generation != vhost.generation:
        session.routes_generation = vhost.generation
        session.routes.clear()
    routes = session.routes
    while True:
        if end - offset < 12:
            return offset, False
        method = data[offset + 7 : offset + 11]
        if method == PUBLISH and data[offset] == 1:
            size = int.from_bytes(data[offset + 3 : offset + 7], "big")
            behind = offset + size + 8
            route = routes.get(data[offset:behind])
            if route is None or route.channel.transaction is not None or route.channel.assembly:
                return offset, False
            taken, incomplete = _take_publishes(session, route, data, offset, behind)
            if taken == offset or incomplete:
                return taken, incomplete
            offset = taken
        elif data[offset + 3 : offset + 11] == ACK and data[offset] == 1:
            taken = settle(session, data, offset)
            if taken == offset:
                return offset, False
            offset = taken
        else:
            return offset, False


def _take_publishes(
    session: Session, route: Route, data: bytes, offset: int, behind: int
) -> tuple[int, bool]:
    """Takes the publishes at `offset` whose method frame is the same; `behind` is the first's end.

    Copies `methods/publish.py`: `send`, and the count of confirms in `_publish`.
    """
    end, incomplete = len(data), False
    method = data[offset:behind]
    content_of_channel = b"\x02" + method[1:3]
    method_bytes = behind - offset
    payload_max = session.frame_bytes_max or 1 << 32
    envelope, plain = route.envelope, session.plain_headers
    batch: list[Message] = []
    append = batch.append
    size = 0
    while True:
        # A message that is not like the one before it: find its pieces.
        header_start = offset + method_bytes
        if end < header_start + 7:
            incomplete = not batch
            break
        header_bytes = int.from_bytes(data[header_start + 3 : header_start + 7], "big")
        if header_bytes > payload_max or not data.startswith(content_of_channel, header_start):
            break  # the slow way refuses it
        header_end = header_start + 8 + header_bytes
        if end < header_end + 7:
            # Behind a whole header without more there may be no body: that goes the slow way.
            incomplete = not batch and end < header_end
            break
        header = data[header_start + 3 : header_end]
        persistent = plain.get(header)
        if persistent is None:
            persistent = _examine(session, route, header)
        if persistent is None:
            break
        body_bytes = int.from_bytes(header[8:16], "big")
        following = header_end + body_bytes + 8
        prefix = data[offset : header_end + 7]
        if prefix[-7:] != b"\x03" + method[1:3] + header[12:16] or body_bytes > payload_max:
            break  # no body, or one in several frames
        if end < following:
            incomplete = not batch
            break
        stride = following - offset
        body_start = header_end + 3 - offset
        last = stride - 1
        started = len(batch)
        # The run of messages that differ from it only in their bodies.
        while (
            offset + last < end and data.startswith(prefix, offset) and data[offset + last] == 206
        ):
            append((envelope, header, data[offset + body_start : offset + stride], persistent))
            offset += stride
        if len(batch) == started:
            break  # a wrong end octet
        size += (len(batch) - started) * (stride - body_start)
        if not data.startswith(method, offset):
            break
    if batch:
        _post(session, route, batch, size)
    return offset, incomplete


def _examine(session: Session, route: Route, header: bytes) -> bool | None:
    """Whether a message with this header is persistent; None if it needs thought."""
    flags = content.flags(header) if len(header) > 18 else THOUGHTFUL
    if flags & (THOUGHTFUL | content.HEADERS):
        return None
    if content.body_size(header) > session.broker.config.message.size_bytes_max:
        return None
    try:
        content.check(header)
    except (ValueError, IndexError):
        return None  # the slow way refuses it
    if len(session.plain_headers) >= PLAIN_HEADERS_MAX:
        session.plain_headers.clear()
    persistent = content.is_persistent(header)
    session.plain_headers[header] = persistent
    return persistent


def _post(session: Session, route: Route, batch: list[Message], size: int) -> None:
    """Puts a batch into the inboxes of its queues."""
    broker, channel = session.broker, route.channel
    session.feeds = route.queues
    broker.counters.published += len(batch)
    if not route.queues:
        broker.counters.unroutable_dropped += len(batch)
    for queue in route.queues:
        queue.inbox += batch
        queue.inbox_bytes += size
        broker.touch(queue)
    if channel.confirms is not None:
        channel.confirms.published += len(batch)
        session.confirming[channel] = None


def settle(session: Session, data: bytes, offset: int) -> int:
    """Takes the run of single acks at `offset`; the offset behind them.

    Copies `methods/settle.py:ack` and `channel.py:release`.
    """
    channel = session.channels.get(int.from_bytes(data[offset + 1 : offset + 3], "big"))
    if channel is None or channel.closing or channel.assembly or channel.transaction is not None:
        return offset
    prefix = data[offset : offset + 11]
    end = len(data)
    take = channel.unacked.by_tag.pop
    consumer: Consumer | None = None
    numbers: list[int] = []
    messages: list[Message] = []
    while (
        data.startswith(prefix, offset)
        and data[offset + 19 : offset + 21] == ONE_END
        and offset + ACK_FRAME_BYTES <= end
    ):
        delivery = take(int.from_bytes(data[offset + 11 : offset + 19], "big"), None)
        if delivery is None:
            break  # the slow way refuses the tag
        if delivery[0] is not consumer:
            if consumer is not None:
                _release(session, channel, consumer, numbers, messages)
            consumer, numbers, messages = delivery[0], [], []
        numbers.append(delivery[1])
        messages.append(delivery[2])
        offset += ACK_FRAME_BYTES
    if consumer is not None:
        _release(session, channel, consumer, numbers, messages)
    return offset


def _release(
    session: Session,
    channel: Channel,
    consumer: Consumer,
    numbers: list[int],
    messages: list[Message],
) -> None:
    session.broker.counters.acknowledged += len(numbers)
    consumer.queue.release(consumer, numbers, messages)
    channel.settled(consumer, len(numbers))


def deliver(
    channel: Channel,
    consumer: Consumer,
    numbers: Sequence[int],
    messages: Sequence[Message],
    redelivered: bool,
) -> None:
    """Sends messages to a consumer.

    Copies `methods/basic.py:deliver`, with the frames put together from ready-made parts.
    """
    session = channel.session
    first_tag = channel.last_tag + 1
    channel.last_tag += len(messages)
    if not consumer.no_ack:
        channel.unacked.by_tag.update(
            zip(
                count(first_tag),
                zip(repeat(consumer), numbers, messages, strict=False),
                strict=False,
            )
        )
    output = session.output
    pieces = output.pieces
    body_bytes_max = session.frame_bytes_max - 3 or 1 << 62
    number = channel.number.to_bytes(2, "big")
    envelope = header = None
    prefix = middle = b""
    fixed = size = 0
    for tag, message in enumerate(messages, first_tag):
        if message[HEADER] is not header or message[ENVELOPE] is not envelope:
            envelope, header, body, _ = message
            suffix = envelope.suffixes[redelivered]
            known = consumer.prefixes.get(len(suffix))
            if known is None:
                known = deliver_prefix(channel.number, consumer.tag, len(suffix))
                consumer.prefixes[len(suffix)] = known
            prefix = known
            if not body or len(body) > body_bytes_max:
                frames = content.content_frames(
                    header, body, channel.number, session.frame_bytes_max
                )
                pieces += (prefix, tag.to_bytes(8, "big"), suffix, *frames)
                size += len(prefix) + 8 + len(suffix) + sum(map(len, frames))
                header = None
                continue
            middle = suffix + b"\x02" + number + header + b"\x03" + number
            fixed = len(prefix) + 8 + len(middle) + len(body)
        pieces += (prefix, tag.to_bytes(8, "big"), middle, message[BODY])
        size += fixed
    output.size += size
    session.speakers[session] = None

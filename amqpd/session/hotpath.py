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

from amqpd import errors
from amqpd.broker.message import BODY, ENVELOPE, HEADER, Message
from amqpd.broker.queues import direct_reply
from amqpd.broker.routing import may_select_keys
from amqpd.session.expiration import problem
from amqpd.session.route import resolve
from amqpd.session.stream_offset import around_offset
from amqpd.wire import content
from amqpd.wire.prefixes import deliver_prefix
from amqpd.wire.publish import publish_fields

if TYPE_CHECKING:
    from amqpd.broker.consumer import Consumer
    from amqpd.session.channel import Channel
    from amqpd.session.connection import Session
    from amqpd.session.route import Route

PUBLISH = b"\x00\x3c\x00\x28"
ACK_FRAME_BYTES = 21
ACK = b"\x00\x00\x00\x0d\x00\x3c\x00\x50"  # a basic.ack frame's size, class and method
ONE_END = b"\x00\xce"  # not multiple, end octet

REPLY_QUEUE = direct_reply.REPLY_QUEUE.encode()

# What is remembered of a header: a message with it is persistent, it has a headers table, it has an
# expiration; or it needs thought.
PERSISTENT, TABLE, EXPIRES, THOUGHT = 1, 2, 4, 8
VIEW_SHARE = 9
PLAIN_HEADERS_MAX = 256  # remembered per session
PLAIN_HEADER_BYTES_MAX = 512  # longer ones hold ids and do not come again


def absorb(session: Session, data: bytes, offset: int) -> tuple[int, bool]:
    """Takes the publishes and acks at `offset`, as far as they need no thought.

    Returns the offset of the first byte that was not taken, and whether that is the start of
    something that needs only more bytes. Otherwise the frame there is for the slow way.
    """
    end = len(data)
    session.routes.refresh(session.vhost.generation)
    routes = session.routes.by_frame
    while True:
        if end - offset < 12:
            return offset, False
        method = data[offset + 7 : offset + 11]
        if method == PUBLISH and data[offset] == 1:
            size = int.from_bytes(data[offset + 3 : offset + 7], "big")
            behind = offset + size + 8
            route = routes.get(data[offset:behind]) or _resolve(session, data[offset:behind])
            if route is None or route.is_slow:
                return offset, False
            if route.channel.transaction is not None or route.channel.assembly:
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
    envelope, plain, view = route.envelope, session.plain_headers, memoryview(data)
    batch: list[Message] = []
    append = batch.append
    size = facts = 0
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
        if end < header_end:
            incomplete = not batch
            break
        header = data[header_start + 3 : header_end]
        known = plain.get(header)
        if known is None:
            known = _examine(session, header)
        if known == THOUGHT or (known & TABLE and route.uses_headers):
            break
        persistent = known & PERSISTENT == PERSISTENT
        body_bytes = int.from_bytes(header[8:16], "big")
        if body_bytes:
            body_prefix = b"\x03" + method[1:3] + header[12:16]
            prefix = data[offset : header_end + 7]
            if body_bytes > payload_max or not prefix.endswith(body_prefix):
                break  # in several frames
            body_start = header_end + 3 - offset
            stride = header_end + 8 + body_bytes - offset
        else:
            prefix = data[offset:header_end]
            body_start = stride = header_end - offset
        if end < offset + stride:
            incomplete = not batch
            break
        # A body that fills a good part of the read stays there: the copy would cost more than the
        # rest of the way. Smaller ones would keep the whole read in memory.
        source = view if stride * VIEW_SHARE > end else data
        last = stride - 1
        started = len(batch)
        # The run of messages that differ from it only in their bodies.
        while (
            offset + last < end and data.startswith(prefix, offset) and data[offset + last] == 206
        ):
            append((envelope, header, source[offset + body_start : offset + stride], persistent))
            offset += stride
        if len(batch) == started:
            break  # a wrong end octet
        size += (len(batch) - started) * body_bytes
        facts |= known
        if not data.startswith(method, offset):
            break
    if batch:
        _post(session, route, batch, size, facts & EXPIRES != 0)
    return offset, incomplete


def _resolve(session: Session, frame: bytes) -> Route | None:
    """The route of a publish that was not seen before; None if the slow way has to look at it."""
    channel = session.channels.get(int.from_bytes(frame[1:3], "big"))
    fields = publish_fields(frame)
    if channel is None or channel.closing or fields is None or fields.immediate:
        return None
    try:
        route = resolve(channel, fields.exchange, fields.routing_key, fields.mandatory)
    except errors.AmqpError:
        return None
    session.routes.remember(frame, route)
    return None if route.is_slow or (route.mandatory and not route.queues) else route


def _examine(session: Session, header: bytes) -> int:
    """What is to be known of a header: PERSISTENT, TABLE and EXPIRES bits, or THOUGHT."""
    if len(header) <= content.PROPERTIES_OFFSET:
        return THOUGHT
    flags = content.flags(header)
    if flags & content.USER_ID or content.body_size(header) > session.message_bytes_max:
        return THOUGHT
    if flags & content.REPLY_TO and REPLY_QUEUE in header:
        return THOUGHT
    if flags & content.HEADERS and may_select_keys(header):
        return THOUGHT
    try:
        content.check(header)
    except (ValueError, IndexError):
        return THOUGHT  # the slow way refuses it
    known = PERSISTENT if content.is_persistent(header) else 0
    if flags & content.HEADERS:
        known |= TABLE
    if flags & content.EXPIRATION:
        if problem(content.short_string(header, content.EXPIRATION) or ""):
            return THOUGHT
        known |= EXPIRES
    if len(header) <= PLAIN_HEADER_BYTES_MAX:
        if len(session.plain_headers) >= PLAIN_HEADERS_MAX:
            session.plain_headers.clear()
        session.plain_headers[header] = known
    return known


def _post(session: Session, route: Route, batch: list[Message], size: int, expires: bool) -> None:
    """Puts a batch into the inboxes of its queues; some of it may have a TTL of its own."""
    broker, channel = session.broker, route.channel
    session.posted(route.queues)
    broker.counters.published += len(batch)
    if not route.queues:
        broker.counters.unroutable_dropped += len(batch)
    for queue in route.queues:
        queue.inbox += batch
        queue.inbox_bytes += size
        queue.inbox_expires |= expires
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
    if consumer.cursor is not None:
        _deliver_from_stream(channel, consumer, numbers, messages)
        return
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
    body_bytes_max = session.frame_bytes_max - 3
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
            if len(body) > body_bytes_max or isinstance(body, content.LargeBody):
                frames = content.content_frames(
                    header, body, channel.number, session.frame_bytes_max
                )
                pieces += (prefix, tag.to_bytes(8, "big"), suffix, *frames)
                size += len(prefix) + 8 + len(suffix) + sum(map(len, frames))
                header = None
                continue
            middle = suffix + b"\x02" + number + header
            if body:
                middle += b"\x03" + number
            fixed = len(prefix) + 8 + len(middle) + len(body)
        # Its body is no LargeBody: then the header, which no other message shares, would be new.
        tag_bytes = tag.to_bytes(8, "big")
        pieces += (prefix, tag_bytes, middle, message[BODY])  # type: ignore[arg-type]  # see above
        size += fixed
    output.size += size
    session.speakers[session] = None


def _deliver_from_stream(
    channel: Channel, consumer: Consumer, numbers: Sequence[int], messages: Sequence[Message]
) -> None:
    """The same with an offset in the headers of each message."""
    session = channel.session
    first_tag = channel.last_tag + 1
    channel.last_tag += len(messages)
    channel.unacked.by_tag.update(
        zip(count(first_tag), zip(repeat(consumer), numbers, messages, strict=False), strict=False)
    )
    output = session.output
    pieces = output.pieces
    body_bytes_max = session.frame_bytes_max - 3
    number = channel.number.to_bytes(2, "big")
    envelope = header = None
    prefix = before = behind = b""
    fixed = size = 0
    for tag, offset, message in zip(count(first_tag), numbers, messages, strict=False):
        body = message[BODY]
        if message[HEADER] is not header or message[ENVELOPE] is not envelope:
            envelope, header = message[ENVELOPE], message[HEADER]
            suffix = envelope.suffixes[False]
            known = consumer.prefixes.get(len(suffix))
            if known is None:
                known = deliver_prefix(channel.number, consumer.tag, len(suffix))
                consumer.prefixes[len(suffix)] = known
            prefix = known
            before, behind = around_offset(header)
            if len(body) > body_bytes_max or isinstance(body, content.LargeBody):
                whole = before + offset.to_bytes(8, "big") + behind
                frames = content.content_frames(
                    whole, body, channel.number, session.frame_bytes_max
                )
                pieces += (prefix, tag.to_bytes(8, "big"), suffix, *frames)
                size += len(prefix) + 8 + len(suffix) + sum(map(len, frames))
                header = None
                continue
            before = suffix + b"\x02" + number + before
            if body:
                behind += b"\x03" + number
            fixed = len(prefix) + 16 + len(before) + len(behind) + len(body)
        tag_bytes, offset_bytes = tag.to_bytes(8, "big"), offset.to_bytes(8, "big")
        plain: bytes = body  # type: ignore[assignment]  # as above: it is no LargeBody
        pieces += (prefix, tag_bytes, before, offset_bytes, behind, plain)
        size += fixed
    output.size += size
    session.speakers[session] = None

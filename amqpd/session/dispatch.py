"""What a frame means to its session: which channel takes it, and what happens when that refuses.

This is the one place where exceptions become channel.close and connection.close.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqpd import errors
from amqpd.session import events, handshake
from amqpd.session.channel import Channel
from amqpd.session.content import Assembly
from amqpd.session.methods.publish import publish
from amqpd.session.methods.table import HANDLERS
from amqpd.wire import methods as wire
from amqpd.wire.constants import FRAME_HEARTBEAT, FRAME_METHOD, PAYLOAD_BYTES_MIN
from amqpd.wire.erlang import describe_payload
from amqpd.wire.frames import Frame

if TYPE_CHECKING:
    from amqpd.session.connection import Session

PUBLISH = (60, 40)
NO_METHOD = (0, 0)
TOPOLOGY_CLASSES = (40, 50)  # exchange, queue


def take(session: Session, frame: Frame) -> None:
    """Takes one frame; every exception of the model and of the methods ends here."""
    method_id = _method_id(frame)
    try:
        _check(frame)
        if frame.channel == 0:
            _take_on_channel_0(session, frame)
        elif session.state == "running":
            _take_on_channel(session, frame)
        elif session.state not in ("closing", "closed"):
            raise _unexpected(frame)
    except errors.ChannelException as error:
        # Only what happens on an open channel raises these.
        channel = session.channels[frame.channel]
        session.refuse_channel(channel, error, error.method or method_id)
    except errors.ConnectionException as error:
        error.method = error.method or method_id
        session.refuse(error, frame.channel)
    except Exception as bug:
        session.broken(bug, frame.channel, f"{method_id[0]}/{method_id[1]}")


def _method_id(frame: Frame) -> tuple[int, int]:
    if frame.type != FRAME_METHOD or frame.size < 4:
        return NO_METHOD
    start = frame.payload[:4]
    return int.from_bytes(start[:2], "big"), int.from_bytes(start[2:], "big")


def _check(frame: Frame) -> None:
    """Refuses a type that is not AMQP's and a payload that its type cannot have."""
    too_short = frame.size < PAYLOAD_BYTES_MIN.get(frame.type, 1 << 32)
    if too_short or (frame.type == FRAME_HEARTBEAT and frame.size):
        described = describe_payload(frame.payload)
        refusal = errors.frame_error(f"type {frame.type}, {described}: unknown_frame")
        refusal.method = NO_METHOD
        raise refusal


def _unexpected(frame: Frame) -> errors.ConnectionException:
    refusal = errors.unexpected_frame(f"type {frame.type}, {describe_payload(frame.payload)}")
    refusal.method = NO_METHOD
    return refusal


def _take_on_channel_0(session: Session, frame: Frame) -> None:
    if frame.type == FRAME_HEARTBEAT:
        return
    if frame.type != FRAME_METHOD:
        raise _unexpected(frame)
    handshake.take(session, wire.decode_method(frame.payload))


def _take_on_channel(session: Session, frame: Frame) -> None:
    if frame.type == FRAME_HEARTBEAT:
        raise _unexpected(frame)
    channel = session.channels.get(frame.channel)
    if channel is None:
        _open_channel(session, frame)
    elif channel.closing:
        _take_while_closing(channel, frame)
    elif channel.assembly is not None:
        _take_content(channel, channel.assembly, frame)
    else:
        _take_method(channel, _method_payload(frame))


def _method_payload(frame: Frame) -> bytes:
    if frame.type != FRAME_METHOD:
        raise errors.unexpected_frame("expected method frame, got non method frame instead")
    return frame.payload


def _take_content(channel: Channel, assembly: Assembly, frame: Frame) -> None:
    channel.session.in_content = True
    try:
        if assembly.add(frame):
            channel.assembly = None
            channel.session.in_content = False
            publish(channel, assembly)
    except errors.AmqpError as error:
        error.method = error.method or PUBLISH  # not the method of the frame at hand
        raise


def _take_method(channel: Channel, payload: bytes) -> None:
    method = wire.decode_method(payload)
    if isinstance(method, wire.Basic.Publish):
        limit = channel.session.broker.config.message.size_bytes_max
        channel.assembly = Assembly(method, payload, limit)
        return
    handler = HANDLERS.get(type(method))
    if handler is None:
        raise errors.command_invalid("unimplemented method")
    if method.index >> 16 in TOPOLOGY_CLASSES:
        channel.session.builds = True
    if not isinstance(method, wire.Basic.Ack):
        # Whatever comes next must see what was published and settled before it.
        channel.session.end_batch()
    handler(channel, method, payload)


def _open_channel(session: Session, frame: Frame) -> None:
    method = wire.decode_method(_method_payload(frame))
    limit = session.channels_max
    if limit and len(session.channels) >= limit:
        refusal = errors.not_allowed(
            f"number of channels opened ({len(session.channels)}) has reached the negotiated "
            f"channel_max ({limit})"
        )
        refusal.method = NO_METHOD
        raise refusal
    user = session.user
    if 0 <= user.channels_max <= user.channels:
        refusal = errors.not_allowed(
            f"number of channels opened for user '{user.name}' has reached the maximum allowed "
            f"user limit of ({user.channels_max})"
        )
        refusal.method = NO_METHOD
        raise refusal
    if not isinstance(method, wire.Channel.Open):
        raise errors.channel_error("expected 'channel.open'")
    user.channels += 1
    channel = Channel(session, frame.channel, session.hot_path.deliver)
    session.channels[frame.channel] = channel
    session.broker.counters.channels_opened += 1
    events.channel_created(channel)
    channel.say(wire.Channel.OpenOk())


def _take_while_closing(channel: Channel, frame: Frame) -> None:
    """Between our channel.close and its close-ok only closing means anything."""
    if frame.type != FRAME_METHOD:
        return
    index = int.from_bytes(frame.payload[:4], "big")
    if index == wire.Channel.CloseOk.index:
        channel.session.forget_channel(channel)
    elif index == wire.Channel.Close.index:
        channel.say(wire.Channel.CloseOk())
    elif index == wire.Channel.Open.index:
        raise errors.channel_error("second 'channel.open' seen")

"""Class channel (20), and access.request (30), which RabbitMQ answers for old clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqpd import errors
from amqpd.wire.methods import Access
from amqpd.wire.methods import Channel as Methods

if TYPE_CHECKING:
    from amqpd.session.channel import Channel


def open_again(channel: Channel, method: Methods.Open, payload: bytes) -> None:
    raise errors.channel_error("second 'channel.open' seen")


def flow(channel: Channel, method: Methods.Flow, payload: bytes) -> None:
    if not method.active:
        raise errors.not_implemented("active=false")
    channel.say(Methods.FlowOk(active=True))


def flow_ok(channel: Channel, method: Methods.FlowOk, payload: bytes) -> None:
    """The broker never sends channel.flow, so there is nothing that this could answer."""
    raise errors.command_invalid("unimplemented method")


def close(channel: Channel, method: Methods.Close, payload: bytes) -> None:
    channel.shut()
    channel.say(Methods.CloseOk())
    channel.session.forget_channel(channel)


def close_ok(channel: Channel, method: Methods.CloseOk, payload: bytes) -> None:
    """A close-ok for a channel that is open: nobody asked for it."""
    raise errors.command_invalid("unimplemented method")


def access_request(channel: Channel, method: Access.Request, payload: bytes) -> None:
    channel.say(Access.RequestOk(ticket=1))

"""Class confirm (85). Source: RabbitMQ, "Publisher confirms"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqpd import errors
from amqpd.session.confirms import Confirms
from amqpd.wire.methods import Confirm

if TYPE_CHECKING:
    from amqpd.session.channel import Channel


def select(channel: Channel, method: Confirm.Select, payload: bytes) -> None:
    if channel.transaction is not None:
        raise errors.precondition_failed("cannot switch from tx to confirm mode")
    if channel.confirms is None:
        channel.confirms = Confirms()
    if not method.nowait:
        channel.say(Confirm.SelectOk())

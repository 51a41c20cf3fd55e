"""The empty queue name in a method: the queue that the channel declared last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqpd import errors
from amqpd.broker.topology.names import cleaned

if TYPE_CHECKING:
    from amqpd.session.channel import Channel


def queue_name(channel: Channel, name: str) -> str:
    """The name that is meant; raises ChannelException 404 if the channel has declared none."""
    name = cleaned(name)
    if name:
        return name
    if not channel.last_queue:
        raise errors.not_found("no previously declared queue")
    return channel.last_queue


def binding_key(name: str, key: str, queue: str) -> str:
    """With neither queue nor key named, the key is the queue's name."""
    return queue if not name and not key else key

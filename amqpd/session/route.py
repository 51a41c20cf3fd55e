"""What a session remembers of a publish: where it goes and what about it needs thought.

All publishes with the same bytes in their method frame share one route. The memory is bounded
(`limits.envelopes_max`) and dropped whole when it is full or when the vhost's generation moves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqpd import errors
from amqpd.broker.message import Envelope
from amqpd.broker.permissions import check
from amqpd.broker.routing import route
from amqpd.wire import content
from amqpd.wire.methods import Basic

if TYPE_CHECKING:
    from amqpd.broker.exchanges.exchange import Exchange
    from amqpd.broker.routing import Target
    from amqpd.session.channel import Channel

# Properties that always need thought: they are checked, rewritten or select further queues.
THOUGHTFUL = content.EXPIRATION | content.USER_ID | content.REPLY_TO


class Route:
    """Where a publish goes.

    Attributes:
        queues: for a message without headers.
        uses_headers: the headers have a say in where it goes.
        durable: one of the queues is.
    """

    __slots__ = (
        "channel",
        "durable",
        "envelope",
        "exchange",
        "mandatory",
        "queues",
        "uses_headers",
    )

    def __init__(self, channel: Channel, exchange: Exchange, method: Basic.Publish) -> None:
        self.channel = channel
        self.exchange = exchange
        self.mandatory = bool(method.mandatory)
        self.envelope = Envelope(exchange.name, method.routing_key)
        self.queues: tuple[Target, ...]
        self.queues, self.uses_headers = route(
            channel.session.vhost, exchange, [method.routing_key], {}
        )
        self.durable = any(queue.durable for queue in self.queues)


def resolve(channel: Channel, method: Basic.Publish) -> Route:
    """The route of a publish.

    Raises:
        ChannelException: 403 without permission and for internal exchanges, 404 if the exchange
            does not exist.
    """
    actor = channel.session.actor
    check(actor, "write", "exchange", method.exchange)
    exchange = actor.vhost.exchange(method.exchange)
    if exchange.internal:
        raise errors.access_refused(
            f"cannot publish to internal {actor.vhost.words('exchange', exchange.name)}"
        )
    return Route(channel, exchange, method)

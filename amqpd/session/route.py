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
from amqpd.session.ack_timeout import EXTEND

if TYPE_CHECKING:
    from amqpd.broker.exchanges.exchange import Exchange
    from amqpd.broker.routing import Target
    from amqpd.session.channel import Channel

# A route keeps its own tuple of queues; one with many counts for several towards the limit.
TARGETS_AS_CHEAP_AS_A_ROUTE = 16


class Route:
    """Where a publish goes.

    Attributes:
        queues: for a message without headers.
        uses_headers: the headers have a say in where it goes.
        varies: the next message may go elsewhere, though it is like this one.
        extends: it goes to no queue: the client says that it still works on deliveries.
        is_slow: each message is looked at alone: it may go elsewhere, or a queue may not
            take it, or the firehose wants a copy.
    """

    __slots__ = (
        "channel",
        "envelope",
        "exchange",
        "extends",
        "mandatory",
        "is_slow",
        "queues",
        "uses_headers",
        "varies",
    )

    def __init__(
        self, channel: Channel, exchange: Exchange, routing_key: str, mandatory: bool
    ) -> None:
        self.channel = channel
        self.exchange = exchange
        self.mandatory = mandatory
        self.envelope = Envelope(exchange.name, routing_key)
        self.queues: tuple[Target, ...]
        self.queues, self.uses_headers, self.varies = route(
            channel.session.vhost, exchange, [routing_key], {}
        )
        self.extends = not exchange.name and routing_key == EXTEND
        is_choosy = any(
            queue.terms.looks_at_each or queue.kind == "history" for queue in self.queues
        )
        is_copied = channel.session.broker.firehose is not None
        self.is_slow = self.varies or self.extends or is_choosy or is_copied


class Routes:
    """The routes that one session remembers.

    Attributes:
        by_frame: by the bytes of the method frame. Call `refresh` before looking there.
    """

    __slots__ = ("_cost", "_generation", "_limit", "by_frame")

    def __init__(self, limit: int) -> None:
        self.by_frame: dict[bytes, Route] = {}
        self._limit = limit
        self._generation = -1
        self._cost = 0

    def refresh(self, generation: int) -> None:
        """Forgets all if messages may go elsewhere now."""
        if generation != self._generation:
            self._generation = generation
            self.forget()

    def forget(self) -> None:
        """Forgets all."""
        self.by_frame.clear()
        self._cost = 0

    def remember(self, frame: bytes, route: Route) -> None:
        """Keeps a route, unless messages come back from it: those always need thought."""
        if route.mandatory and not route.queues:
            return
        self._cost += 1 + len(route.queues) // TARGETS_AS_CHEAP_AS_A_ROUTE
        if self._cost > self._limit:
            self.by_frame.clear()
            self._cost = 1
        self.by_frame[frame] = route


def resolve(channel: Channel, exchange_name: str, routing_key: str, mandatory: bool) -> Route:
    """The route of a publish.

    Raises:
        ChannelException: 403 without permission and for internal exchanges, 404 if the exchange
            does not exist.
    """
    actor = channel.session.actor
    check(actor, "write", "exchange", exchange_name)
    exchange = actor.vhost.exchange(exchange_name)
    if exchange.internal:
        raise errors.access_refused(
            f"cannot publish to internal {actor.vhost.words('exchange', exchange_name)}"
        )
    return Route(channel, exchange, routing_key, mandatory)

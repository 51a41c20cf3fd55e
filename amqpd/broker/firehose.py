"""The firehose: a copy of every message that is published or delivered, at `amq.rabbitmq.trace`.

Copies have the routing keys `publish.` and the exchange, or `deliver.` and the queue; what the
message was stands in their headers. Where it is switched on, publishes and deliveries are looked at
one by one. Copies are not copied again.

Source: RabbitMQ, "Firehose Tracer".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from amqpd.broker.deaths import routing_keys
from amqpd.broker.message import BODY, ENVELOPE, HEADER, Envelope, Message
from amqpd.broker.routing import route
from amqpd.wire import content, fields

if TYPE_CHECKING:
    from amqpd.broker.broker import Broker
    from amqpd.broker.vhost import Vhost

EXCHANGE: Final = "amq.rabbitmq.trace"


class Firehose:
    """Copies messages for whoever is bound to the exchange."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def published(
        self, vhost: Vhost, message: Message, queues: Iterable[str], by: tuple[bytes, ...]
    ) -> None:
        """A client has published a message.

        Args:
            queues: to which it goes.
            by: entries of headers that say who.
        """
        key = f"publish.{message[ENVELOPE].exchange}"
        self._copy(vhost, key, message, *by, fields.texts("routed_queues", queues))

    def delivered(
        self, vhost: Vhost, queue: str, message: Message, redelivered: bool, by: tuple[bytes, ...]
    ) -> None:
        """A client is given a message of a queue."""
        again = fields.entry("redelivered", b"I", int(redelivered).to_bytes(4, "big"))
        self._copy(vhost, f"deliver.{queue}", message, again, *by)

    def _copy(self, vhost: Vhost, key: str, message: Message, *entries: bytes) -> None:
        exchange = vhost.exchanges[EXCHANGE]
        envelope, header, body = message[ENVELOPE], message[HEADER], message[BODY]
        if not exchange.bindings or envelope.exchange == EXCHANGE:
            return
        told = (
            fields.text("exchange_name", envelope.exchange),
            fields.texts("routing_keys", routing_keys(envelope, header)),
            fields.table("properties", content.properties_table(header)),
            fields.text("node", self._broker.config.node.name),
            fields.text("vhost", vhost.name),
            *entries,
        )
        new_header = content.headers_only(told, content.body_size(header))
        copy: Message = (Envelope(EXCHANGE, key), new_header, body, False)
        self._broker.send(route(vhost, exchange, [key], {}, new_header).queues, [copy])

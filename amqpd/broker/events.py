"""What happens in the broker, told as messages of the exchange `amq.rabbitmq.event`.

An event is a persistent message without a body: its routing key says what has happened, its headers
to what. While nothing is bound to the exchange nothing is made. Events go the way of dead letters:
to their queues when the turn is settled.

Source: RabbitMQ's plugin rabbitmq_event_exchange.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from amqpd.broker.exchanges import registry
from amqpd.broker.exchanges.exchange import Exchange
from amqpd.broker.message import Envelope, Message
from amqpd.broker.operations import ExchangeAdded
from amqpd.broker.printed import printed
from amqpd.broker.routing import route
from amqpd.wire import content, fields
from amqpd.wire.arguments import NO_ARGUMENTS, Arguments
from amqpd.wire.erlang import binary
from amqpd.wire.tables import TYPE_NAMES

if TYPE_CHECKING:
    from amqpd.broker.broker import Broker
    from amqpd.broker.consumer import Consumer
    from amqpd.broker.exchanges.binding import Binding
    from amqpd.broker.queues.queue import Queue
    from amqpd.broker.users import User
    from amqpd.broker.vhost import Vhost

EXCHANGE: Final = "amq.rabbitmq.event"
TYPE: Final = "topic"


class Events:
    """Tells what happens, to whoever is bound to the exchange.

    Args:
        vhost: where the exchange is; it is made if it does not exist.
    """

    def __init__(self, broker: Broker, vhost: Vhost) -> None:
        self._broker = broker
        self._vhost = vhost
        if EXCHANGE in vhost.exchanges:
            return
        vhost.exchanges[EXCHANGE] = Exchange(
            EXCHANGE,
            TYPE,
            registry.router(TYPE, NO_ARGUMENTS, broker.random),
            durable=True,
            auto_delete=False,
            internal=True,
            arguments=NO_ARGUMENTS,
        )
        broker.journal.append(
            ExchangeAdded(vhost.name, EXCHANGE, TYPE, False, True, NO_ARGUMENTS.encoded)
        )

    def tell(self, key: str, *entries: bytes, user: User | None = None) -> None:
        """Tells that something has happened.

        Args:
            entries: of the headers.
            user: who did it.
        """
        exchange = self._vhost.exchanges.get(EXCHANGE)
        if exchange is None or not exchange.bindings:
            return
        now_s = self._broker.epoch + self._broker.now
        told = [*entries, fields.long("timestamp_in_ms", int(now_s * 1000))]
        if user is not None:
            told.insert(0, fields.text("user_who_performed_action", user.name))
        header = content.event_header(told, int(now_s))
        message: Message = (Envelope(EXCHANGE, key), header, b"", True)
        self._broker.send(route(self._vhost, exchange, [key], {}, header).queues, [message])

    def vhost_created(self, vhost: Vhost, user: User) -> None:
        self.tell("vhost.created", fields.text("name", vhost.name), user=user)

    def queue_created(self, queue: Queue, user: User) -> None:
        self.tell(
            "queue.created",
            *_of(queue.vhost, queue.name),
            fields.boolean("durable", queue.durable),
            fields.boolean("auto_delete", queue.auto_delete),
            fields.boolean("exclusive", queue.exclusive_owner is not None),
            fields.text("owner_pid", queue.exclusive_owner.name if queue.exclusive_owner else ""),
            _arguments(queue.arguments),
            user=user,
        )

    def queue_deleted(self, queue: Queue, user: User) -> None:
        self.tell("queue.deleted", *_of(queue.vhost, queue.name), user=user)

    def exchange_created(self, vhost: Vhost, exchange: Exchange, user: User) -> None:
        self.tell(
            "exchange.created",
            *_of(vhost, exchange.name),
            fields.text("type", exchange.type_name),
            fields.boolean("durable", exchange.durable),
            fields.boolean("auto_delete", exchange.auto_delete),
            fields.boolean("internal", exchange.internal),
            _arguments(exchange.arguments),
            fields.text("policy", exchange.policy.name if exchange.policy else ""),
            user=user,
        )

    def exchange_deleted(self, vhost: Vhost, exchange: Exchange, user: User) -> None:
        self.tell("exchange.deleted", *_of(vhost, exchange.name), user=user)

    def binding_created(self, vhost: Vhost, binding: Binding, user: User) -> None:
        self._tell_of_binding("binding.created", vhost, binding, user)

    def binding_deleted(self, vhost: Vhost, binding: Binding, user: User) -> None:
        self._tell_of_binding("binding.deleted", vhost, binding, user)

    def _tell_of_binding(self, key: str, vhost: Vhost, binding: Binding, user: User) -> None:
        self.tell(
            key,
            fields.text("vhost", vhost.name),
            fields.text("source_name", binding.source.name),
            fields.text("source_kind", "exchange"),
            fields.text("destination_name", binding.destination.name),
            fields.text("destination_kind", binding.destination.kind),
            fields.text("routing_key", binding.key),
            _arguments(binding.arguments),
            user=user,
        )

    def consumer_created(self, consumer: Consumer, arguments: Arguments, user: User) -> None:
        self.tell(
            "consumer.created",
            *_of_consumer(consumer),
            fields.boolean("exclusive", consumer.exclusive),
            fields.boolean("ack_required", not consumer.no_ack),
            fields.long("prefetch_count", consumer.prefetch),
            _arguments(arguments),
            user=user,
        )

    def consumer_deleted(self, consumer: Consumer, user: User) -> None:
        self.tell("consumer.deleted", *_of_consumer(consumer), user=user)

    def alarm(self, resource: str, on: bool) -> None:
        """Something has run short, or is there again: "memory" or "disk"."""
        self.tell("alarm.set" if on else "alarm.cleared", fields.text("source", resource))


def _of(vhost: Vhost, name: str) -> tuple[bytes, bytes]:
    return fields.text("vhost", vhost.name), fields.text("name", name)


def _of_consumer(consumer: Consumer) -> tuple[bytes, ...]:
    return (
        fields.text("vhost", consumer.queue.vhost.name),
        fields.text("queue", consumer.queue.name),
        fields.text("channel", consumer.channel.name),
        fields.text("consumer_tag", consumer.tag),
    )


def _arguments(arguments: Arguments) -> bytes:
    """Arguments as RabbitMQ shows them there: each as the text of an Erlang term."""
    shown = []
    for name, value in arguments.values.items():
        text = binary(value.encode()) if isinstance(value, str) else printed(value)
        shown.append(f"{{{binary(name.encode())},{TYPE_NAMES[arguments.types[name]]},{text}}}")
    return fields.texts("arguments", shown)

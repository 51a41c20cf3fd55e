"""From an exchange and routing keys to queues: the walk over the exchange graph.

Each exchange is visited once, so cycles are safe, and each queue is in the answer once. An exchange
whose own routing gives nothing hands the message to its alternate exchange.

Source: RabbitMQ, "Exchange to exchange bindings", "Alternate exchanges", "Sender-selected
distribution".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from amqpd import errors
from amqpd.broker.exchanges.exchange import Exchange
from amqpd.broker.queues.direct_reply import REPLY_PREFIX
from amqpd.wire import content
from amqpd.wire.arguments import Arguments
from amqpd.wire.tables import TYPE_NAMES

if TYPE_CHECKING:
    from amqpd.broker.queues.inbox import Inbox
    from amqpd.broker.queues.queue import Queue
    from amqpd.broker.vhost import Vhost

    Target: TypeAlias = Queue | Inbox


class Routed(NamedTuple):
    """Where a message goes.

    Attributes:
        uses_headers: the headers had a say in it, or would have.
        varies: the next one that is like it may go elsewhere.
    """

    queues: tuple[Target, ...]
    uses_headers: bool
    varies: bool


def route(
    vhost: Vhost,
    exchange: Exchange,
    routing_keys: list[str],
    headers: Mapping[str, Any] | None,
    header: bytes = b"",
) -> Routed:
    """The queues for a message.

    Args:
        headers: its headers table, of which `header` is the content header; None if it is to be
            decoded where an exchange looks at it, which most do not.
    """
    if exchange is vhost.default_exchange:
        return Routed(_by_queue_name(vhost, routing_keys), False, False)
    queues: dict[Target, None] = {}
    seen: dict[Exchange, None] = {exchange: None}
    waiting = [exchange]
    used_headers = varies = False
    while waiting:
        current = waiting.pop(0)
        used_headers |= current.router.uses_headers
        if headers is None and current.router.uses_headers:
            headers = content.headers(header).values
        varies |= current.router.varies
        for destination in _destinations(vhost, current, routing_keys, headers or {}, header):
            if not isinstance(destination, Exchange):
                queues[destination] = None
            elif destination not in seen:
                seen[destination] = None
                waiting.append(destination)
    return Routed(tuple(queues), used_headers, varies)


def _destinations(
    vhost: Vhost,
    exchange: Exchange,
    routing_keys: list[str],
    headers: Mapping[str, Any],
    header: bytes,
) -> list[Any]:
    """What one exchange's own routing gives, or its alternate exchange where that is nothing."""
    if exchange is vhost.default_exchange:
        return []  # as an alternate exchange it gives nothing, as in RabbitMQ
    found: list[Any] = exchange.router.route(routing_keys, headers, header)
    if exchange.alternate is not None and leads_nowhere(found):
        alternate = vhost.exchanges.get(exchange.alternate)
        if alternate is not None:
            found.append(alternate)
    return found


def leads_nowhere(targets: Iterable[Any]) -> bool:
    """Whether no queue is among them: a history or a gate keeps a message for nobody."""
    return all(target.kind in ("history", "gate") for target in targets)


def _by_queue_name(vhost: Vhost, routing_keys: list[str]) -> tuple[Target, ...]:
    queues: dict[Target, None] = {}
    for key in routing_keys:
        target = vhost.queues.get(key)
        if target is not None:
            queues[target] = None
        elif key.startswith(REPLY_PREFIX) and (reply := vhost.replies.get(key)) is not None:
            queues[reply] = None
    return tuple(queues)


def sender_selected_keys(headers: Arguments) -> list[str]:
    """The additional routing keys of the headers `CC` and `BCC`.

    Raises:
        ChannelException: 406 where one of them is not an array.
    """
    keys: list[str] = []
    for name in ("CC", "BCC"):
        if name not in headers.values:
            continue
        kind = headers.types[name]
        if kind != b"A":
            raise errors.precondition_failed(
                f'invalid message: {{unacceptable_type_in_header,"{name}",{TYPE_NAMES[kind]}}}'
            )
        keys += [key for key in headers.values[name] if isinstance(key, str)]
    return keys


def may_select_keys(header: bytes) -> bool:
    """Whether a header piece can hold `CC` or `BCC`; never False for one that does."""
    return content.flags(header) & content.HEADERS != 0 and (
        b"\x02CC" in header or b"\x03BCC" in header
    )

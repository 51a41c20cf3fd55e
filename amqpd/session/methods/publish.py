"""basic.publish, one message at a time: every check, in RabbitMQ's order.

`session/hotpath.py` takes the publishes that need none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqpd import errors
from amqpd.broker.message import ENVELOPE, HEADER, Message, body_bytes
from amqpd.broker.queues.direct_reply import REPLY_QUEUE
from amqpd.broker.routing import leads_nowhere, may_select_keys, route, sender_selected_keys
from amqpd.session.ack_timeout import EXTENDED
from amqpd.session.content import Assembly
from amqpd.session.expiration import problem as expiration_problem
from amqpd.session.methods.basic import say_with_content
from amqpd.session.route import Route, resolve
from amqpd.session.transaction import Publish
from amqpd.wire import content
from amqpd.wire.constants import FRAME_METHOD
from amqpd.wire.erlang import binary
from amqpd.wire.frames import frame
from amqpd.wire.methods import Basic

if TYPE_CHECKING:
    from amqpd.broker.routing import Target
    from amqpd.session.channel import Channel


def publish(channel: Channel, assembly: Assembly) -> None:
    """Takes a publish whose content is complete.

    Raises:
        ConnectionException: 540 for `immediate`, 501 for a header that cannot be decoded.
        ChannelException: 403, 404 or 406, as the checks find.
    """
    if assembly.method.immediate:
        raise errors.not_implemented("immediate=true")
    if assembly.too_large:
        limit = channel.session.broker.config.message.size_bytes_max
        raise errors.precondition_failed(
            f"message size {assembly.too_large} is larger than configured max size {limit}"
        )
    route_to = remembered_route(channel, assembly)
    header = checked_header(channel, assembly.header)
    if route_to.extends:
        _extend(channel, header)
        return
    envelope = route_to.envelope
    message = (envelope, header, assembly.body(), content.is_persistent(header))
    queues, message = _queues(channel, route_to, message)
    _check_user(channel, header)
    if channel.transaction is not None:
        bytes_max = channel.session.broker.config.limits.transaction_bytes_max
        channel.transaction.publish(Publish(message, queues, route_to.mandatory), bytes_max)
        return
    confirms = channel.confirms
    accepted = send(channel, message, queues, route_to.mandatory)
    if confirms is not None:
        confirms.published += 1
        if not accepted:
            confirms.refused.append(confirms.published)
        channel.session.confirming[channel] = None


def _extend(channel: Channel, header: bytes) -> None:
    """The client still works on deliveries. Raises ChannelException 406 for what are no tags."""
    tags = content.headers(header).values.get(EXTENDED)
    if type(tags) is int:
        tags = [tags]
    if tags is not None and not (
        isinstance(tags, list) and all(type(tag) is int for tag in tags)  # a bool is no number
    ):
        raise errors.precondition_failed(
            f"invalid header '{EXTENDED}': expected a delivery tag or an array of them"
        )
    channel.ack_timeout.extend(tags)
    if channel.confirms is not None:
        channel.confirms.published += 1
        channel.session.confirming[channel] = None


def remembered_route(channel: Channel, assembly: Assembly) -> Route:
    """The route of a publish, from the session's memory if it is there."""
    routes, method = channel.session.routes, assembly.method
    routes.refresh(channel.session.vhost.generation)
    key = frame(FRAME_METHOD, channel.number, assembly.frame)
    found = routes.by_frame.get(key)
    if found is None:
        found = resolve(channel, method.exchange, method.routing_key, method.mandatory)
        routes.remember(key, found)
    return found


def checked_header(channel: Channel, header: bytes) -> bytes:
    """The header, checked, and with a direct reply-to address where it asks for one."""
    try:
        content.check(header)
    except (ValueError, IndexError) as error:
        raise errors.frame_error(f"cannot decode {binary(header[4:-1])}: {error}") from error
    header = _with_reply_address(channel, header)
    _check_expiration(header)
    return header


def _with_reply_address(channel: Channel, header: bytes) -> bytes:
    if content.short_string(header, content.REPLY_TO) != REPLY_QUEUE:
        return header
    if channel.reply is None:
        raise errors.precondition_failed("fast reply consumer does not exist")
    return content.with_short_string(header, content.REPLY_TO, channel.reply.name)


def _check_expiration(header: bytes) -> None:
    expiration = content.short_string(header, content.EXPIRATION)
    if expiration is None:
        return
    if why := expiration_problem(expiration):
        raise errors.precondition_failed(f"invalid expiration '{expiration}': {why}")


def _check_user(channel: Channel, header: bytes) -> None:
    user_id = content.short_string(header, content.USER_ID)
    user = channel.session.user
    if user_id is not None and user_id != user.name and "impersonator" not in user.tags:
        raise errors.precondition_failed(
            f"user_id property set to '{user_id}' but authenticated user was '{user.name}'"
        )


def _queues(
    channel: Channel, route_to: Route, message: Message
) -> tuple[tuple[Target, ...], Message]:
    """Where the message goes, with the say that its headers have in it."""
    envelope, header, body, persistent = message
    selects = may_select_keys(header)
    by_headers = route_to.uses_headers and content.flags(header) & content.HEADERS
    if not selects and not by_headers and not route_to.varies:
        return route_to.queues, message
    try:
        headers = content.headers(header)
    except ValueError as error:
        raise errors.frame_error(f"cannot decode the headers table: {error}") from error
    keys = [envelope.routing_key, *sender_selected_keys(headers)]
    queues = route(channel.session.vhost, route_to.exchange, keys, headers.values, header).queues
    if "BCC" in headers.values:
        header = content.without_header_entry(header, "BCC")
    return queues, (envelope, header, body, persistent)


def send(channel: Channel, message: Message, queues: tuple[Target, ...], mandatory: bool) -> bool:
    """Puts a message into the inboxes of its queues, or back to its publisher.

    Returns whether no queue has refused it.
    """
    broker = channel.session.broker
    channel.session.posted(queues)
    broker.counters.published += 1
    if broker.firehose is not None:
        names = [queue.name for queue in queues if queue.kind == "queue"]
        broker.firehose.published(channel.session.vhost, message, names, channel.words())
    if leads_nowhere(queues):
        _drop(channel, message, mandatory)
    accepted = True
    expires = content.flags(message[HEADER]) & content.EXPIRATION != 0
    gates: list[Target] = []
    for queue in queues:
        if queue.kind == "gate":
            gates.append(queue)
            continue
        if queue.refuses(message):
            accepted = False
            continue
        if queue.terms.deduplicates and queue.is_duplicate(message):
            continue
        queue.inbox.append(message)
        queue.inbox_bytes += body_bytes(message)
        queue.inbox_expires |= expires
        broker.touch(queue)
    if accepted:  # what was refused is no duplicate when it comes again
        for gate in gates:
            gate.is_duplicate(message)
    return accepted


def _drop(channel: Channel, message: Message, mandatory: bool) -> None:
    """No queue gets the message."""
    counters = channel.session.broker.counters
    if not mandatory:
        counters.unroutable_dropped += 1
        return
    counters.unroutable_returned += 1
    envelope = message[ENVELOPE]
    say_with_content(
        channel,
        Basic.Return(
            reply_code=312,
            reply_text="NO_ROUTE",
            exchange=envelope.exchange,
            routing_key=envelope.routing_key,
        ),
        message,
    )

"""Which function handles which method."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from amqpd.session.methods import (
    basic,
    channel,
    confirm,
    consume,
    exchange,
    queue,
    settle,
    tx,
)
from amqpd.wire.methods import Access, Basic, Confirm, Exchange, Method, Queue, Tx
from amqpd.wire.methods import Channel as ChannelMethods

if TYPE_CHECKING:
    from amqpd.session.channel import Channel

# The channel, the decoded method, and the payload of its frame (for the field types of tables).
Handler = Callable[["Channel", Any, bytes], None]

HANDLERS: dict[type[Method], Handler] = {
    ChannelMethods.Open: channel.open_again,
    ChannelMethods.Flow: channel.flow,
    ChannelMethods.FlowOk: channel.flow_ok,
    ChannelMethods.Close: channel.close,
    ChannelMethods.CloseOk: channel.close_ok,
    Access.Request: channel.access_request,
    Exchange.Declare: exchange.declare,
    Exchange.Delete: exchange.delete,
    Exchange.Bind: exchange.bind,
    Exchange.Unbind: exchange.unbind,
    Queue.Declare: queue.declare,
    Queue.Delete: queue.delete,
    Queue.Bind: queue.bind,
    Queue.Unbind: queue.unbind,
    Queue.Purge: queue.purge,
    Basic.Qos: basic.qos,
    Basic.Get: basic.get,
    Basic.Consume: consume.consume,
    Basic.Cancel: consume.cancel,
    Basic.Ack: settle.ack,
    Basic.Nack: settle.nack,
    Basic.Reject: settle.reject,
    Basic.Recover: settle.recover,
    Basic.RecoverAsync: settle.recover_async,
    Confirm.Select: confirm.select,
    Tx.Select: tx.select,
    Tx.Commit: tx.commit,
    Tx.Rollback: tx.rollback,
}

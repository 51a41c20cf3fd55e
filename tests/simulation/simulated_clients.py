"""A client of the simulation: says what it is told to, and holds what it hears to the ledger.

The ledger learns of an act before the broker does, so that whatever the act makes the broker
deliver finds it up to date.
"""

from __future__ import annotations

from collections import deque
from functools import cache
from typing import Any, NamedTuple

from promises import Copy, Ledger, QueueModel
from random_clients import CHANNELS, FRAME_BYTES_MAX, handshake

from amqpd.testing.client import Hearing, Told
from amqpd.testing.harness import Harness
from amqpd.wire.constants import FRAME_OVERHEAD_BYTES
from amqpd.wire.methods import (
    Basic,
    Channel,
    Method,
    Tx,
    encode_body,
    encode_header,
    encode_method,
)

DELIVERIES = (Basic.Deliver, Basic.GetOk)


class Consuming(NamedTuple):
    """A consumer, or a get."""

    tag: str
    queue: QueueModel
    channel: ChannelModel
    no_ack: bool
    prefetch: int = 0


class Given:
    """A delivery; `heard` once the client has received it."""

    __slots__ = ("by", "copy", "heard", "tag")

    def __init__(self, by: Consuming, copy: Copy, tag: int) -> None:
        self.by = by
        self.copy = copy
        self.tag = tag
        self.heard = False


class Expected(NamedTuple):
    """A reply that must come: after the ticket is committed, and with this count of messages."""

    name: str
    ticket: int = 0
    count: int | None = None


class ChannelModel:
    """What a client knows of one of its channels.

    Attributes:
        mode: "", "confirm" or "tx".
        consumers: those that consume; `known_tags` has all there ever were.
        gets: those that were not answered; all from one queue.
        unsettled: deliveries that can be settled, by tag.
        unheard: deliveries that the broker has made and the client has not received.
        unconfirmed: tickets of publishes, by sequence number.
        publishes, settlements: what waits for a tx.commit.
        refused: the broker has closed the channel, which the client may not have heard yet.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.mode = ""
        self.prefetch_each = self.prefetch_all = 0
        self.consumers: dict[str, Consuming] = {}
        self.known_tags: dict[str, Consuming] = {}
        self.gets: deque[Consuming] = deque()
        self.unsettled: dict[int, Given] = {}
        self.unheard: dict[int, Given] = {}
        self.last_tag = 0
        self.sequence = 0
        self.unconfirmed: dict[int, int] = {}
        self.publishes: list[tuple[int, list[QueueModel]]] = []
        self.settlements: list[tuple[list[Given], bool]] = []
        self.expected: deque[Expected] = deque()
        self.refused = False

    @property
    def settleable(self) -> list[int]:
        """Delivery tags that the client can settle."""
        return [tag for tag, given in self.unsettled.items() if given.heard]

    def has_room(self, consumer: Consuming) -> bool:
        """Whether the broker has to give the consumer more, if there is more."""
        waiting = [given for settlement in self.settlements for given in settlement[0]]
        givens = [each for each in (*self.unsettled.values(), *waiting) if each.by.tag]
        its = sum(given.by is consumer for given in givens)
        if self.prefetch_all and len(givens) >= self.prefetch_all:
            return False
        return not consumer.prefetch or consumer.no_ack or its < consumer.prefetch


class SimulatedClient:
    """One connection.

    Attributes:
        channels: all there ever were, by number; those that are `open`.
        last_get: the last get that it has sent.
        promised: the last ticket of which a promise was heard.
    """

    def __init__(self, harness: Harness, ledger: Ledger) -> None:
        self.harness = harness
        self.ledger = ledger
        self.link = harness.connect()
        self.link.send(_handshake())
        self.channels = {number: ChannelModel(number) for number in range(1, CHANNELS + 1)}
        self.open = [*self.channels.values()]
        self.last_get: Consuming | None = None
        self._hearing = Hearing()
        self._hearing.hear(self.link.receive())
        self._bytes_heard = self.link.session.bytes_written
        self._peeked: tuple[Any, int] = (None, 0)
        self.promised = 0

    @property
    def can_speak(self) -> bool:
        """Whether the broker would read what the client says."""
        return not self.link.closed and not self.link.session.flow.stopped

    def tell(self, channel: ChannelModel, method: Method, expected: Expected | None = None) -> None:
        """Says a method, to which a reply is expected."""
        if expected is not None:
            channel.expected.append(expected)
        self.link.send(encode_method(channel.number, method))

    # --- what the client does, as the ledger sees it ----------------------------------------------

    def publish(self, channel: ChannelModel, uids: list[int]) -> None:
        """Publishes what the ledger knows by these numbers."""
        data = b""
        for uid in uids:
            message = self.ledger.published[uid]
            queues = self.ledger.route(message.exchange, message.key)
            data += _start(channel.number, message.exchange, message.key)
            data += _content(channel.number, message.body, message.persistent)
            if channel.mode == "tx":
                channel.publishes.append((uid, queues))
                continue
            ticket = self.ledger.put(uid, queues)
            if channel.mode == "confirm":
                channel.sequence += 1
                channel.unconfirmed[channel.sequence] = ticket
        self.link.send(data)

    def settle(self, channel: ChannelModel, tags: list[int], requeue: bool) -> None:
        """Deliveries are settled, at once or at the end of a transaction."""
        givens = [channel.unsettled.pop(tag) for tag in tags]
        if channel.mode == "tx":
            channel.settlements.append((givens, requeue))
        else:
            self._settle(givens, requeue)

    def _settle(self, givens: list[Given], requeue: bool) -> bool:
        """Whether the store has to know."""
        ticket, kept = self.ledger.ticket, False
        for given in givens:
            if requeue:
                given.by.queue.give_back([given.copy])
            else:
                given.by.queue.settle(given.copy, ticket, ticket)
                kept |= given.copy.persistent and given.by.queue.removed is None
        return kept

    def commit(self, channel: ChannelModel) -> None:
        """tx.commit"""
        kept = False
        for uid, queues in channel.publishes:
            message = self.ledger.published[uid]
            if not queues and not message.exchange:
                queues = self.ledger.route("", message.key)
            kept |= self.ledger.put(uid, queues) > 0
        for givens, requeue in channel.settlements:
            kept |= self._settle(givens, requeue)
        channel.publishes, channel.settlements = [], []
        self.tell(channel, Tx.Commit(), Expected("Tx.CommitOk", self.ledger.ticket * kept))

    def rollback(self, channel: ChannelModel) -> None:
        """tx.rollback: what was settled is not, and nothing is delivered again."""
        self._unsettle(channel)
        self.tell(channel, Tx.Rollback(), Expected("Tx.RollbackOk"))

    def _unsettle(self, channel: ChannelModel) -> None:
        back = {given.tag: given for givens, _ in channel.settlements for given in givens}
        channel.unsettled = dict(sorted((channel.unsettled | back).items()))
        channel.publishes, channel.settlements = [], []

    def recover(self, channel: ChannelModel) -> None:
        """basic.recover: all that is unsettled comes back to its queue."""
        givens, channel.unsettled = channel.unsettled, {}
        self._settle([*givens.values()], requeue=True)
        self.tell(channel, Basic.Recover(requeue=True), Expected("Basic.RecoverOk"))

    def consume(self, channel: ChannelModel, queue: QueueModel, tag: str, no_ack: bool) -> None:
        """basic.consume"""
        consumer = Consuming(tag, queue, channel, no_ack, channel.prefetch_each)
        channel.consumers[tag] = channel.known_tags[tag] = consumer
        queue.consumers.add(consumer)
        queue.had_takers = True
        method = Basic.Consume(queue=queue.name, consumer_tag=tag, no_ack=no_ack)
        self.tell(channel, method, Expected("Basic.ConsumeOk"))

    def drop_consumer(self, channel: ChannelModel, tag: str) -> None:
        """The consumer is no more; an auto-delete queue goes with its last one."""
        consumer = channel.consumers.pop(tag)
        queue = consumer.queue
        queue.consumers.discard(consumer)
        if queue.kind.auto_delete and not queue.consumers and queue.removed is None:
            self.ledger.remove(queue)

    def get(self, channel: ChannelModel, queue: QueueModel, no_ack: bool, times: int) -> None:
        """Several basic.get, one behind the other."""
        queue.had_takers = True
        getting = Consuming("", queue, channel, no_ack)
        channel.gets.extend([getting] * times)
        self.last_get = getting
        get = Basic.Get(queue=queue.name, no_ack=no_ack)
        self.link.send(encode_method(channel.number, get) * times)

    def close_channel(self, channel: ChannelModel) -> None:
        """Closes a channel and opens another one."""
        self.end_channel(channel)
        close = Channel.Close(reply_code=200, reply_text="", class_id=0, method_id=0)
        self.tell(channel, close, Expected("Channel.CloseOk"))
        self.open_channel()

    def open_channel(self) -> None:
        """Opens one; no number comes twice, so that it is always clear which channel is meant."""
        channel = ChannelModel(len(self.channels) + 1)
        self.channels[channel.number] = channel
        self.open.append(channel)
        self.tell(channel, Channel.Open(), Expected("Channel.OpenOk"))

    def end_channel(self, channel: ChannelModel) -> None:
        """The channel ends on the broker's side: all that is unsettled comes back."""
        for tag in list(channel.consumers):
            self.drop_consumer(channel, tag)
        self._unsettle(channel)
        givens, channel.unsettled = channel.unsettled, {}
        self._settle([*givens.values()], requeue=True)
        channel.gets.clear()
        self.open.remove(channel)

    @property
    def waits_in_vain(self) -> bool:
        """Whether the queue from which it has last got messages is gone."""
        return self.last_get is not None and self.last_get.queue.removed is not None

    def refuse_get(self) -> None:
        """The queue from which the client gets, and on which it waits, is gone: 404."""
        assert self.last_get is not None
        self.end_channel(self.last_get.channel)
        self.last_get.channel.refused = True

    def end(self) -> None:
        """The connection ends, as far as the ledger is concerned."""
        for channel in list(self.open):
            self.end_channel(channel)
        for queue in list(self.ledger.queues.values()):
            if queue.owner is self:
                self.ledger.remove(queue)

    # --- what the client hears --------------------------------------------------------------------

    def listen(self) -> None:
        """Takes what has been said, and looks at the deliveries that are still held back."""
        session = self.link.session
        if session.bytes_written > self._bytes_heard:
            self._bytes_heard = session.bytes_written
            self._peeked = (None, 0)
            for told in self._hearing.hear(self.link.receive()):
                self._hear(self.channels.get(told.channel), told)
        if session.output.size:
            for told in Hearing().hear(self._peek()):
                if isinstance(told.method, DELIVERIES):
                    self._give(self.channels[told.channel], told)

    def _peek(self) -> bytes:
        """What the session has said since the last look and not sent yet; whole frames."""
        output = self.link.session.output
        lists = [output._head, *(following for _, _, following in output._held)]
        seen, length = self._peeked
        places = [place for place, each in enumerate(lists) if each is seen]
        new = [lists[places[0]][length:], *lists[places[0] + 1 :]] if places else lists
        self._peeked = lists[-1], len(lists[-1])
        return b"".join(piece for each in new for piece in each)

    def _hear(self, channel: ChannelModel | None, told: Told) -> None:
        method = told.method
        if channel is None or isinstance(method, Basic.Cancel):
            return
        if isinstance(method, DELIVERIES):
            self._give(channel, told)
            given = channel.unheard.pop(method.delivery_tag, None)
            if given is not None:
                given.heard = given.copy.known = True
        elif isinstance(method, Basic.Ack):
            self._confirmed(channel, method)
        elif isinstance(method, Basic.GetEmpty):
            if channel in self.open:
                channel.gets.popleft()
        elif isinstance(method, Channel.Close):
            assert channel.refused, method.reply_text
            self.link.send(encode_method(channel.number, Channel.CloseOk()))
            self.open_channel()
        else:
            self._answered(channel, method)

    def _answered(self, channel: ChannelModel, method: Any) -> None:
        expected = channel.expected.popleft()
        assert method.name == expected.name
        self._promised(expected.ticket)
        if expected.count is not None:
            assert method.message_count == expected.count, method.name

    def _confirmed(self, channel: ChannelModel, method: Basic.Ack) -> None:
        last = method.delivery_tag
        sequences = [each for each in channel.unconfirmed if each <= last]
        assert sequences if method.multiple else sequences == [last]
        for sequence in sequences:
            self._promised(channel.unconfirmed.pop(sequence))

    def _give(self, channel: ChannelModel, told: Told) -> None:
        """The broker has made a delivery, of which the ledger may know already."""
        method, ledger = told.method, self.ledger
        if method.delivery_tag <= channel.last_tag:
            return
        channel.last_tag += 1
        assert method.delivery_tag == channel.last_tag
        by = channel.gets.popleft() if method.name == "Basic.GetOk" else None
        by = by or channel.known_tags[method.consumer_tag]
        uid = int(told.body.split(b".")[0])
        message = ledger.published[uid]
        assert message.body == told.body
        assert (message.exchange, message.key) == (method.exchange, method.routing_key)
        assert told.properties.delivery_mode == 1 + message.persistent
        copy = by.queue.take(uid, method.redelivered, channel)
        channel.unheard[channel.last_tag] = given = Given(by, copy, channel.last_tag)
        if by.no_ack:
            by.queue.settle(copy, ledger.ticket, self.harness.core.broker.journal.ticket)
        elif channel.refused:  # it came back with all that the channel had
            by.queue.give_back([copy])
        else:
            channel.unsettled[channel.last_tag] = given

    def _promised(self, ticket: int) -> None:
        assert ticket <= self.harness.core.broker.journal.committed, "promised before it is kept"
        self.promised = max(self.promised, ticket)

    def check_at_rest(self) -> None:
        """Everything is answered, and the client is read."""
        assert self.can_speak
        for channel in self.open:
            assert not channel.expected
            assert not channel.unconfirmed
            assert not channel.gets
            assert not channel.unheard


_handshake = cache(handshake)


@cache
def _start(channel: int, exchange: str, key: str) -> bytes:
    return encode_method(channel, Basic.Publish(exchange=exchange, routing_key=key))


@cache
def _header(channel: int, size: int, persistent: bool) -> bytes:
    return encode_header(channel, size, Basic.Properties(delivery_mode=1 + persistent))


def _content(channel: int, body: bytes, persistent: bool) -> bytes:
    step = FRAME_BYTES_MAX - FRAME_OVERHEAD_BYTES
    parts = [body[start : start + step] for start in range(0, len(body), step)]
    header = _header(channel, len(body), persistent)
    return header + b"".join(encode_body(channel, part) for part in parts)

"""Random conversations: what several clients might say, well-behaved or not, drawn by hypothesis.

A conversation is a list of acts. An act is data that prints and shrinks; `Encoder` makes bytes of
it, with what the clients have heard so far: an ack needs a delivery tag that is outstanding.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hypothesis import strategies as st

from amqpd.config import Config
from amqpd.config.settings import Limits
from amqpd.testing.client import Hearing, content_bytes, publish_bytes
from amqpd.wire.constants import PROTOCOL_HEADER
from amqpd.wire.methods import (
    Basic,
    Channel,
    Confirm,
    Connection,
    Exchange,
    Method,
    Queue,
    Tx,
    encode_body,
    encode_method,
)

CLIENTS = 3
CHANNELS = 2
FRAME_BYTES_MAX = 8192
ACT_BYTES = 8  # about what it takes to choose one

# A broker in which queues hold a few messages in memory, and the rest in the store.
TINY_WINDOWS = Config(limits=Limits(queue_memory_bytes_max=1000, uncommitted_bytes_max=3000))

# Names with the properties that they are mostly declared with, so that most declares agree.
QUEUES: dict[str, dict[str, Any]] = {
    "transient": {},
    "durable": {"durable": True},
    "auto": {"auto_delete": True},
    "mine": {"exclusive": True},
    "durable.auto": {"durable": True, "auto_delete": True},
    "short": {
        "arguments": {
            "x-max-length": 3,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "mortal",
        },
    },
    "full": {"durable": True, "arguments": {"x-max-length": 2, "x-overflow": "reject-publish"}},
    "mortal": {
        "durable": True,
        "arguments": {"x-message-ttl": 20_000, "x-dead-letter-exchange": "amq.fanout"},
    },
    "levels": {"durable": True, "arguments": {"x-max-priority": 4, "x-max-length-bytes": 400}},
    "quorum": {
        "durable": True,
        "arguments": {
            "x-queue-type": "quorum",
            "x-delivery-limit": 2,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "levels",
        },
    },
    "again": {
        "durable": True,
        "arguments": {"x-delayed": True, "x-retry-max": 2, "x-retry-min-delay": 300},
    },
    "groups": {"durable": True, "arguments": {"x-message-groups": True, "x-max-length": 30}},
    "once": {"durable": True, "arguments": {"x-message-deduplication": True}},
    "log": {
        "durable": True,
        "arguments": {"x-queue-type": "stream", "x-max-length-bytes": 100_000},
    },
    "single": {"arguments": {"x-single-active-consumer": True, "x-expires": 40_000}},
}
EXCHANGES: dict[str, dict[str, Any]] = {
    "d": {"exchange_type": "direct", "durable": True},
    "t": {"exchange_type": "topic"},
    "f": {"exchange_type": "fanout", "durable": True, "auto_delete": True},
    "h": {"exchange_type": "headers"},
    "alternate": {"exchange_type": "direct", "arguments": {"alternate-exchange": "f"}},
    "internal": {"exchange_type": "fanout", "internal": True, "durable": True},
    "late": {
        "exchange_type": "x-delayed-message",
        "durable": True,
        "arguments": {"x-delayed-type": "topic"},
    },
    "hashed": {"exchange_type": "x-consistent-hash"},
    "random": {"exchange_type": "x-random", "durable": True},
    "deduplicating": {
        "exchange_type": "x-message-deduplication",
        "durable": True,
        "arguments": {"x-cache-size": 2},
    },
}
SOURCES = ("amq.direct", "amq.topic", "amq.fanout", "amq.headers", *EXCHANGES)
KEYS = (*QUEUES, "a.b", "a.*", "#", "a.#.c", "")
BODY_SIZES = (0, 1, 5, 5, 5, 60, 300, 2000, 8184, 8185, 20_000)
PROPERTIES: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"delivery_mode": 2},
    {"delivery_mode": 2},
    {"delivery_mode": 1, "content_type": "text/plain", "priority": 3},
    {"headers": {"x": 1}},
    {"headers": {"x": 2, "deep": {"a": [1, "b"]}}, "delivery_mode": 2},
    {"headers": {"CC": ["durable", "a.b"]}, "delivery_mode": 2},
    {"headers": {"BCC": ["transient", "auto"]}},
    {"headers": {"CC": "not an array"}},
    {"headers": {"x-group-id": "a"}, "delivery_mode": 2},
    {"headers": {"x-group-id": 7}},
    {"headers": {"x-deduplication-header": "a"}, "delivery_mode": 2},
    {"headers": {"x-deduplication-header": 1}},
    {"headers": {"x-delay": 700}, "delivery_mode": 2},
    {"expiration": "60000", "delivery_mode": 2},
    {"expiration": "never"},
    {"expiration": "0"},
    {"priority": 9, "delivery_mode": 2, "expiration": "15000"},
    {"user_id": "guest"},
    {"user_id": "somebody"},
    {"reply_to": "amq.rabbitmq.reply-to"},
    {
        "reply_to": "durable",
        "correlation_id": "7",
        "message_id": "m",
        "message_type": "t",
        "app_id": "a",
    },
)
# Frames that are wrong in themselves or in their place; `channel` stands where it says C.
GARBAGE = (
    b"\x01\x00C\x00\x00\x00\x04\x00\x3c\x00\x28\xce",  # basic.publish without arguments
    b"\x01\x00C\x00\x00\x00\x0d\x00\x3c\x00\x50\x00\x00\x00\x00\x00\x00\x00\x01\x00\xcd",
    b"\x01\x00C\x00\x00\x00\x0d\x00\x3c\x00\x50\x00\x00\x00\x00\x00\x00\x03\xe7\x00\xce",
    b"\x01\x00C\x00\x00\x00\x04\x00\x3c\x00\x63\xce",  # a method that does not exist
    b"\x02\x00C\x00\x00\x00\x0e\x00\x3c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xce",
    b"\x03\x00C\x00\x00\x00\x01a\xce",
    b"\x03\x00C\x00\x00\x00\x00\xce",
    b"\x08\x00C\x00\x00\x00\x00\xce",
    b"\x08\x00\x00\x00\x00\x00\x00\xce",
    b"\x05\x00C\x00\x00\x00\x00\xce",
    b"\x01\x00C\x7f\xff\xff\xff",
)
# Content headers that are not what they should be, behind a good basic.publish.
BAD_HEADERS = (
    b"\x02\x00C\x00\x00\x00\x0e\x00\x3d\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\xce",
    b"\x02\x00C\x00\x00\x00\x0e\x00\x3c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05\x80\x00\xce",
    b"\x02\x00C\x00\x00\x00\x0e\x00\x3c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05\x00\x01\xce",
    b"\x02\x00C\x00\x00\x00\x0e\x00\x3c\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\xce",
    b"\x02\x00C\x00\x00\x00\x0f\x00\x3c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05\x10\x00\x02\xcd",
    b"\x02\x00C\x00\x00\x00\x10\x00\x3c\x00\x01\x00\x00\x00\x00\x00\x00\x00\x05\x10\x00\x02\x02\xce",
    b"\x02\x00C\x00\x00\x00\x04\x00\x3c\x00\x00\xce",
)


# Acts that are no bytes of a client but happen to it, or to its broker.
HAPPENS = (
    *("read", "read again", "stop reading", "hang up", "wait"),
    *("hold commits", "let commits go", "hold fetches", "answer fetches"),
)


class Act(NamedTuple):
    """One thing that a client does, or that happens to it; what `details` hold depends on it."""

    client: int
    channel: int
    what: str
    details: tuple[Any, ...] = ()


class Dice:
    """Random choices out of bytes: to draw each of them from hypothesis would take most of the time
    of a test. A byte of zero makes the first choice, so that failures still shrink.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def number(self, count: int) -> int:
        """One of so many numbers from 0 on."""
        size = 1 if count <= 256 else 2
        self._place += size
        return int.from_bytes(self._data[self._place - size : self._place], "big") % count


Choice = Callable[[Dice], Any]


@st.composite
def conversations(draw: st.DrawFn, *, garbage: bool) -> list[Act]:
    """Random acts behind `OPENING`; with `garbage` some clients break the protocol."""
    kind = _one_of(_NOTHING, *_OFTEN, *_SOMETIMES, _RARELY, *([_BAD] * 3 if garbage else []))
    count = draw(st.integers(0, 100))
    dice = Dice(draw(st.binary(min_size=ACT_BYTES * count, max_size=ACT_BYTES * count)))
    conversation = [*OPENING]
    for _ in range(count):
        what, details = kind(dice)
        client, channel = dice.number(CLIENTS), 1 + dice.number(CHANNELS)
        if what:
            conversation.append(Act(client, channel, what, details))
    return conversation


OPENING = (
    *(Act(0, 1, "declare", (queue, True)) for queue in QUEUES),
    *(Act(0, 1, "declare exchange", (exchange,)) for exchange in EXCHANGES),
    Act(0, 1, "bind", ("amq.topic", "durable", "a.*", 0)),
    Act(0, 1, "bind", ("amq.topic", "transient", "#", 0)),
    Act(0, 1, "bind", ("amq.headers", "auto", "", 4)),
    Act(0, 1, "bind", ("f", "durable.auto", "", 0)),
    Act(0, 1, "bind", ("d", "durable", "a.b", 0)),
    Act(0, 1, "bind", ("d", "transient", "a.b", 0)),
    Act(0, 1, "consume", ("mine", False, False, 0)),
    Act(0, 1, "read", ([],)),
    Act(1, 1, "qos", (3, False)),
    Act(1, 1, "consume", ("durable", False, False, 0)),
    Act(1, 1, "consume", ("transient", False, False, 0)),
    Act(1, 2, "consume", ("transient", False, False, 0)),
    Act(1, 2, "confirm", (False,)),
    Act(1, 1, "read", ([],)),
    Act(2, 1, "consume", ("auto", True, False, 0)),
    Act(2, 2, "consume replies"),
    Act(2, 2, "confirm", (False,)),
    Act(2, 1, "read", ([],)),
)


def _just(value: Any) -> Choice:
    return lambda dice: value


def _from(values: Sequence[Any]) -> Choice:
    return lambda dice: values[dice.number(len(values))]


def _between(first: int, last: int) -> Choice:
    return lambda dice: first + dice.number(last - first + 1)


def _one_of(*choices: Choice) -> Choice:
    return lambda dice: choices[dice.number(len(choices))](dice)


def _some_of(choice: Choice, most: int) -> Choice:
    return lambda dice: [choice(dice) for _ in range(dice.number(most + 1))]


def _act(what: str, *details: Choice) -> Choice:
    return lambda dice: (what, tuple(detail(dice) for detail in details))


_some = _between(0, 5)
_run = _between(1, 20)
_yes = _from((False, True))
_seldom = _from((False,) * 9 + (True,))
_mostly = _from((True,) * 9 + (False,))
_queue = _from([*QUEUES])
_taken_from = _from([queue for queue in QUEUES if queue != "log"])
_key = _from(KEYS)
_size = _from(BODY_SIZES)
_exchange = _from([*EXCHANGES])
_source = _from(SOURCES)
_plain = _from(({}, {}, {"delivery_mode": 2}))
_any = _from(PROPERTIES)
_publish = _act("publish", _just(""), _queue, _just(False), _plain, _just(5), _run)
_publish_any = _act("publish", _from(("", "", *SOURCES)), _key, _seldom, _any, _size, _some)
_matched = _from(({"headers": {"x": 1}}, {"headers": {"x": 2}, "delivery_mode": 2}))
_publish_headers = _act(
    "publish", _just("amq.headers"), _just(""), _just(False), _matched, _just(5), _run
)
_NOTHING = _act("")
_ack = _act("ack", _run, _seldom, _mostly)
_read = _act("read", _some_of(_between(0, 50_000), 3))
_OFTEN = [
    *(_publish, _publish, _publish, _publish, _publish),
    *(_publish_any, _publish_any, _publish_any, _publish_any),
    *(_publish_headers, _ack, _ack, _ack, _ack),
    *(_read, _read, _read, _read, _read, _read, _read, _read),
]
_SOMETIMES = [
    _act("consume", _queue, _yes, _seldom, _between(0, 2)),
    _act("read again"),
    _act("hold commits", _yes),
    _act("let commits go", _between(1, 3)),
    _act("hold fetches", _yes),
    _act("answer fetches"),
    _act("nack", _some, _yes, _yes),
    _act("reject", _some, _yes),
    _act("get", _taken_from, _yes),
    _act("declare", _queue, _mostly),
    _act("bind", _source, _queue, _key, _some),
    _act("commit"),
    _act("begin", _key, _size),
    _act("finish"),
]
_RARELY = _one_of(
    _act("qos", _between(0, 4), _yes),
    _act("cancel"),
    _act("unbind", _source, _queue, _key, _some),
    _act("bind exchange", _source, _source, _key),
    _act("declare exchange", _exchange),
    _act("delete exchange", _exchange, _yes),
    _act("delete", _queue, _seldom, _seldom),
    _act("purge", _taken_from),
    _act("confirm", _yes),
    _act("tx"),
    _act("rollback"),
    _act("recover"),
    _act("consume replies"),
    _act("reply"),
    _act("close channel"),
    _act("close"),
    _act("hang up"),
    _act("stop reading"),
    _act("wait", _from((0.5, 4.0, 31.0))),
)
_BAD = _one_of(
    _act("garbage", _from(GARBAGE)),
    _act("bad header", _from(BAD_HEADERS), _key),
    _act("strange frames", _key, _between(0, 4)),
)


def handshake(heartbeat_s: int = 0) -> bytes:
    """All that a client says until its channels are open."""
    opening = [
        Connection.StartOk(
            client_properties={"capabilities": {"consumer_cancel_notify": True}},
            mechanism="PLAIN",
            response="\x00guest\x00guest",
        ),
        Connection.TuneOk(2047, FRAME_BYTES_MAX, heartbeat_s),
        Connection.Open(virtual_host="/"),
    ]
    return (
        PROTOCOL_HEADER
        + b"".join(encode_method(0, method) for method in opening)
        + b"".join(encode_method(channel, Channel.Open()) for channel in range(1, CHANNELS + 1))
    )


class Encoder:
    """One client: makes bytes of its acts, and listens.

    Attributes:
        outstanding: delivery tags that are not settled, by channel.
        closed: the broker has closed the connection.
    """

    def __init__(self) -> None:
        self.closed = False
        self.outstanding: dict[int, list[int]] = {}
        self._hearing = Hearing()
        self._tags: dict[int, list[str]] = {}
        self._shut_channels: set[int] = set()
        self._unfinished: dict[int, bytes] = {}
        self._reply_to = ""
        self._published = 0

    def hear(self, data: bytes) -> None:
        """The broker has said something."""
        for told in self._hearing.hear(data):
            method, channel = told.method, told.channel
            if isinstance(method, Connection.Close):
                self.closed = True
            elif isinstance(method, Channel.Close):
                self._forget(channel)
                self._shut_channels.add(channel)
            elif isinstance(method, Basic.Deliver | Basic.GetOk):
                self.outstanding.setdefault(channel, []).append(method.delivery_tag)
                self._reply_to = told.properties.reply_to or self._reply_to

    def _forget(self, channel: int) -> None:
        self.outstanding.pop(channel, None)
        self._tags.pop(channel, None)
        self._unfinished.pop(channel, None)

    def encode(self, act: Act) -> bytes:
        """What the client sends."""
        data = b""
        if act.channel in self._shut_channels:
            self._shut_channels.discard(act.channel)
            data = encode_method(act.channel, Channel.CloseOk())
            data += encode_method(act.channel, Channel.Open())
        made = getattr(self, "_" + act.what.replace(" ", "_"))(act.channel, *act.details)
        return data + (encode_method(act.channel, made) if isinstance(made, Method) else made)

    def _publish(
        self,
        channel: int,
        exchange: str,
        key: str,
        mandatory: bool,
        properties: dict[str, Any],
        size: int,
        times: int,
    ) -> bytes:
        data = b""
        for _ in range(times):
            self._published += 1
            data += publish_bytes(
                (b"%d " % self._published * size)[:size],
                channel,
                exchange=exchange,
                routing_key=key,
                mandatory=mandatory,
                frame_bytes_max=FRAME_BYTES_MAX,
                **properties,
            )
        return data

    def _ack(self, channel: int, count: int, multiple: bool, in_order: bool) -> bytes:
        tags = self.outstanding.get(channel, [])
        chosen = tags[:count] if in_order or multiple else tags[::-1][:count]
        self.outstanding[channel] = [tag for tag in tags if tag not in chosen]
        return b"".join(
            encode_method(channel, Basic.Ack(delivery_tag=tag, multiple=multiple))
            for tag in (chosen[-1:] if multiple else chosen)
        )

    def _one(self, channel: int, place: int) -> int:
        tags = self.outstanding.get(channel, [])
        return tags.pop(place % len(tags)) if tags else 0

    def _nack(self, channel: int, place: int, multiple: bool, requeue: bool) -> bytes | Method:
        tag = self._one(channel, place)
        return Basic.Nack(tag, multiple, requeue) if tag or multiple else b""

    def _reject(self, channel: int, place: int, requeue: bool) -> bytes | Method:
        tag = self._one(channel, place)
        return Basic.Reject(tag, requeue) if tag else b""

    def _recover(self, channel: int) -> Method:
        self.outstanding.pop(channel, None)
        return Basic.Recover(requeue=True)

    def _consume(
        self, channel: int, queue: str, no_ack: bool, exclusive: bool, priority: int
    ) -> Method | bytes:
        tags = self._tags.setdefault(channel, [])
        tags.append(f"c{self._published}-{len(tags)}")
        self._published += 1
        if queue == "log":
            return self._read_log(channel, tags[-1], priority)
        arguments = {"x-priority": priority} if priority else {}
        return Basic.Consume(
            queue=queue,
            consumer_tag=tags[-1],
            no_ack=no_ack,
            exclusive=exclusive,
            arguments=arguments,
        )

    def _read_log(self, channel: int, tag: str, place: int) -> bytes:
        """Consumes from a stream, which needs a prefetch count and acknowledgements."""
        arguments = {"x-stream-offset": ("first", 2, "next")[place]}
        if place:
            arguments["x-stream-automatic-offset-tracking"] = True
        consume = Basic.Consume(queue="log", consumer_tag=tag, arguments=arguments)
        prefetch = encode_method(channel, Basic.Qos(prefetch_count=3))
        return prefetch + encode_method(channel, consume)

    def _cancel(self, channel: int) -> Method:
        tags = self._tags.get(channel) or [""]
        return Basic.Cancel(consumer_tag=tags.pop(0))

    def _get(self, channel: int, queue: str, no_ack: bool) -> Method:
        return Basic.Get(queue=queue, no_ack=no_ack)

    def _qos(self, channel: int, count: int, everywhere: bool) -> Method:
        return Basic.Qos(prefetch_count=count, global_=everywhere)

    def _declare(self, channel: int, queue: str, as_usual: bool) -> Method:
        return Queue.Declare(queue=queue, **(QUEUES[queue] if as_usual else {"durable": True}))

    def _delete(self, channel: int, queue: str, if_unused: bool, if_empty: bool) -> Method:
        return Queue.Delete(queue=queue, if_unused=if_unused, if_empty=if_empty)

    def _purge(self, channel: int, queue: str) -> Method:
        return Queue.Purge(queue=queue)

    def _bind(self, channel: int, exchange: str, queue: str, key: str, x: int) -> Method:
        arguments = {"x": x % 3} if x > 2 else {}
        return Queue.Bind(queue=queue, exchange=exchange, routing_key=key, arguments=arguments)

    def _unbind(self, channel: int, exchange: str, queue: str, key: str, x: int) -> Method:
        arguments = {"x": x % 3} if x > 2 else {}
        return Queue.Unbind(queue=queue, exchange=exchange, routing_key=key, arguments=arguments)

    def _bind_exchange(self, channel: int, source: str, destination: str, key: str) -> Method:
        return Exchange.Bind(source=source, destination=destination, routing_key=key)

    def _declare_exchange(self, channel: int, exchange: str) -> Method:
        return Exchange.Declare(exchange=exchange, **EXCHANGES[exchange])

    def _delete_exchange(self, channel: int, exchange: str, if_unused: bool) -> Method:
        return Exchange.Delete(exchange=exchange, if_unused=if_unused)

    def _confirm(self, channel: int, nowait: bool) -> Method:
        return Confirm.Select(nowait=nowait)

    def _tx(self, channel: int) -> Method:
        return Tx.Select()

    def _commit(self, channel: int) -> Method:
        return Tx.Commit()

    def _rollback(self, channel: int) -> Method:
        return Tx.Rollback()

    def _consume_replies(self, channel: int) -> Method:
        return Basic.Consume(queue="amq.rabbitmq.reply-to", no_ack=True, consumer_tag="replies")

    def _reply(self, channel: int) -> bytes:
        return publish_bytes(b"reply", channel, routing_key=self._reply_to)

    def _begin(self, channel: int, key: str, size: int) -> bytes:
        """A publish whose body comes later, or another frame instead of it."""
        data = publish_bytes(
            b"." * size, channel, routing_key=key, frame_bytes_max=FRAME_BYTES_MAX, delivery_mode=2
        )
        cut = len(data) - size % 8184 - 8 if size else len(data)
        self._unfinished[channel] = data[cut:]
        return data[:cut]

    def _finish(self, channel: int) -> bytes:
        return self._unfinished.pop(channel, b"")

    def _close_channel(self, channel: int) -> bytes:
        self._forget(channel)
        close = Channel.Close(reply_code=200, reply_text="", class_id=0, method_id=0)
        return encode_method(channel, close) + encode_method(channel, Channel.Open())

    def _close(self, channel: int) -> bytes:
        self.closed = True
        close = Connection.Close(reply_code=200, reply_text="", class_id=0, method_id=0)
        return encode_method(0, close)

    def _garbage(self, channel: int, data: bytes) -> bytes:
        return data.replace(b"\x00C", channel.to_bytes(2, "big"), 1)

    def _bad_header(self, channel: int, header: bytes, key: str) -> bytes:
        method = Basic.Publish(exchange="", routing_key=key)
        header = header.replace(b"\x00C", channel.to_bytes(2, "big"), 1)
        return encode_method(channel, method) + header + encode_body(channel, b"12345")

    def _strange_frames(self, channel: int, key: str, which: int) -> bytes:
        """Content that RabbitMQ takes although no client sends it so, or that runs over."""
        method = encode_method(channel, Basic.Publish(exchange="", routing_key=key))
        content = content_bytes(b"12345", channel)
        header, empty = content[:-13], encode_body(channel, b"")
        in_pieces = encode_body(channel, b"12") + empty + encode_body(channel, b"345")
        bodies = (
            empty + in_pieces,
            encode_body(channel, b"123456"),
            content,
            in_pieces + empty,
            encode_body(channel, b"12345")[:-1] + b"\xcd",
        )
        return method + header + bodies[which]

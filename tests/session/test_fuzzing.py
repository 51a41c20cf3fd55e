"""Whatever bytes a client sends: nothing raises, nothing is an internal error, nothing grows.

After each attack another client still gets its messages.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_clients import CHANNELS, HAPPENS, Act, Encoder, conversations, handshake
from watching import no_internal_error

from amqpd.config import Config
from amqpd.config.settings import Limits, Message
from amqpd.testing.client import Client, content_bytes, publish_bytes
from amqpd.testing.harness import Harness, Link
from amqpd.wire.frames import frame
from amqpd.wire.methods import BY_INDEX, Basic, Channel, Exchange, Queue, encode_method

CONFIG = Config(message=Message(size_bytes_max=50_000), limits=Limits(envelopes_max=8))
READ_BYTES = 65_536

# What a client may make its session hold besides messages: the largest frame, one read, and change.
INPUT_BYTES_MAX = 131_072 + READ_BYTES


# Methods that end with a table.
STRANGE = (
    Queue.Declare(queue="q"),
    Exchange.Declare(exchange="e", exchange_type="headers"),
    Queue.Bind(queue="healthy", exchange="amq.headers", routing_key="k"),
    Queue.Unbind(queue="healthy", exchange="amq.headers", routing_key="k"),
    Basic.Consume(queue="healthy", consumer_tag="c"),
)


def attack(data: bytes, *, hotpath: bool = True, within: bytes | None = None) -> None:
    """Sends bytes, in a session that is open, and looks whether the broker is well afterwards."""
    harness = Harness(CONFIG, hotpath=hotpath)
    healthy = Client(harness)
    healthy.ask(Queue.Declare(queue="healthy"))
    link = harness.connect()
    with no_internal_error():
        link.send(handshake() if within is None else within)
        for start in range(0, len(data), READ_BYTES):
            link.send(data[start : start + READ_BYTES])
            assert_bounded(link)
        healthy.ask(Queue.Declare(queue="well"))
        healthy.publish(b"well", routing_key="well")
        assert healthy.ask(Basic.Get(queue="well", no_ack=True)).body == b"well"
        link.receive()
        harness.wait(60)
        link.close()
    assert link.session not in harness.core.sessions


def assert_bounded(link: Link) -> None:
    session = link.session
    kept = sum(len(part) for part in session._input._rest)
    assert kept <= INPUT_BYTES_MAX
    assert len(session.routes.by_frame) <= CONFIG.limits.envelopes_max
    assert len(session.plain_headers) <= 256
    for channel in session.channels.values():
        if channel.assembly is not None:
            parts = sum(len(part) for part in channel.assembly._parts)
            assert parts <= CONFIG.message.size_bytes_max


def lengths() -> st.SearchStrategy[bytes]:
    """Four bytes that say how long something is, mostly wrongly."""
    likely = st.sampled_from((0, 1, 5, 255, 65_536, 0x7FFFFFFF, 0xFFFFFFFF))
    return (likely | st.integers(0, 40)).map(lambda number: number.to_bytes(4, "big"))


def fitting() -> st.SearchStrategy[bytes]:
    """Values of fixed size that have it, with extreme ones among them."""
    sizes = {1: b"tbB", 2: b"su", 4: b"Iif", 5: b"D", 8: b"lLdT"}
    chosen = st.sampled_from([(size, letter) for size in sizes for letter in sizes[size]])

    def of(size_and_letter: tuple[int, int]) -> st.SearchStrategy[bytes]:
        size, letter = size_and_letter
        extremes = st.sampled_from((b"\x00", b"\x7f", b"\x80", b"\xff")).map(lambda b: b * size)
        exact = extremes | st.binary(min_size=size, max_size=size)
        return exact.map(lambda value: bytes((letter,)) + value)

    return chosen.flatmap(of)


def values(depth: int = 3) -> st.SearchStrategy[bytes]:
    """Field values with their type letter, good and bad."""
    small = st.binary(max_size=9)
    kinds = st.sampled_from([bytes((letter,)) for letter in b"tbBsuIilLfdDTVSAFxzZ\x00\xff"])
    plain = st.builds(lambda kind, value: kind + value, kinds, small) | fitting()
    text = st.builds(
        lambda kind, value: kind + len(value).to_bytes(4, "big") + value,
        st.sampled_from((b"S", b"x")),
        small,
    )
    wrong = st.builds(lambda kind, size: kind + size, kinds, lengths())
    if depth == 0:
        return plain | text | wrong
    return plain | text | wrong | tables(depth - 1).map(lambda table: b"F" + table)


NAMES = (
    *(b"x", b"x-match", b"CC", b"BCC", b"x-priority", b"\xff", b"alternate-exchange", b""),
    *(b"x-max-length", b"x-queue-type", b"x-overflow", b"x-dead-letter-exchange", b"x-max-age"),
    *(b"x-dead-letter-routing-key", b"x-expires", b"x-single-active-consumer", b"x-max-priority"),
)


def tables(depth: int = 3) -> st.SearchStrategy[bytes]:
    """Field tables with their length, good and bad."""
    name = st.sampled_from(NAMES)
    entry = st.builds(lambda name, value: bytes((len(name),)) + name + value, name, values(depth))
    whole = st.lists(entry, max_size=4).map(
        lambda entries: len(b"".join(entries)).to_bytes(4, "big") + b"".join(entries)
    )
    return whole | st.builds(lambda size, body: size + body, lengths(), st.binary(max_size=12))


@settings(max_examples=settings.default.max_examples)
@given(st.binary(max_size=400), st.booleans())
def test_random_bytes_instead_of_a_protocol_header_do_no_harm(data: bytes, header: bool) -> None:
    attack(data, within=b"AMQP\x00\x00\x09\x01" if header else b"")


@settings(max_examples=settings.default.max_examples)
@given(st.binary(max_size=400), st.booleans())
def test_random_bytes_in_an_open_session_do_no_harm(data: bytes, hotpath: bool) -> None:
    attack(data, hotpath=hotpath)


@settings(max_examples=2 * settings.default.max_examples)
@given(
    st.lists(
        st.tuples(
            st.sampled_from((1, 1, 1, 2, 3, 8, 0, 5, 255)),
            st.sampled_from((0, 1, 2, 7, 65_535)),
            st.binary(max_size=60),
        ),
        max_size=8,
    ),
    st.booleans(),
)
def test_frames_of_random_payloads_do_no_harm(
    frames: list[tuple[int, int, bytes]], hotpath: bool
) -> None:
    attack(b"".join(frame(*each) for each in frames), hotpath=hotpath)


@settings(max_examples=4 * settings.default.max_examples)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(BY_INDEX)), st.binary(max_size=30)), min_size=1, max_size=5
    ),
    st.integers(0, CHANNELS + 1),
    st.booleans(),
)
def test_methods_with_random_arguments_do_no_harm(
    methods: list[tuple[int, bytes]], channel: int, hotpath: bool
) -> None:
    data = b"".join(
        frame(1, channel, index.to_bytes(4, "big") + arguments) for index, arguments in methods
    )
    attack(data, hotpath=hotpath)


@settings(max_examples=2 * settings.default.max_examples)
@given(
    st.sampled_from(STRANGE),
    tables(),
)
def test_methods_with_strange_tables_do_no_harm(method: object, table: bytes) -> None:
    payload = method.index.to_bytes(4, "big") + method.marshal()  # type: ignore[attr-defined]
    attack(frame(1, 1, payload[:-4] + table))


@settings(max_examples=2 * settings.default.max_examples)
@given(
    st.sampled_from(("", "amq.headers", "amq.fanout")),
    st.integers(0, 0xFFFF),
    tables(),
    st.binary(max_size=40),
    st.booleans(),
)
def test_strange_content_headers_do_no_harm(
    exchange: str, flags: int, table: bytes, rest: bytes, hotpath: bool
) -> None:
    publish = encode_method(1, Basic.Publish(exchange=exchange, routing_key="healthy"))
    for flag, properties in ((flags, rest), (0x2000, table), (0x3000, table + b"\x02")):
        head = b"\x00\x3c\x00\x00" + (2).to_bytes(8, "big") + flag.to_bytes(2, "big")
        attack(publish + frame(2, 1, head + properties) + frame(3, 1, b"ab"), hotpath=hotpath)


@given(
    st.sampled_from(("expiration", "user_id", "reply_to")),
    st.text("+-0123456789 eE_.\u00b2", max_size=9) | st.text(max_size=9),
    st.booleans(),
)
def test_strange_texts_in_properties_do_no_harm(name: str, text: str, hotpath: bool) -> None:
    attack(publish_bytes(b"12345", routing_key="healthy", **{name: text}), hotpath=hotpath)


@settings(max_examples=2 * settings.default.max_examples)
@given(st.sampled_from(("", "amq.headers")), st.lists(fitting(), max_size=4), st.booleans())
def test_extreme_values_in_headers_do_no_harm(
    exchange: str, found: list[bytes], hotpath: bool
) -> None:
    entries = b"\x02CCA\x00\x00\x00\x00" + b"".join(
        b"\x01" + b"abcd"[place : place + 1] + value for place, value in enumerate(found)
    )
    table = len(entries).to_bytes(4, "big") + entries
    publish = encode_method(1, Basic.Publish(exchange=exchange, routing_key="healthy"))
    head = b"\x00\x3c\x00\x00" + (2).to_bytes(8, "big") + b"\x20\x00"
    attack(publish + frame(2, 1, head + table) + frame(3, 1, b"ab"), hotpath=hotpath)
    for method in STRANGE:
        payload = method.index.to_bytes(4, "big") + method.marshal()
        attack(frame(1, 1, payload[:-4] + table), hotpath=hotpath)


@settings(max_examples=settings.default.max_examples)
@given(st.binary(max_size=60), st.sampled_from(("PLAIN", "AMQPLAIN", "EXTERNAL")), tables())
def test_strange_logins_do_no_harm(response: bytes, mechanism: str, table: bytes) -> None:
    header = b"AMQP\x00\x00\x09\x01"
    name = bytes((len(mechanism),)) + mechanism.encode()
    for said in (response, table[4:]):
        arguments = b"\x00\x00\x00\x00" + name + len(said).to_bytes(4, "big") + said + b"\x00"
        attack(frame(1, 0, b"\x00\x0a\x00\x0b" + arguments), within=header)
        arguments = table + name + len(said).to_bytes(4, "big") + said + b"\x00"
        attack(frame(1, 0, b"\x00\x0a\x00\x0b" + arguments), within=header)


@settings(max_examples=settings.default.max_examples)
@given(
    conversations(garbage=False),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=4),
    st.booleans(),
)
def test_conversations_with_bytes_changed_do_no_harm(
    conversation: list[Act], changes: list[tuple[int, int]], hotpath: bool
) -> None:
    encoder = Encoder()
    said = [
        encoder.encode(act)
        for act in conversation
        if act.what not in HAPPENS and "ack" not in act.what
    ]
    data = bytearray(b"".join(said))
    for place, value in changes:
        data[place % len(data)] = value
    attack(bytes(data), hotpath=hotpath)


@pytest.mark.parametrize("name", ["x-match", "alternate-exchange", "x-dead-letter-exchange"])
@pytest.mark.parametrize("again", [False, True])
def test_text_in_an_argument_that_is_not_utf_8_does_no_harm(name: str, again: bool) -> None:
    entry = bytes((len(name),)) + name.encode() + b"S\x00\x00\x00\x01\x80"
    table = len(entry).to_bytes(4, "big") + entry
    for method in STRANGE:
        payload = method.index.to_bytes(4, "big") + method.marshal()
        attack(frame(1, 1, payload[:-4] + table) * (1 + again))


def test_a_frame_longer_than_frame_max_is_refused_before_it_is_kept() -> None:
    harness = Harness()
    client = Client(harness)
    client.send(b"\x03\x00\x01\x7f\xff\xff\xff" + b"." * 100_000)
    assert client.heard()[0].method.reply_code == 501
    client.send(b"." * 1_000_000)
    assert client.session._input.size == 0


def test_a_body_over_the_limit_is_not_kept_while_it_comes() -> None:
    client = Client(Harness(CONFIG))
    client.tell(Basic.Publish(routing_key="q"))
    content = content_bytes(b"." * 60_000)
    client.send(content[:-10])
    channel = client.session.channels[1]
    assert sum(map(len, channel.assembly._parts)) == 0
    client.send(content[-10:])
    assert client.heard()[0].method.reply_code == 406


@pytest.mark.parametrize("kind", [b"F", b"A"])
def test_tables_nested_without_end_are_refused(kind: bytes) -> None:
    table = b""
    for _ in range(5000):
        entry = (b"\x01a" if kind == b"F" else b"") + kind
        table = entry + len(table).to_bytes(4, "big") + table
    table = b"\x01a" + kind + len(table).to_bytes(4, "big") + table
    payload = Queue.Declare(queue="q").marshal()
    method = b"\x00\x32\x00\x0a" + payload[:-4] + len(table).to_bytes(4, "big") + table
    client = Client(Harness())
    client.send(frame(1, 1, method))
    assert client.heard()[0].method.reply_code == 501


def test_a_client_that_only_opens_and_closes_channels_leaves_nothing_behind() -> None:
    client = Client(Harness())
    close = Channel.Close(reply_code=200, reply_text="", class_id=0, method_id=0)
    again = encode_method(9, Channel.Open()) + encode_method(9, close)
    client.send(again * 100)
    assert list(client.session.channels) == [1]

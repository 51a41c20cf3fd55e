"""The counting reader finds every delivery, however the input is cut and whatever is mixed in."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpd.cli.bench.deliveries import FEW, DeliveryReader, shape_of
from amqpd.cli.bench.errors import BenchError
from amqpd.cli.bench.frames import CHANNEL, STAMPED
from amqpd.wire import methods
from amqpd.wire.constants import HEARTBEAT
from amqpd.wire.frames import body_frames
from amqpd.wire.methods import Basic, Connection

BLOCKED = methods.encode_method(0, Connection.Blocked("memory"))


def delivery(
    tag: int,
    size: int = 100,
    *,
    stamp: int | None = None,
    consumer_tag: str = "bench-1",
    redelivered: bool = False,
    delivery_mode: int | None = None,
    frame_bytes_max: int = 131072,
) -> bytes:
    method = Basic.Deliver(consumer_tag, tag, redelivered, "", "queue")
    properties = Basic.Properties(delivery_mode=delivery_mode)
    body = b"\x00" * size if stamp is None else (stamp | STAMPED).to_bytes(8, "big").ljust(size)
    return (
        methods.encode_method(CHANNEL, method)
        + methods.encode_header(CHANNEL, size, properties)
        + b"".join(body_frames(CHANNEL, body, frame_bytes_max))
    )


class Fed:
    """A reader, what it has been told, and how often it completed something."""

    def __init__(self) -> None:
        self.methods: list[str] = []
        self.reader = DeliveryReader(
            lambda payload: self.methods.append(methods.decode_method(payload).name)
        )
        self.counted = 0

    def feed(self, data: bytes) -> int:
        self.reader.room()[: len(data)] = data
        count = self.reader.received(len(data))
        self.counted += count
        return count


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[bytes], list[int], int]:
    """Pieces of input, the stamps in it, and the number of deliveries."""
    pieces: list[bytes] = []
    stamps: list[int] = []
    tag = 0
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["run", "run", "odd", "blocked", "heartbeat"]))
        if kind == "blocked":
            pieces.append(BLOCKED)
        elif kind == "heartbeat":
            pieces.append(HEARTBEAT)
        else:
            count = draw(st.integers(1, 3 * FEW)) if kind == "run" else 1
            size = 20 if kind == "run" else draw(st.integers(0, 60))
            mode = draw(st.sampled_from([None, 2]))
            frame_max = draw(st.sampled_from([131072, 30]))
            for _ in range(count):
                tag += 1
                stamp = tag * 1000 if size >= 22 or draw(st.booleans()) else None
                if size < 8 or frame_max == 30:
                    stamp = None
                if stamp:
                    stamps.append(stamp)
                pieces.append(
                    delivery(tag, size, stamp=stamp, delivery_mode=mode, frame_bytes_max=frame_max)
                )
    return pieces, stamps, tag


@pytest.mark.slow
@given(conversations(), st.data())
def test_every_delivery_and_stamp_is_found_however_the_input_is_cut(
    conversation: tuple[list[bytes], list[int], int], data: st.DataObject
) -> None:
    """A hundred conversations of up to several hundred deliveries each."""
    pieces, stamps, count = conversation
    whole = b"".join(pieces)
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=12))
    fed = Fed()
    for start, end in pairwise(sorted([0, *cuts, len(whole)])):
        fed.feed(whole[start:end])
    assert fed.counted == fed.reader.last_tag == count
    assert fed.reader.stamps == stamps
    assert fed.methods == ["Connection.Blocked"] * pieces.count(BLOCKED)


def test_a_delivery_is_counted_with_its_last_byte_and_not_before() -> None:
    whole = delivery(1) + delivery(2)
    fed = Fed()
    counts = [fed.feed(whole[at : at + 1]) for at in range(len(whole))]
    assert [at for at, count in enumerate(counts) if count] == [len(whole) // 2 - 1, len(whole) - 1]


@pytest.mark.parametrize("count", [1, 2, FEW, FEW + 1, 1000])
def test_a_run_of_equal_deliveries_is_counted_in_one_read(count: int) -> None:
    fed = Fed()
    assert fed.feed(delivery(1)) == 1
    assert fed.feed(b"".join(delivery(tag) for tag in range(2, count + 2))) == count


@pytest.mark.parametrize("odd", [0, 1, FEW, 99])
def test_one_delivery_of_another_size_within_a_run_is_counted_once(odd: int) -> None:
    sizes = [100] * 100
    sizes[odd] = 300
    fed = Fed()
    fed.feed(delivery(1))
    run = b"".join(delivery(tag, size) for tag, size in enumerate(sizes, 2))
    assert fed.feed(run) == 100


def test_redelivered_and_fresh_deliveries_are_counted_alike() -> None:
    fed = Fed()
    run = b"".join(delivery(tag, redelivered=tag % 3 == 0) for tag in range(1, 50))
    assert fed.feed(run) == 49


def test_a_body_that_looks_like_frames_changes_nothing() -> None:
    body = delivery(77, 20) * 3
    raw = (
        methods.encode_method(CHANNEL, Basic.Deliver("bench-1", 1, False, "", "queue"))
        + methods.encode_header(CHANNEL, len(body), Basic.Properties())
        + b"".join(body_frames(CHANNEL, body, 131072))
    )
    fed = Fed()
    assert fed.feed(delivery_with_tag(raw, 1)) == 1
    assert fed.feed(delivery_with_tag(raw, 2) + delivery_with_tag(raw, 3)) == 2


def delivery_with_tag(raw: bytes, tag: int) -> bytes:
    shape = shape_of(raw)
    assert shape is not None
    return raw[: shape.tag] + tag.to_bytes(8, "big") + raw[shape.tag + 8 :]


def test_large_bodies_are_passed_over_without_being_kept() -> None:
    whole = delivery(1, 3_000_000, stamp=5) + delivery(2, 3_000_000)
    fed = Fed()
    counts = [fed.feed(whole[at : at + 200_000]) for at in range(0, len(whole), 200_000)]
    assert sum(counts) == 2
    assert fed.reader.stamps == [5]


def test_a_missing_delivery_tag_is_an_error() -> None:
    fed = Fed()
    fed.feed(delivery(1) + delivery(2))
    with pytest.raises(BenchError, match="delivery tag 4 where 3 was due"):
        fed.feed(delivery(4))


def test_a_gap_within_a_run_of_equal_deliveries_is_an_error() -> None:
    fed = Fed()
    fed.feed(delivery(1))
    run = b"".join(delivery(tag) for tag in (2, 3, 5, 6))
    with pytest.raises(BenchError, match="delivery tag 6 where 5 was due"):
        fed.feed(run)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda raw: raw[:-1] + b"\x00", "without its end octet"),
        (lambda raw: raw + raw[-108:], "more body than the header announced"),
        (lambda raw: b"\x01\x00\x01\xff\xff\xff\xff" + raw, "4294967295 bytes"),
    ],
)
def test_bytes_that_are_not_amqp_are_an_error(damage: object, text: str) -> None:
    with pytest.raises(BenchError, match=text):
        Fed().feed(damage(delivery(1)))  # type: ignore[operator]


def test_deliveries_in_several_body_frames_or_very_large_ones_have_no_shape() -> None:
    assert shape_of(delivery(1, 100, frame_bytes_max=50)) is None
    assert shape_of(delivery(1, 100_000)) is None
    assert shape_of(delivery(1, 100)) is not None

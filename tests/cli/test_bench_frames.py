"""Prepared publishes and acks are what the codec would have made one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpd.cli.bench.frames import (
    ACK_BYTES,
    ACKS_PER_BLOCK,
    CHANNEL,
    STAMP_BYTES,
    WRITE_BYTES,
    AckRun,
    PublishRun,
    multiple_ack,
)
from amqpd.wire import frames, methods
from amqpd.wire.constants import FRAME_BODY, FRAME_HEADER, FRAME_METHOD
from amqpd.wire.methods import Basic


def cut_all(data: bytes) -> list[frames.Frame]:
    found = []
    position = 0
    while position < len(data):
        frame = frames.cut(data, position, 0)
        assert frame is not None
        found.append(frame)
        position = frame.end
    return found


def test_a_run_is_one_publish_behind_the_other_and_fits_into_one_write() -> None:
    run = PublishRun("e", ["key"], 100, 131072, persistent=True, mandatory=True)
    assert WRITE_BYTES - run.offsets[1] < len(run.buffer) <= WRITE_BYTES
    assert run.offsets[-1] == len(run.buffer)
    assert len(run.offsets) == run.messages + 1
    method, header, body, *_ = cut_all(bytes(run.buffer))
    publish = methods.decode_method(method.payload)
    assert isinstance(publish, Basic.Publish)
    assert (publish.exchange, publish.routing_key, publish.mandatory) == ("e", "key", True)
    assert methods.decode_properties(header.payload).delivery_mode == 2
    assert len(body.payload) == 100


def test_routing_keys_take_turns_within_a_run() -> None:
    run = PublishRun("", ["a", "long-key"], 10, 131072)
    published = [
        methods.decode_method(frame.payload).routing_key
        for frame in cut_all(bytes(run.buffer))
        if frame.type == FRAME_METHOD
    ]
    assert published == ["a", "long-key"] * (run.messages // 2)


def test_a_body_larger_than_a_write_is_one_message_in_frames_of_the_negotiated_size() -> None:
    run = PublishRun("", ["k"], 10_000, 4096, write_bytes=8192)
    sizes = [len(frame.payload) for frame in cut_all(bytes(run.buffer)) if frame.type == FRAME_BODY]
    assert run.messages == 1
    assert sizes == [4088, 4088, 1824]


@pytest.mark.parametrize("size", [STAMP_BYTES, 100, 10_000])
def test_a_stamp_has_its_place_at_the_start_of_the_body(size: int) -> None:
    run = PublishRun("", ["k"], size, 4096)
    for stamp in run.stamps:
        run.buffer[stamp : stamp + STAMP_BYTES] = b"01234567"
    bodies = [frame for frame in cut_all(bytes(run.buffer)) if frame.type != FRAME_METHOD]
    firsts = [bodies[i + 1] for i, frame in enumerate(bodies) if frame.type == FRAME_HEADER]
    assert len(firsts) == run.messages
    assert all(frame.payload.startswith(b"01234567") for frame in firsts)


@pytest.mark.parametrize("size", [0, STAMP_BYTES - 1])
def test_a_body_too_short_for_a_stamp_gets_none(size: int) -> None:
    run = PublishRun("", ["k"], size, 4096)
    assert set(run.stamps) == {-1}


def single_ack(tag: int) -> bytes:
    return methods.encode_method(CHANNEL, Basic.Ack(delivery_tag=tag))


@given(
    first=st.one_of(
        st.integers(1, 3 * ACKS_PER_BLOCK),
        st.sampled_from([2**16, 2**24, 2**32, 2**40, 2**48, 2**56]).map(lambda tag: tag - 5),
    ),
    count=st.integers(1, 40),
)
def test_acks_of_any_run_of_tags_are_those_of_the_codec(first: int, count: int) -> None:
    last = first + count - 1
    expected = b"".join(map(single_ack, range(first, last + 1)))
    assert AckRun().frames(first, last) == expected


def test_acks_go_on_across_blocks_and_back() -> None:
    acks = AckRun()
    run = acks.frames(1, 2 * ACKS_PER_BLOCK + 3)
    assert len(run) == ACK_BYTES * (2 * ACKS_PER_BLOCK + 3)
    for tag in (1, 255, 256, ACKS_PER_BLOCK - 1, ACKS_PER_BLOCK, 2 * ACKS_PER_BLOCK + 3):
        assert run[(tag - 1) * ACK_BYTES : tag * ACK_BYTES] == single_ack(tag)
    assert acks.frames(7, 7) == single_ack(7)


def test_a_multiple_ack_says_so() -> None:
    frame = frames.cut(multiple_ack(500), 0, 0)
    assert frame is not None
    ack = methods.decode_method(frame.payload)
    assert isinstance(ack, Basic.Ack)
    assert (ack.delivery_tag, ack.multiple) == (500, True)

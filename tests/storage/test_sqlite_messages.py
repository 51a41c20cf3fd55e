"""Messages in the file: every byte comes back, and what is gone is gone."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from storing import (
    EVERYTHING,
    batch,
    changed,
    filled,
    message,
    messages,
    opened,
    plain,
    plainly,
    queue_added,
    read_all,
    rows,
    without,
)

from amqpd.broker.fetch import Fetch
from amqpd.broker.journal import Standing
from amqpd.broker.message import Envelope, Message
from amqpd.broker.operations import QueueRemoved, VhostAdded
from amqpd.storage.rows import RUN_MESSAGES_MAX, row_id
from amqpd.storage.sqlite import SqliteStore
from amqpd.wire.content import LARGE_BODY_BYTES, LargeBody, body_piece

ALL_PROPERTIES: dict[str, Any] = {
    "content_type": "text/plain",
    "content_encoding": "gzip",
    "headers": {"x": 1, "deep": {"list": [1, "b", {"c": True}], "none": None}, "": ""},
    "priority": 9,
    "correlation_id": "7" * 255,
    "reply_to": "é\N{SNOWMAN}",
    "expiration": "60000",
    "message_id": "m\0m",
    "message_type": "t",
    "user_id": "guest",
    "app_id": "a\n'\"",
}
KEYS = (
    "",
    "a.b",
    "nul\0in\0it",
    "line\nbreak\r\n",
    "'; \"--`",
    "é" * 127,
    "\U0001fae8" * 63,
    "x" * 255,
)
BODIES = (
    b"",
    b"\0",
    b"\0\0\0\0",
    bytes(range(256)),
    b"\xff\xfe\x80 not UTF-8 \xc3(",
    b"\xce" * 5000,
    bytes(70_000),
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """A store with the queues `q1` and `q2`, both empty."""
    store = opened(tmp_path)
    store.commit(batch(VhostAdded("/"), queue_added(1), queue_added(2)))
    yield store
    store.close()


def add(store: SqliteStore, found: dict[int, Message], **others: Any) -> dict[int, Message]:
    """Adds messages to `q1`, and maybe to others."""
    count = len(found)
    store.commit(batch(q1=changed(Standing(max(found) + 1, 0, count), added=found), **others))
    return found


def numbered(found: list[Message], first: int = 1) -> dict[int, Message]:
    return dict(enumerate(found, first))


def tidied(store: SqliteStore) -> None:
    while store.tidy(idle=True):
        pass


def count(store: SqliteStore, table: str) -> int:
    return int(rows(store, f"SELECT count(*) FROM {table}")[0][0])


def damage(store: SqliteStore, statement: str, *values: Any) -> None:
    """Changes the file behind the store's back."""
    other = sqlite3.connect(store.file)
    with other:
        changed = other.execute(statement, values).rowcount
    other.close()
    assert changed > 0


# --- every byte -----------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 3, 4, 100])
@pytest.mark.parametrize("body", BODIES, ids=[f"{len(body)} bytes" for body in BODIES])
def test_every_body_comes_back_once_or_in_a_run(
    store: SqliteStore, body: bytes, times: int
) -> None:
    written = add(store, numbered([message(body)] * times))
    assert read_all(store) == plainly(written)


def test_messages_of_all_sizes_come_back_side_by_side(store: SqliteStore) -> None:
    written = add(store, numbered([message(body) for body in BODIES] * 3))
    assert read_all(store) == plainly(written)


@pytest.mark.parametrize("times", [1, 10])
@pytest.mark.parametrize("key", KEYS, ids=[ascii(key[:12]) for key in KEYS])
def test_every_address_comes_back(store: SqliteStore, key: str, times: int) -> None:
    envelope = Envelope(key[::-1], key)
    written = add(store, numbered([message(b"x", envelope)] * times))
    assert read_all(store) == plainly(written)


def test_all_properties_come_back(store: SqliteStore) -> None:
    some = [{name: value} for name, value in ALL_PROPERTIES.items()]
    properties = [*some, {}, ALL_PROPERTIES, {"headers": {"big": "x" * 70_000}}]
    written = add(store, numbered([message(b"12345", **each) for each in properties]))
    assert read_all(store) == plainly(written)


def test_large_bodies_and_views_come_back_in_one_piece(store: SqliteStore) -> None:
    size = LARGE_BODY_BYTES
    parts: list[bytes | memoryview] = [memoryview(b"\0ab" * size)[: size - 7], b"1234567"]
    large = body_piece(parts, size)
    assert isinstance(large, LargeBody)
    envelope, header, _, _ = message(bytes(size))
    frame = memoryview(b"frame\0\0\0\x05\0\xff\0\xfe\0\xcebehind it")[5:15]
    small = message(b"12345")[1]
    views: list[Any] = [(envelope, small, frame, True)] * 5
    written = add(store, numbered([(envelope, header, large, True), *views]))
    found = read_all(store)
    assert found == plainly(written)
    assert found[1][3] == b"".join(parts)
    assert found[2][3] == b"\0\xff\0\xfe\0"


def test_runs_of_equal_and_of_different_headers_and_numbers_with_gaps_come_back(
    store: SqliteStore,
) -> None:
    found: list[Message] = []
    for run in range(1, 12):
        one = message(b"%05d" % run, priority=run % 5)
        found += [one] * run
        found += [message(b"%d" % each, priority=each % 3) for each in range(run)]
    numbers = [each for each in range(1, 3 * len(found)) if each % 7 and each % 50 < 30]
    written = add(store, dict(zip(numbers, found, strict=False)))
    assert read_all(store) == plainly(written)
    for limit in (1, 3, 10):
        assert read_all(store, messages_max=limit) == plainly(written)


def test_a_run_that_is_longer_than_one_statement_takes_comes_back(store: SqliteStore) -> None:
    written = add(store, messages(2 * RUN_MESSAGES_MAX + 10, size=5))
    assert read_all(store) == plainly(written)


def test_what_a_message_weighs_limits_a_fetch_and_one_comes_in_any_case(store: SqliteStore) -> None:
    sizes = [10, 10, 50_000, 10, 10, 10, 50_000, 50_000, 10]
    add(store, numbered([message(bytes(size)) for size in sizes]))
    fetched = []
    first = 0
    while first < EVERYTHING:
        answer = store.fetch(Fetch(1, first, EVERYTHING, 100, 20_000))
        fetched.append(len(answer.numbers))
        first = answer.read_below
    assert sum(fetched) == len(sizes)
    assert max(fetched) <= 3


# --- large bodies that several queues have --------------------------------------------------------


@pytest.fixture
def shared(store: SqliteStore) -> dict[int, Message]:
    """Messages of which all large ones are in `q1` and in `q2`."""
    found = numbered([message(bytes([each]) * 5000) for each in range(5)])
    found |= messages(50, first=6)
    also = {number + 10: found[number] for number in range(1, 8)}
    return add(store, found, q2=changed(Standing(20, 0, 7), added=also))


def test_a_large_body_that_several_queues_have_is_stored_once(
    store: SqliteStore, shared: dict[int, Message]
) -> None:
    assert read_all(store) == plainly(shared)
    assert read_all(store, 2) == {number + 10: plain(shared[number]) for number in range(1, 8)}
    assert count(store, "bodies") == 5
    assert count(store, "stored WHERE body_id IS NOT NULL AND body IS NULL") == 10


def test_a_shared_body_goes_when_the_last_queue_has_settled_it(
    store: SqliteStore, shared: dict[int, Message]
) -> None:
    store.commit(batch(q1=changed(settled=[1, 2, 3, 5])))
    assert count(store, "bodies") == 5
    assert read_all(store) == plainly(without(shared, [1, 2, 3, 5]))
    store.commit(batch(q2=changed(settled=[11, 12, 14])))
    assert count(store, "bodies") == 3
    store.commit(batch(q1=changed(settled=[4]), q2=changed(settled=[13, 15])))
    assert count(store, "bodies") == 0


@pytest.mark.parametrize("how", ["purged", "removed"])
def test_a_shared_body_goes_when_the_last_queue_is_swept(
    store: SqliteStore, shared: dict[int, Message], how: str
) -> None:
    if how == "purged":
        store.commit(batch(q1=changed(dropped=[(1, 100)])))
    else:
        store.commit(batch(QueueRemoved(1)))
    tidied(store)
    assert count(store, "bodies") == 5
    assert len(read_all(store, 2)) == 7
    store.commit(batch(QueueRemoved(2)))
    tidied(store)
    assert count(store, "bodies") == count(store, "stored") == count(store, "gone") == 0


def test_a_shared_body_of_a_later_run_has_a_number_of_its_own(
    store: SqliteStore, shared: dict[int, Message], tmp_path: Path
) -> None:
    store.close()
    store = opened(tmp_path)
    more = message(b"y" * 5000)
    store.commit(batch(q1=changed(added={100: more}), q2=changed(added={100: more})))
    assert read_all(store) == plainly(shared | {100: more})
    assert count(store, "bodies") == 6
    store.close()


def test_small_bodies_and_large_ones_of_one_queue_alone_are_stored_with_their_messages(
    store: SqliteStore,
) -> None:
    both = messages(30, size=4000)
    store.commit(batch(q1=changed(added=both), q2=changed(added=messages(30, size=5000) | both)))
    assert count(store, "bodies") == 0


# --- damaged ones ---------------------------------------------------------------------------------

CHANGES = {
    "body": "UPDATE stored SET body = x'ff' || substr(body, 2) WHERE id = ?",
    "longer body": "UPDATE stored SET body = body || x'ce' WHERE id = ?",
    "no body": "UPDATE stored SET body = NULL WHERE id = ?",
    "number for a body": "UPDATE stored SET body = 5 WHERE id = ?",
    "another body": "UPDATE stored SET body = NULL, body_id = 77 WHERE id = ?",
    "routing key": "UPDATE stored SET routing_key = 'other' WHERE id = ?",
    "no text": "UPDATE stored SET routing_key = CAST(x'ff' AS TEXT) WHERE id = ?",
    "number for a key": "UPDATE stored SET routing_key = x'01' WHERE id = ?",
    "header": "UPDATE stored SET header = header || x'00' WHERE id = ?",
    "empty header": "UPDATE stored SET header = x'' WHERE id = ?",
    "number for a header": "UPDATE stored SET header = 17 WHERE id = ?",
    "checksum": "UPDATE stored SET checksum = zeroblob(8) WHERE id = ?",
    "short checksum": "UPDATE stored SET checksum = x'01' WHERE id = ?",
    "number for a checksum": "UPDATE stored SET checksum = 17.5 WHERE id = ?",
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("size", [0, 20, 5000])
def test_one_damaged_message_is_reported_and_the_others_are_read(
    store: SqliteStore, what: str, size: int
) -> None:
    written = add(store, messages(20, size=size))
    damage(store, CHANGES[what], row_id(1, 7))
    answer = store.fetch(Fetch(1, 0, 100, 1000, 1_000_000))
    found = dict(zip(answer.numbers, map(plain, answer.messages), strict=True))
    assert answer.read_below == 100
    if size == 0 and what in ("body", "no body", "another body"):
        assert found == plainly(written)  # its header says that there is none
        return
    assert answer.damaged == [7]
    assert found == plainly(without(written, [7]))


@pytest.mark.parametrize("size", ["'text'", "-5", "17.5", "9223372036854775807", "x'00'"])
def test_a_damaged_size_does_no_harm(store: SqliteStore, size: str) -> None:
    written = add(store, messages(20))
    damage(store, f"UPDATE stored SET size = {size}")
    for limit in (1, 7, 1000):
        assert read_all(store, messages_max=limit) == plainly(written)


def test_a_damaged_message_is_set_aside_and_what_is_left_of_it_can_be_seen(
    store: SqliteStore,
) -> None:
    add(store, messages(3))
    both = message(b"z" * 5000)
    store.commit(batch(q1=changed(added={4: both}), q2=changed(added={1: both})))
    damage(store, "UPDATE stored SET checksum = zeroblob(8) WHERE id IN (?, ?)", *_ids(1, 2, 4))
    store.commit(batch(q1=changed(Standing(5, 0, 2), damaged=[2, 4])))
    assert sorted(read_all(store)) == [1, 3]
    left = rows(store, "SELECT id, exchange, routing_key, length(body) FROM damaged ORDER BY id")
    assert left == [(row_id(1, 2), "", "q", 15), (row_id(1, 4), "", "q", 5005)]
    assert read_all(store, 2) == {1: plain(both)}


def _ids(queue_id: int, *numbers: int) -> list[int]:
    return [row_id(queue_id, number) for number in numbers]


# --- what is gone as a whole ----------------------------------------------------------------------


def test_what_is_gone_cannot_be_seen_before_it_is_swept(store: SqliteStore) -> None:
    written = add(store, messages(100))
    spilled = messages(20, first=101, mode=1)
    store.commit(batch(q1=changed(Standing(121, 0, 100), spilled=spilled)))
    store.commit(batch(q1=changed(dropped=[(10, 20), (30, 30), (90, 95)], unspilled_below=111)))
    assert count(store, "stored") == 100
    left = without(written | spilled, [*range(10, 21), 30, *range(90, 96), *range(101, 111)])
    assert read_all(store) == plainly(left)
    assert read_all(store, messages_max=3) == plainly(left)
    tidied(store)
    assert read_all(store) == plainly(left)
    assert count(store, "stored") == 100 - 18


def test_the_number_of_a_removed_queue_can_be_used_again_before_it_is_swept(
    store: SqliteStore,
) -> None:
    add(store, messages(2 * RUN_MESSAGES_MAX, size=1))
    store.commit(batch(QueueRemoved(1)))
    assert read_all(store) == {}
    again = messages(5)
    store.commit(batch(queue_added(1), q1=changed(added=again)))
    assert read_all(store) == plainly(again)
    tidied(store)
    assert read_all(store) == plainly(again)


def test_what_an_earlier_run_did_not_sweep_is_swept_and_its_number_is_not_used(
    store: SqliteStore, tmp_path: Path
) -> None:
    add(store, messages(10))
    store.commit(batch(QueueRemoved(2), QueueRemoved(1)))
    store.close()
    store = opened(tmp_path)
    assert store.recover().last_queue_id == 2
    assert read_all(store) == {}
    tidied(store)
    assert count(store, "stored") == count(store, "gone") == 0
    assert store.recover().last_queue_id == 0
    store.close()


def test_one_step_of_sweeping_is_bounded(store: SqliteStore) -> None:
    add(store, messages(RUN_MESSAGES_MAX + 10, size=1))
    store.commit(batch(q1=changed(dropped=[(1, 10_000)])))
    assert store.tidy(idle=False)
    assert count(store, "stored") == 10
    assert store.tidy(idle=False)
    assert count(store, "stored") == 0
    while store.tidy(idle=False):
        pass
    assert not store.tidy(idle=False)


# --- delivered before, and times ------------------------------------------------------------------


def test_how_often_a_message_came_back_is_counted(store: SqliteStore) -> None:
    written = filled(store, 10, queue_id=3)
    store.commit(batch(q3=changed(returned=[2, 3])))
    store.commit(batch(q3=changed(returned=[3, 9])))
    query = "SELECT number, delivery_count FROM messages WHERE delivery_count ORDER BY number"
    assert rows(store, query) == [(2, 1), (3, 2), (9, 1)]
    assert read_all(store, 3) == plainly(written)


def test_the_view_shows_bodies_and_times(store: SqliteStore) -> None:
    add(store, numbered([message(b"\0\xff"), message(b"")]))
    assert rows(store, "SELECT queue, number, size, body, enqueued_at FROM messages") == [
        ("q1", 1, 2, b"\0\xff", "2023-11-14 22:13:20.000"),
        ("q1", 2, 0, b"", "2023-11-14 22:13:20.000"),
    ]

"""What keeps the file in shape, and what a batch and a fetch cost."""

import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest
from storing import (
    SMALL,
    batch,
    changed,
    filled,
    messages,
    opened,
    plainly,
    queue_added,
    read_all,
    rows,
    without,
)

from amqpd.broker.fetch import Fetch
from amqpd.broker.journal import Standing
from amqpd.broker.operations import QueueRemoved, VhostAdded
from amqpd.storage.sqlite import SqliteStore
from amqpd.storage.wal import wal_of

MESSAGES = 1000
LARGE = 10
CALLS_PER_MESSAGE_MAX = 0.05


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = opened(tmp_path)
    yield store
    store.close()


def tidied(store: SqliteStore, *, idle: bool = True) -> None:
    while store.tidy(idle=idle):
        pass


def file_bytes(store: SqliteStore) -> int:
    return store.file.stat().st_size


def frames(store: SqliteStore, schema: str = "main") -> int:
    """How many frames the WAL has since it last began anew; copies as many as it can."""
    return int(rows(store, f"PRAGMA {schema}.wal_checkpoint(PASSIVE)")[0][1])


# --- space ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["settled", "purged", "removed"])
def test_the_file_gives_back_the_room_of_what_is_gone(store: SqliteStore, how: str) -> None:
    filled(store, 200, size=10_000)
    kept = filled(store, 10, queue_id=2)
    tidied(store)
    full = file_bytes(store)
    assert full > 2_000_000
    gone = {
        "settled": batch(q1=changed(settled=list(range(1, 201)))),
        "purged": batch(q1=changed(dropped=[(1, 200)])),
        "removed": batch(QueueRemoved(1)),
    }
    store.commit(gone[how])
    tidied(store)
    assert file_bytes(store) < SMALL.free_bytes_min + 100_000
    assert read_all(store, 2) == plainly(kept)


def test_the_file_does_not_shrink_while_batches_come(store: SqliteStore) -> None:
    filled(store, 200, size=10_000)
    tidied(store)
    full = file_bytes(store)
    store.commit(batch(QueueRemoved(1)))
    tidied(store, idle=False)
    assert rows(store, "SELECT count(*) FROM stored") == [(0,)]
    assert file_bytes(store) == full


def test_some_free_room_stays_in_the_file(store: SqliteStore) -> None:
    filled(store, 200, size=10_000)
    store.commit(batch(QueueRemoved(1)))
    tidied(store)
    assert file_bytes(store) >= SMALL.free_bytes_min
    assert rows(store, "PRAGMA freelist_count") == [(SMALL.free_bytes_min // 4096,)]


def test_a_file_that_cannot_shrink_is_left_as_it_is(tmp_path: Path) -> None:
    store = opened(tmp_path)
    written = filled(store, 200, size=10_000)
    store.close()
    rebuilt = sqlite3.connect(store.file)
    rebuilt.execute("PRAGMA journal_mode = DELETE")
    rebuilt.execute("PRAGMA auto_vacuum = NONE")
    rebuilt.execute("VACUUM")
    rebuilt.close()
    store = opened(tmp_path)
    store.commit(batch(q1=changed(settled=list(range(1, 191)))))
    for _ in range(10):
        if not store.tidy(idle=True):
            break
    assert not store.tidy(idle=True)
    assert read_all(store) == plainly(without(written, range(1, 191)))
    store.close()


def test_spilled_messages_that_are_gone_leave_the_scratch_file(store: SqliteStore) -> None:
    store.commit(batch(q1=changed(None, spilled=messages(500, size=1000, mode=1))))
    store.commit(batch(q1=changed(None, unspilled_below=501)))
    tidied(store)
    assert rows(store, "SELECT count(*) FROM scratch.stored") == [(0,)]
    assert rows(store, "SELECT count(*) FROM scratch.gone") == [(0,)]


# --- checkpoints ----------------------------------------------------------------------------------


def test_a_wal_that_has_grown_is_copied_and_begins_anew(store: SqliteStore) -> None:
    assert not store.needs_checkpoint
    filled(store, 20, size=10_000)
    assert store.needs_checkpoint
    before = frames_of(store)
    store.copy()
    assert not store.needs_checkpoint
    assert store.tidy(idle=False)  # the rest
    store.commit(batch(q1=changed(Standing(21, 1, 20))))
    assert 0 < frames_of(store) < before // 10


def frames_of(store: SqliteStore) -> int:
    """How many frames the WAL has, as its index says."""
    index = os.open(store.file.with_name("amqpd.db-shm"), os.O_RDONLY)
    try:
        return int.from_bytes(os.pread(index, 4, 16), sys.byteorder)
    finally:
        os.close(index)


def test_a_wal_of_many_batches_does_not_grow_without_end(store: SqliteStore) -> None:
    filled(store, 1)
    largest = 0
    for number in range(2, 200):
        store.commit(batch(q1=changed(added=messages(2, first=2 * number, size=4000))))
        if store.needs_checkpoint:
            store.copy()
        tidied(store, idle=False)
        largest = max(largest, wal_of(store.file).stat().st_size)
    assert largest < 2 * SMALL.wal_bytes_high


def test_a_wal_that_has_grown_is_copied_by_the_writer_when_nothing_else_is_to_be_done(
    store: SqliteStore,
) -> None:
    filled(store, 20, size=10_000)
    assert not store.tidy(idle=False) or not store.tidy(idle=False)
    assert store.needs_checkpoint
    tidied(store)
    assert not store.needs_checkpoint


def test_what_is_spilled_is_copied_too(store: SqliteStore) -> None:
    written = messages(20, size=10_000, mode=1)
    store.commit(batch(q1=changed(None, spilled=written)))
    assert store.needs_checkpoint
    store.copy()
    assert not store.needs_checkpoint
    assert read_all(store) == plainly(written)


def test_a_checkpoint_does_not_wait_for_a_reader(store: SqliteStore) -> None:
    filled(store, 20, size=10_000)
    reader = sqlite3.connect(store.file)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM stored").fetchone() == (20,)
    more = messages(20, first=21, size=10_000)
    store.commit(batch(q1=changed(Standing(41, 0, 40), added=more)))
    store.copy()
    assert store.tidy(idle=False)
    assert reader.execute("SELECT count(*) FROM stored").fetchone() == (20,)
    assert store.needs_checkpoint  # what the reader must not see yet
    assert not store.tidy(idle=True), "there is nothing that could be done meanwhile"
    reader.close()
    store.copy()
    assert not store.needs_checkpoint
    assert len(read_all(store)) == 40


def test_the_wal_has_its_size_beforehand(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert wal_of(store.file).stat().st_size == SMALL.wal_bytes_high
    filled(store, 3)
    assert wal_of(store.file).stat().st_size == SMALL.wal_bytes_high
    store.close()


# --- what must not be lost when the power fails ---------------------------------------------------

NORMAL, FULL = 1, 2


def synchronous(store: SqliteStore, schema: str = "main") -> int:
    return int(rows(store, f"PRAGMA {schema}.synchronous")[0][0])


@pytest.mark.parametrize(
    ("sync", "promised", "other"), [("full", 2, 1), ("normal", 1, 1), ("off", 0, 0)]
)
def test_only_what_is_promised_waits_for_the_disk(
    tmp_path: Path, sync: str, promised: int, other: int
) -> None:
    store = opened(tmp_path, sync)
    for number, is_promised in enumerate((True, False, False, True), 1):
        added = {f"q{number}": changed(added=messages(2), spilled=messages(2, 9, mode=1))}
        store.commit(batch(queue_added(number), promised=is_promised, **added))
        assert synchronous(store) == (promised if is_promised else other)
        assert synchronous(store, "scratch") == 0
    store.close()


def test_sweeping_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    store = opened(tmp_path, "full")
    filled(store, 10)
    store.commit(batch(QueueRemoved(1)))
    assert synchronous(store) == FULL
    store.tidy(idle=False)
    assert synchronous(store) == NORMAL
    store.close()


# --- costs ----------------------------------------------------------------------------------------


class Calls(NamedTuple):
    """How many Python functions were entered, and how many SQL statements were run."""

    functions: int
    statements: int


def calls_of(action: Callable[[], Any]) -> Calls:
    """What is called while the action runs."""
    functions = statements = 0

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal functions, statements
        functions += event == "call"
        statements += event == "c_call" and argument.__name__ == "execute"

    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(None)
    return Calls(functions, statements)


# Messages in runs cost next to nothing. Those that several queues share are in none, and what is
# spilled has a transaction of its own.
MORE_CALLS = {"add large": 15 * 2 * LARGE, "spill": 20}


def assert_cheap(calls: Calls, act: str = "") -> None:
    limit = MESSAGES * CALLS_PER_MESSAGE_MAX + MORE_CALLS.get(act, 0)
    assert calls.functions <= limit, f"{calls.functions} calls for {MESSAGES} messages"


def acts(count: int) -> dict[str, Any]:
    """Batches in which so many messages are affected, in their order."""
    numbers = list(range(1, count + 1))
    some = numbers[::2]
    large = messages(LARGE, 5000, size=6000)
    return {
        "declare": batch(VhostAdded("/"), queue_added(1), queue_added(2)),
        "add": batch(q1=changed(Standing(count + 1, 0, count), added=messages(count))),
        "add large": batch(
            q1=changed(added=large),
            q2=changed(added=large | messages(count, 9000)),
        ),
        "spill": batch(q1=changed(spilled=messages(count, 10_000, mode=1))),
        "give back": batch(q1=changed(returned=some)),
        "settle some": batch(q1=changed(settled=some)),
        "set aside": batch(q1=changed(damaged=numbers[1::4])),
        "purge": batch(q1=changed(dropped=[(1, count)])),
        "settle all": batch(q2=changed(settled=list(range(9000, 9000 + count)))),
    }


def statements_of_acts(directory: Path, count: int) -> dict[str, int]:
    directory.mkdir()
    store = opened(directory)
    done = {name: calls_of(partial(store.commit, each)) for name, each in acts(count).items()}
    store.close()
    return {name: calls.statements for name, calls in done.items()}


def test_the_statements_of_a_batch_do_not_grow_with_its_messages(tmp_path: Path) -> None:
    few = statements_of_acts(tmp_path / "few", MESSAGES // 2)
    many = statements_of_acts(tmp_path / "many", MESSAGES)
    assert many == few
    assert max(many.values()) <= 30


@pytest.mark.parametrize("act", [*acts(MESSAGES)])
def test_a_message_of_a_batch_costs_no_call(store: SqliteStore, act: str) -> None:
    for name, each in acts(MESSAGES).items():
        calls = calls_of(partial(store.commit, each))
        if name == act:
            assert_cheap(calls, act)


def steps_of(store: SqliteStore, action: Callable[[], Any]) -> int:
    """About how many thousands of instructions SQLite runs to read."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    store._reader._connection.set_progress_handler(step, 1000)
    action()
    store._reader._connection.set_progress_handler(None, 1000)
    return steps


def test_what_a_fetch_costs_does_not_grow_with_what_stands_behind_it(store: SqliteStore) -> None:
    filled(store, 200, queue_id=1, size=1000)
    filled(store, 8000, queue_id=2, size=1000)
    few = steps_of(store, lambda: store.fetch(Fetch(1, 0, 100_000, 8192, 100_000)))
    many = steps_of(store, lambda: store.fetch(Fetch(2, 0, 100_000, 8192, 100_000)))
    assert 0 < many < 2 * few


def test_a_message_that_is_read_back_costs_no_call(store: SqliteStore) -> None:
    filled(store, MESSAGES)
    store.commit(batch(q1=changed(spilled=messages(MESSAGES, 5000, mode=1), dropped=[(1, 10)])))
    for first in (0, 5000):
        fetch = Fetch(1, first, first + 4000, 2 * MESSAGES, 10_000_000)
        answer: list[Any] = []
        assert_cheap(calls_of(lambda fetch=fetch, a=answer: a.append(store.fetch(fetch))))
        assert len(answer[0].numbers) >= MESSAGES - 10

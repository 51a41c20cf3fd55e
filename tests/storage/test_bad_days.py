"""Files that cannot be used, disks without room, and stops in good order and in none."""

import gc
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from storing import (
    SMALL,
    batch,
    changed,
    filled,
    message,
    messages,
    opened,
    plainly,
    queue_added,
    read_all,
    rows,
)

from amqpd.broker.journal import Standing
from amqpd.broker.operations import QueueRemoved, VhostAdded
from amqpd.storage.database import WAL_BYTES_KEPT
from amqpd.storage.errors import StorageError, StoreFull
from amqpd.storage.schema import APPLICATION_ID, VERSION
from amqpd.storage.sqlite import SqliteStore
from amqpd.storage.upkeep import preallocate_wal
from amqpd.storage.wal import wal_of


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """A store with the queue `q1`."""
    store = opened(tmp_path)
    store.commit(batch(VhostAdded("/"), queue_added(1)))
    yield store
    store.close()


def changed_by_hand(directory: Path, script: str) -> None:
    connection = sqlite3.connect(directory / "amqpd.db")
    connection.executescript(script)
    connection.close()


def refusal(directory: Path) -> str:
    """What is told of a file that cannot be opened, and that nothing of it stays open."""
    before = open_files()
    with pytest.raises(StorageError) as refused, ExitStack() as stack:
        store = None
        store = opened(directory)
        stack.callback(store.close, in_order=False)
        store.recover()
    text = str(refused.value)
    del refused, store  # a statement that has failed lives as long as its error
    gc.collect()
    assert open_files() == before
    assert str(directory / "amqpd.db") in text
    return text


def open_files() -> list[str]:
    """Where the files are that this process has open, beside those of pytest."""
    found = []
    for number in os.listdir("/dev/fd"):
        with suppress(OSError):  # the one that lists them
            found.append(os.readlink(f"/dev/fd/{number}"))
    return sorted(path for path in found if "amqpd" in path)


def crash_image(store: SqliteStore, directory: Path) -> Path:
    """The files of an open store, as a crash of its process would leave them."""
    for file in store.file.parent.glob("amqpd*"):
        shutil.copy(file, directory)
    return directory


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Another directory."""
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    return directory


# --- files that cannot be used --------------------------------------------------------------------


def test_a_file_of_a_newer_version_is_refused_with_both_versions(tmp_path: Path) -> None:
    opened(tmp_path).close()
    changed_by_hand(tmp_path, "PRAGMA user_version = 4711")
    text = refusal(tmp_path)
    assert f"newer amqpd (schema 4711, this one knows {VERSION}); install that version" in text


@pytest.mark.parametrize("content", [b"hello\n", b"hello\n" * 5000, bytes(100_000)])
def test_a_file_of_something_else_is_refused_and_left_as_it_is(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "amqpd.db").write_bytes(content)
    assert "file is not a database" in refusal(tmp_path)
    assert (tmp_path / "amqpd.db").read_bytes() == content


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE notes (text TEXT)",
        "CREATE TABLE notes (text TEXT); PRAGMA application_id = 7",
        "PRAGMA application_id = 7",
    ],
)
def test_a_file_of_another_application_is_refused_and_left_as_it_is(
    tmp_path: Path, script: str
) -> None:
    changed_by_hand(tmp_path, script)
    before = (tmp_path / "amqpd.db").read_bytes()
    assert "is not a file of amqpd; move it away" in refusal(tmp_path)
    assert (tmp_path / "amqpd.db").read_bytes() == before


def test_a_directory_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "amqpd.db").mkdir()
    assert "cannot be used: Is a directory" in refusal(tmp_path)


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_a_directory_in_place_of_a_file_beside_it_is_refused(tmp_path: Path, suffix: str) -> None:
    opened(tmp_path).close()
    (tmp_path / f"amqpd.db{suffix}").mkdir()
    assert "cannot be" in refusal(tmp_path)


def test_a_directory_in_place_of_the_scratch_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "amqpd-scratch.db").mkdir()
    assert "cannot be" in refusal(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("what", [".", "amqpd.db"])
def test_what_may_not_be_written_is_refused_with_the_way_out(tmp_path: Path, what: str) -> None:
    opened(tmp_path).close()
    (tmp_path / what).chmod(0o500)
    try:
        assert "allow it to this user, or give another directory: --data-dir" in refusal(tmp_path)
    finally:
        (tmp_path / what).chmod(0o700)


def test_a_first_start_that_was_cut_short_is_gone_on_with(tmp_path: Path) -> None:
    """What sqlite-utils makes before it applies the first version is committed by itself."""
    changed_by_hand(
        tmp_path,
        f"PRAGMA auto_vacuum = INCREMENTAL; PRAGMA application_id = {APPLICATION_ID};"
        "PRAGMA journal_mode = WAL; CREATE TABLE _sqlite_migrations (id INTEGER PRIMARY KEY,"
        " migration_set TEXT, name TEXT, applied_at TEXT);",
    )
    store = opened(tmp_path)
    written = filled(store, 10)
    assert read_all(store) == plainly(written)
    assert rows(store, "PRAGMA user_version") == [(VERSION,)]
    store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE queues SET name = 'other'",
        "UPDATE queues SET name = 5",
        "UPDATE queues SET name = CAST(x'ff' AS TEXT)",
        "UPDATE queues SET arguments = 'text'",
        "UPDATE queues SET auto_delete = 'yes'",
        "UPDATE queues SET checksum = 'none'",
        "UPDATE standings SET messages = messages + 1",
        "UPDATE standings SET next_number = 'many'",
        "UPDATE standings SET queue_id = 2",
        "UPDATE vhosts SET name = 'v'",
        "UPDATE gone SET last = last - 1",
        "UPDATE gone SET last = 'text'",
        "DROP TABLE bindings",
        "DROP TABLE gone",
        "ALTER TABLE queues DROP COLUMN checksum",
    ],
)
def test_a_topology_that_is_not_as_it_was_written_is_refused_with_what_to_do(
    store: SqliteStore, tmp_path: Path, statement: str
) -> None:
    filled(store, 5, queue_id=7)
    store.commit(batch(QueueRemoved(1)))
    store.close()
    changed_by_hand(tmp_path, f"PRAGMA legacy_alter_table = ON; {statement}")
    assert "amqpd store check" in refusal(tmp_path)


# --- no room --------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", ["main", "scratch"])
def test_where_there_is_no_room_nothing_is_written_and_the_same_can_be_tried_again(
    store: SqliteStore, schema: str
) -> None:
    before = messages(10)
    store.commit(batch(q1=changed(Standing(11, 0, 10), added=before)))
    added = messages(100, first=11, size=1000)
    spilled = messages(100, first=111, size=1000, mode=1)
    both = message(b"y" * 5000)
    full = batch(
        *(queue_added(2), QueueRemoved(3)),
        q1=changed(Standing(211, 0, 109), added=added, spilled=spilled, settled=[1], returned=[2]),
        q2=changed(Standing(3, 0, 2), added={1: both, 2: message(b"z")}),
        q4=changed(None, spilled=messages(5, size=1000, mode=1)),
    )
    (pages,) = rows(store, f"PRAGMA {schema}.page_count")[0]
    rows(store, f"PRAGMA {schema}.max_page_count = {pages + 3}")
    for _ in range(3):
        with pytest.raises(StoreFull, match="no room to write"):
            store.commit(full)
        assert not store._writing.in_transaction
        assert rows(store, "SELECT number FROM messages") == [(each,) for each in before]
        assert rows(store, "SELECT name FROM queues") == [("q1",)]
    rows(store, f"PRAGMA {schema}.max_page_count = 1000000")
    assert store.commit(full) == full.ticket
    left = plainly(before | added | spilled)
    del left[1]
    assert read_all(store) == left
    assert len(read_all(store, 2)) == 2
    assert len(read_all(store, 4)) == 5
    query = "SELECT number, delivery_count FROM messages WHERE delivery_count"
    assert rows(store, query) == [(2, 1)]


def test_messages_can_be_settled_where_there_is_no_room(store: SqliteStore) -> None:
    filled(store, 100, queue_id=2, size=1000)
    (pages,) = rows(store, "PRAGMA page_count")[0]
    rows(store, f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreFull):
        store.commit(batch(q2=changed(added=messages(10, first=101, size=1000))))
    store.commit(batch(q2=changed(Standing(101, 0, 1), settled=list(range(1, 100)))))
    assert sorted(read_all(store, 2)) == [100]
    store.commit(batch(q2=changed(added=messages(10, first=101, size=1000))))


def test_to_recover_what_is_there_needs_no_room(store: SqliteStore, tmp_path: Path) -> None:
    filled(store, 10, queue_id=2)
    before = {file.name: file.read_bytes() for file in tmp_path.glob("*-wal")}
    assert len(before) == 2
    store.recover()
    assert {file.name: file.read_bytes() for file in tmp_path.glob("*-wal")} == before


def test_a_wal_gets_as_much_of_its_size_as_there_is_room_for(tmp_path: Path) -> None:
    file = tmp_path / "amqpd.db"
    wal_of(file).symlink_to("/dev/full")
    preallocate_wal(file, 1_000_000)


# --- stops ----------------------------------------------------------------------------------------


def test_after_a_stop_there_is_one_file_and_it_is_for_this_user_alone(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        store = opened(tmp_path)
        filled(store, 100)
        store.commit(batch(q5=changed(None, spilled=messages(5, mode=1))))
        found = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
        store.close()
    finally:
        os.umask(umask)
    suffixes = ("", "-shm", "-wal")
    names = [f"{name}.db{suffix}" for name in ("amqpd", "amqpd-scratch") for suffix in suffixes]
    assert found == dict.fromkeys(names, 0o600)
    assert [file.name for file in tmp_path.iterdir()] == ["amqpd.db"]
    assert open_files() == []


def test_a_store_may_be_closed_twice(store: SqliteStore) -> None:
    store.close()
    before = open_files()
    store.close()
    store.close(in_order=False)
    assert open_files() == before


def test_a_stop_in_good_order_is_noticed_and_another_too(
    store: SqliteStore, tmp_path: Path, elsewhere: Path
) -> None:
    assert store.was_stopped  # it is new
    written = filled(store, 10, queue_id=2)
    crashed = opened(crash_image(store, elsewhere))
    assert not crashed.was_stopped
    assert crashed.wal_damage == ""
    assert read_all(crashed, 2) == plainly(written)
    crashed.close()
    store.close()
    for in_order in (True, False, True, True):
        store = opened(tmp_path)
        was_stopped = store.was_stopped
        store.close(in_order=in_order)
        again = opened(tmp_path)
        assert (again.was_stopped, again.wal_damage) == (in_order, "")
        again.close()
    assert was_stopped


@pytest.mark.parametrize("size", [0, 10, 31, 32, 1000, SMALL.wal_bytes_high - 1])
def test_a_wal_that_has_been_cut_is_noticed(store: SqliteStore, elsewhere: Path, size: int) -> None:
    written = filled(store, 10, queue_id=2)
    crash_image(store, elsewhere)
    os.truncate(elsewhere / "amqpd.db-wal", size)
    crashed = opened(elsewhere)
    assert not crashed.was_stopped
    assert ("has been cut" if size else "there is no") in crashed.wal_damage
    assert str(elsewhere / "amqpd.db-wal") in crashed.wal_damage
    if size > 100_000:
        assert read_all(crashed, 2) == plainly(written)
    crashed.close()
    crashed = opened(elsewhere)
    assert crashed.wal_damage == ""
    crashed.close()


def test_a_wal_that_had_grown_and_begins_anew_has_not_been_cut(
    store: SqliteStore, elsewhere: Path
) -> None:
    filled(store, 10, queue_id=2)
    crash_image(store, elsewhere)
    with (elsewhere / "amqpd.db-wal").open("ab") as wal:
        wal.truncate(WAL_BYTES_KEPT + 1_000_000)
    crashed = opened(elsewhere)
    filled(crashed, 10, queue_id=3)
    assert wal_of(crashed.file).stat().st_size == WAL_BYTES_KEPT
    again = elsewhere / "again"
    again.mkdir()
    crash_image(crashed, again)
    crashed.close()
    crashed = opened(again)
    assert crashed.wal_damage == ""
    crashed.close()


def test_a_wal_that_is_missing_is_noticed(store: SqliteStore, elsewhere: Path) -> None:
    shutil.copy(store.file, elsewhere)
    crashed = opened(elsewhere)
    assert crashed.wal_damage == (
        f"there is no {elsewhere}/amqpd.db-wal: if this is no backup, what was in it is lost"
    )
    crashed.close()


def test_what_was_spilled_before_a_crash_is_forgotten(store: SqliteStore, elsewhere: Path) -> None:
    written = filled(store, 10, queue_id=2)
    store.commit(batch(q2=changed(spilled=messages(10, first=11, mode=1))))
    crashed = opened(crash_image(store, elsewhere))
    assert read_all(crashed, 2) == plainly(written)
    assert rows(crashed, "SELECT count(*) FROM scratch.stored") == [(0,)]
    crashed.close()


def test_the_commits_of_a_crashed_store_are_all_there_however_far_the_wal_was_copied(
    store: SqliteStore, elsewhere: Path
) -> None:
    written = filled(store, 10, queue_id=2)
    for number in range(1, 40):
        more = messages(10, first=11 * number, size=3000)
        written |= more
        store.commit(batch(q2=changed(Standing(12 * number, 0, 9), added=more)))
        if number % 7 == 0:
            store.copy()
        if number % 14 == 0:
            store.tidy(idle=False)
        if number % 5:
            continue
        image = elsewhere / str(number)
        image.mkdir()
        crashed = opened(crash_image(store, image))
        assert crashed.wal_damage == ""
        assert read_all(crashed, 2) == plainly(written)
        crashed.close()


def test_a_stop_for_which_there_is_no_room_is_told_and_closes_the_file(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "amqpd.db", "off", SMALL)
    filled(store, 10)
    rows(store, "PRAGMA query_only = ON")
    with pytest.raises(StorageError, match="cannot be written"):
        store.close()
    assert open_files() == []
    store = opened(tmp_path)
    assert not store.was_stopped
    assert len(read_all(store)) == 10
    store.close()

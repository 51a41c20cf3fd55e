"""How far a WAL is whole: the same that SQLite finds when it recovers."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kept_files import Broker, declare_and_fill

from amqpd.storage.database import PAGE_BYTES
from amqpd.storage.wal import read_wal, wal_of
from amqpd.storage.wal_chain import find_damage, last_whole_frame

FRAME_BYTES = PAGE_BYTES + 24


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a broker that has crashed, with its WAL cut behind the last frame."""
    directory = tmp_path_factory.mktemp("crashed")
    with Broker(tmp_path_factory.mktemp("running") / "amqpd.db") as broker:
        declare_and_fill(broker, 20)
        for each in (broker.store.file, wal_of(broker.store.file)):
            shutil.copyfile(each, directory / each.name)
    file = directory / "amqpd.db"
    os.truncate(wal_of(file), 32 + last_whole_frame(file) * FRAME_BYTES)
    return file


def recovered_frames(file: Path) -> int:
    """How many frames SQLite takes for whole: it is asked to copy a WAL."""
    with closing(sqlite3.connect(file)) as connection:
        return int(connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1])


def copied(file: Path, directory: Path, wal: bytes) -> Path:
    """A copy of a file with another WAL."""
    copy = directory / "copy.db"
    for suffix in ("", "-wal", "-shm"):
        copy.with_name(copy.name + suffix).unlink(missing_ok=True)
    shutil.copyfile(file, copy)
    wal_of(copy).write_bytes(wal)
    return copy


@settings(max_examples=settings.default.max_examples // 2)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=2), st.floats(0, 1))
def test_a_wal_is_whole_as_far_as_sqlite_reads_it(
    crashed: Path,
    tmp_path_factory: pytest.TempPathFactory,
    flips: list[tuple[float, int]],
    size: float,
) -> None:
    wal = bytearray(wal_of(crashed).read_bytes())
    for place, change in flips:
        wal[int(place * (len(wal) - 1))] ^= change
    if not flips:
        del wal[int(size * len(wal)) :]
    copy = copied(crashed, tmp_path_factory.getbasetemp(), wal)
    whole = last_whole_frame(copy)
    commits = [number for number in read_wal(copy).commits if number <= whole]
    assert max(commits, default=0) == max(recovered_frames(copy), 0)


def test_a_wal_that_ends_in_the_middle_of_a_write_is_not_damaged(crashed: Path) -> None:
    wal = wal_of(crashed).read_bytes()
    for size in (0, 10, 32, 32 + 10, len(wal) // 2, len(wal) - 1, len(wal)):
        assert find_damage(copied(crashed, crashed.parent, wal[:size])) == ""


def test_a_file_without_a_wal_has_no_damage_in_it(tmp_path: Path) -> None:
    assert last_whole_frame(tmp_path / "amqpd.db") == 0
    assert find_damage(tmp_path / "amqpd.db") == ""


def test_commits_behind_a_changed_frame_are_counted(crashed: Path) -> None:
    wal = bytearray(wal_of(crashed).read_bytes())
    commits = read_wal(crashed).commits
    start = 32 + (commits[2] - 1) * FRAME_BYTES
    wal[start + 1000] ^= 1
    copy = copied(crashed, crashed.parent, wal)
    lost = len(commits) - 2
    assert find_damage(copy).endswith(
        f"copy.db-wal is damaged behind frame {commits[2] - 1}: {lost} commits are lost"
    )


def test_a_wal_with_a_changed_header_is_damaged_at_its_begin(crashed: Path) -> None:
    wal = bytearray(wal_of(crashed).read_bytes())
    wal[20] ^= 1
    assert "is damaged at its begin" in find_damage(copied(crashed, crashed.parent, wal))


def test_a_broker_that_writes_all_the_time_is_not_taken_for_damage(tmp_path: Path) -> None:
    with Broker(tmp_path / "amqpd.db") as broker:
        declare_and_fill(broker, 5)
        for number in range(20):
            broker.publish(b"%d" % number, "mails")
            broker.harness.commit()
            if number % 5 == 4:
                while broker.store.tidy(idle=True):
                    pass
            assert find_damage(broker.store.file) == ""

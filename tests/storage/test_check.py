"""What `amqpd store check` finds: nothing in a file as it was written, and whatever was changed."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from kept_files import (
    COUNT,
    Broker,
    alter,
    declare_and_fill,
    flip,
    kept_file,
    leaves,
    malform,
)

from amqpd.storage.check import Check
from amqpd.storage.errors import StorageError
from amqpd.storage.rows import row_checksum
from amqpd.storage.salvage import BYTES_MAX, ROWS_MAX
from amqpd.storage.schema import NUMBER_BITS
from amqpd.storage.told import TOLD_MAX
from amqpd.storage.wal import wal_of
from amqpd.wire.methods import Basic, Queue


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file of a broker that was stopped."""
    return kept_file(tmp_path)


def checked(file: Path) -> list[str]:
    """All that a check says."""
    said: list[str] = []
    check = Check(file, said.append)
    check.run()
    damaged = [text for text in said if text.startswith("damaged: ")]
    assert bool(check.damaged) == bool(damaged) == ("all is fine" not in said)
    return said


def damages(file: Path) -> list[str]:
    """What a check says is damaged."""
    return [text.removeprefix("damaged: ") for text in checked(file) if text[:7] == "damaged"]


def test_a_file_as_it_was_written_is_fine_and_its_queues_are_listed(file: Path) -> None:
    assert checked(file) == [
        "fine: it is a file of amqpd (schema 1)",
        "fine: SQLite finds all pages and indexes in order",
        "fine: the WAL is whole",
        "fine: 1 virtual host, 1 exchange, 3 queues and 2 bindings are as written",
        f"fine: {COUNT + 5} messages are as written, each in a queue",
        "fine: each queue has as many messages as it says",
        "fine: 1 shared body, none of them without a message",
        "fine: the broker has not met a damaged message",
        f"queue 'orders' in vhost '/': {COUNT + 1} messages",
        "queue 'mails' in vhost '/': 4 messages",
        "1 queue without a message",
        "all is fine",
    ]


def test_a_file_is_fine_while_its_broker_works_and_stays_as_it_is(tmp_path: Path) -> None:
    with Broker(tmp_path / "amqpd.db") as broker:
        declare_and_fill(broker)
        written = [each.read_bytes() for each in (broker.store.file, wal_of(broker.store.file))]
        assert damages(broker.store.file) == []
        assert written == [
            each.read_bytes() for each in (broker.store.file, wal_of(broker.store.file))
        ]
        broker.publish(b"after", "mails")
        assert damages(broker.store.file) == []


def test_a_purged_queue_is_fine_before_and_after_its_messages_are_swept_up(tmp_path: Path) -> None:
    with Broker(tmp_path / "amqpd.db") as broker:
        declare_and_fill(broker)
        broker.client.ask(Queue.Purge(queue="orders"))
        broker.publish(b"after", "orders")
        broker.client.ask(Queue.Delete(queue="mails"))
        said = checked(broker.store.file)
        assert "queue 'orders' in vhost '/': 1 message" in said
        assert "all is fine" in said
        while broker.store.tidy(idle=True):
            pass
        assert checked(broker.store.file)[:3] == said[:3]


def test_a_queue_that_is_declared_during_the_check_is_no_damage(tmp_path: Path) -> None:
    with Broker(tmp_path / "amqpd.db") as broker:
        declare_and_fill(broker)
        said: list[str] = []

        def say(text: str) -> None:
            if "bindings are as written" in text:
                broker.client.ask(Queue.Declare(queue="new", durable=True))
                broker.publish(b"one", "new")
                broker.harness.commit()
            said.append(text)

        Check(broker.store.file, say).run()
        assert said[-1] == "all is fine"
        assert "queue 'new' in vhost '/': 1 message" in said


def test_a_message_with_a_changed_byte_is_named(file: Path) -> None:
    flip(file, b"order 17 ...")
    assert damages(file) == ["message 17 of queue 'orders' in vhost '/' is not as written"]


def test_all_messages_of_a_changed_shared_body_are_named(file: Path) -> None:
    flip(file, b"shared shared")
    assert damages(file) == [
        f"message {COUNT + 1} of queue 'orders' in vhost '/' is not as written",
        "message 1 of queue 'mails' in vhost '/' is not as written",
    ]


def test_of_many_damaged_messages_the_first_are_named_and_the_others_counted(file: Path) -> None:
    alter(file, "UPDATE stored SET routing_key = 'x' WHERE routing_key = 'order.new'")
    said = damages(file)
    assert said[0] == "message 1 of queue 'orders' in vhost '/' is not as written"
    assert len(said) == TOLD_MAX + 1
    assert said[-1] == f"and {COUNT - TOLD_MAX} more messages"


def test_a_page_that_is_malformed_is_gone_around(file: Path) -> None:
    page = leaves(file, b"order 100 ")[0]
    malform(file, page)
    said = damages(file)
    assert any("its structure: " in text for text in said)
    (gap,) = [text for text in said if text.startswith("between message ")]
    assert gap.endswith("nothing can be read")
    assert "messages of queue 'orders' in vhost '/' cannot be counted" in "\n".join(said)


def test_a_file_that_was_cut_short_is_looked_at_as_far_as_it_goes(tmp_path: Path) -> None:
    with Broker(tmp_path / "amqpd.db") as broker:
        declare_and_fill(broker, 4 * COUNT)
    file = broker.store.file
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size * 2 // 3)
    said = damages(file)
    assert any("message " in text and "nothing can be read" in text for text in said)


@pytest.mark.parametrize("name", ["/orders", "/shoptopic", "order.#"])
def test_a_changed_byte_in_the_topology_is_found(file: Path, name: str) -> None:
    for place in range(file.read_bytes().count(name.encode())):
        copy = file.with_name(f"copy{place}.db")
        shutil.copyfile(file, copy)
        flip(copy, name.encode(), nth=place)
        assert damages(copy)


@pytest.mark.parametrize(
    ("statement", "damage"),
    [
        ("UPDATE vhosts SET name = 'v'", "row ('v',) of table vhosts is not as written"),
        ("UPDATE exchanges SET type = 'fanout'", "row ('/', 'shop', 'fanout', False, False, "),
        ("UPDATE queues SET auto_delete = 1 WHERE name = 'mails'", "row (2, '/', 'mails', True, "),
        ("UPDATE bindings SET checksum = 0 WHERE destination = 'mails'", "row ('/', 'shop', "),
        ("UPDATE standings SET next_number = 5 WHERE queue_id = 1", "row (1, 5, "),
        (
            "DELETE FROM exchanges",
            "a binding leads from exchange 'shop' to queue 'orders' in vhost",
        ),
        ("DELETE FROM vhosts", "queue 'empty' is in vhost '/': there is no such"),
        ("DELETE FROM stored WHERE id & 1023 = 9", "queue 'orders' in vhost '/' has 300 messages "),
        ("DELETE FROM standings WHERE queue_id = 2", "queue 'mails' in vhost '/' has 4 messages "),
        (
            "UPDATE stored SET size = 1 WHERE id & 1023 = 9",
            "the size of message 9 of queue 'orders",
        ),
        ("UPDATE stored SET body = NULL WHERE id & 1023 = 9", "message 9 of queue 'orders' in "),
        ("UPDATE stored SET body = 5 WHERE id & 1023 = 9", "message 9 of queue 'orders' in vhost"),
        ("UPDATE stored SET checksum = x'' WHERE id & 1023 = 9", "message 9 of queue 'orders' in"),
        ("DELETE FROM bodies", f"message {COUNT + 1} of queue 'orders' in vhost '/' is not as"),
        ("INSERT INTO bodies VALUES (9, x'')", "1 shared body of no message"),
        ("PRAGMA user_version = 0", "its schema is 0, which has never been"),
        (
            "PRAGMA application_id = 1",
            "it is not marked as a file of amqpd (application id 0x1 ins",
        ),
    ],
)
def test_whatever_was_changed_is_told(file: Path, statement: str, damage: str) -> None:
    alter(file, statement)
    assert any(text.startswith(damage) for text in damages(file)), damages(file)


def test_a_message_of_no_queue_is_told(file: Path) -> None:
    alter(file, f"UPDATE stored SET id = id + ({7 << NUMBER_BITS}) WHERE body IS NULL AND size > 0")
    said = damages(file)
    assert any("of a queue that is not there (number 8)" in text for text in said)


def test_a_queue_with_another_count_than_messages_is_told(file: Path) -> None:
    standing = (2, 5, 0, 1000, 0)
    alter(
        file, "REPLACE INTO standings VALUES (?, ?, ?, ?, ?, ?)", *standing, row_checksum(standing)
    )
    assert damages(file) == ["queue 'mails' in vhost '/' has 4 messages and says 1000"]


def test_messages_that_the_broker_has_set_aside_are_told(file: Path) -> None:
    flip(file, b"\xff\x00binary")
    with Broker(file) as broker:
        broker.client.tell(Basic.Consume(queue="mails", no_ack=True))
        assert len(broker.client.bodies()) == 3
    said = damages(file)
    assert len(said) == 1
    assert said[0].startswith("message 3 of queue 'mails' in vhost '/' was set aside by the broker")


def test_a_wal_that_is_damaged_within_is_told_and_left_as_it_is(tmp_path: Path) -> None:
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    with Broker(tmp_path / "amqpd.db") as broker:
        declare_and_fill(broker)
        for each in (broker.store.file, wal_of(broker.store.file)):
            shutil.copyfile(each, crashed / each.name)
    file = crashed / "amqpd.db"
    assert damages(file) == []
    flip(wal_of(file), b"order 5 ...")
    written = wal_of(file).read_bytes()
    said = damages(file)
    assert any("amqpd.db-wal is damaged behind frame" in text for text in said)
    assert wal_of(file).read_bytes() == written


def test_a_wal_that_is_missing_after_a_crash_is_unclear_and_one_that_was_cut_is_damage(
    tmp_path: Path,
) -> None:
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    with Broker(tmp_path / "amqpd.db") as broker:
        declare_and_fill(broker)
        broker.store.copy()
        for each in (broker.store.file, wal_of(broker.store.file)):
            shutil.copyfile(each, crashed / each.name)
    file = crashed / "amqpd.db"
    assert damages(file) == []
    os.truncate(wal_of(file), 40_000)
    assert f"{file}-wal has been cut: what was behind byte 40000 is lost" in damages(file)
    wal_of(file).unlink()
    said = checked(file)
    assert f"unclear: there is no {file}-wal: if this is no backup, what was in it is lost" in said
    assert said[-1] == "all is fine"


@pytest.mark.parametrize("data", [b"", b"no SQLite file " * 1000])
def test_a_file_that_is_no_store_is_damaged(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "amqpd.db"
    file.write_bytes(data)
    assert len(damages(file)) == 1


def test_a_file_of_a_newer_version_is_not_judged(file: Path) -> None:
    alter(file, "PRAGMA user_version = 99")
    with pytest.raises(StorageError, match="written by a newer amqpd"):
        checked(file)


def test_a_file_that_another_process_keeps_for_itself_is_not_judged(file: Path) -> None:
    alter(file, "PRAGMA journal_mode = DELETE")
    locking = sqlite3.connect(file)
    locking.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(StorageError, match="cannot be read now: database is locked"):
            Check(file, lambda text: None, patience_s=0).run()
    finally:
        locking.close()


def test_more_messages_than_are_read_at_once_are_all_looked_at(tmp_path: Path) -> None:
    with Broker(tmp_path / "amqpd.db") as broker:
        broker.client.ask(Queue.Declare(queue="q", durable=True))
        for number in range(2 * ROWS_MAX + 1):
            broker.publish(b"%d" % number, "q")
        for _ in range(3):
            broker.publish(bytes(BYTES_MAX), "q")
    count = 2 * ROWS_MAX + 4
    assert f"fine: {count:,} messages are as written, each in a queue" in checked(broker.store.file)

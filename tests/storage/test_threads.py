"""The store's threads, with a store in a file and a loop that only collects what is posted."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pytest
from storing import (
    SMALL,
    batch,
    changed,
    messages,
    opened,
    plain,
    queue_added,
    read_all,
    rows,
)

from amqpd.broker.fetch import Fetch, Fetched
from amqpd.broker.journal import Batch, Standing
from amqpd.broker.operations import QueueRemoved, VhostAdded
from amqpd.storage.errors import StorageError
from amqpd.storage.sqlite import SqliteStore
from amqpd.storage.threads import StoreThreads

PATIENCE_S = 20.0
SOON_S = 0.02


class Loop:
    """A broker's loop: what is posted to it waits to be looked at; it is its own listener."""

    def __init__(self) -> None:
        self._posted: SimpleQueue[tuple[Any, ...]] = SimpleQueue()

    def post(self, function: Callable[..., None], *arguments: Any) -> None:
        self._posted.put((function.__name__, *arguments))

    def next(self, patience_s: float = PATIENCE_S) -> tuple[Any, ...]:
        return self._posted.get(timeout=patience_s)

    def rest(self) -> list[tuple[Any, ...]]:
        """What is there already."""
        found = []
        while True:
            try:
                found.append(self._posted.get_nowait())
            except Empty:
                return found

    def committed(self, ticket: int) -> None: ...

    def fetched(self, fetch: Fetch, answer: Fetched) -> None: ...

    def full(self, on: bool) -> None: ...

    def failed(self, error: Exception) -> None: ...


class Running:
    """A store at work, in which a batch adds ten messages to `q1`."""

    def __init__(self, directory: Path) -> None:
        self.store = opened(directory)
        self.store.commit(batch(VhostAdded("/"), queue_added(1)))
        self.loop = Loop()
        self.threads = StoreThreads(
            self.store, self.loop, self.loop.post, full_pause_s=SOON_S, idle_s=SOON_S
        )

    def batch(self, ticket: int, size: int = 10) -> Batch:
        added = messages(10, first=10 * ticket, size=size)
        standing = Standing(10 * ticket + 10, 0, 10 * ticket)
        return batch(ticket=ticket, q1=changed(standing, added=added))

    def hand_over(self, *tickets: int, size: int = 10) -> None:
        for ticket in tickets:
            self.threads.hand_over(self.batch(ticket, size))

    def hand_over_in_turn(self, tickets: Iterable[int], size: int) -> None:
        """As the core does: one batch when the one before it is committed."""
        for ticket in tickets:
            self.hand_over(ticket, size=size)
            assert self.loop.next() == ("committed", ticket)

    def until_tidied(self, is_tidy: Callable[[], bool]) -> None:
        """Waits for the writer to have tidied up; nothing is told meanwhile."""
        for _ in range(int(PATIENCE_S / SOON_S)):
            if is_tidy():
                return
            with pytest.raises(Empty):
                self.loop.next(SOON_S)
        raise AssertionError("it does not tidy up")

    def look(self, query: str) -> Any:
        """The first value of an answer, through a connection of one's own."""
        looking = sqlite3.connect(self.store.file)
        found = looking.execute(query).fetchone()[0]
        looking.close()
        return found


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    yield running
    running.threads.stop()


def reopened(running: Running) -> tuple[bool, list[int]]:
    """Whether the store was stopped in good order, and the messages it then has."""
    store = opened(running.store.file.parent)
    found = store.was_stopped, sorted(read_all(store))
    store.close()
    return found


def numbers(*tickets: int) -> list[int]:
    return [10 * ticket + each for ticket in tickets for each in range(10)]


def test_batches_are_committed_in_their_order_and_each_is_told(running: Running) -> None:
    running.hand_over(*range(1, 30))
    for ticket in range(1, 30):
        assert running.loop.next() == ("committed", ticket)
    assert sorted(read_all(running.store)) == numbers(*range(1, 30))


def test_what_is_committed_can_be_fetched_while_others_are_committed(running: Running) -> None:
    for ticket in range(1, 20):
        running.hand_over(ticket)
        assert running.loop.next() == ("committed", ticket)
        fetch = Fetch(1, 10 * ticket, 10 * ticket + 10, 100, 100_000)
        running.threads.fetch(fetch)
        running.hand_over(100 + ticket)
        told = sorted((running.loop.next() for _ in range(2)), key=lambda each: str(each[0]))
        assert told[0] == ("committed", 100 + ticket)
        what, asked, answer = told[1]
        assert (what, asked) == ("fetched", fetch)
        assert answer.numbers == numbers(ticket)
        assert [plain(each) for each in answer.messages] == [
            plain(each) for each in messages(10, first=10 * ticket).values()
        ]


def test_a_stop_commits_what_was_handed_over(running: Running) -> None:
    running.hand_over(1, 2, 3, 4, 5)
    running.threads.stop()
    assert running.loop.rest() == [("committed", ticket) for ticket in range(1, 6)]
    assert reopened(running) == (True, numbers(1, 2, 3, 4, 5))


def test_a_full_disk_is_told_once_and_batches_wait_until_there_is_room(running: Running) -> None:
    pages = limit_pages(running.store)
    running.hand_over(1, 2, size=50_000)
    assert running.loop.next() == ("full", True)
    running.threads.fetch(Fetch(1, 0, 100, 100, 1000))  # reading goes on
    what, _, answer = running.loop.next()
    assert (what, answer.numbers) == ("fetched", [])
    lift_limit(running.store, pages)
    told = [running.loop.next() for _ in range(3)]
    assert told == [("full", False), ("committed", 1), ("committed", 2)]
    assert sorted(read_all(running.store)) == numbers(1, 2)


def limit_pages(store: SqliteStore) -> int:
    """The disk is full, before the first batch is handed over."""
    (pages,) = rows(store, "PRAGMA page_count")[0]
    rows(store, f"PRAGMA max_page_count = {pages}")
    return int(pages)


def lift_limit(store: SqliteStore, pages: int) -> None:
    """SQLite takes one statement at a time of a connection, from whichever thread."""
    rows(store, f"PRAGMA max_page_count = {pages + 100_000}")


def test_a_stop_on_a_full_disk_ends_and_is_in_no_good_order(running: Running) -> None:
    running.hand_over(1)
    assert running.loop.next() == ("committed", 1)
    limit_pages(running.store)
    running.hand_over(2, 3, size=50_000)
    assert running.loop.next() == ("full", True)
    running.threads.stop()
    assert running.loop.rest() == []
    assert reopened(running) == (False, numbers(1))


def test_after_a_failure_to_write_nothing_more_is_committed(running: Running) -> None:
    running.hand_over(1)
    assert running.loop.next() == ("committed", 1)
    rows(running.store, "PRAGMA query_only = ON")
    running.hand_over(2, 3)
    what, error = running.loop.next()
    assert (what, type(error)) == ("failed", StorageError)
    rows(running.store, "PRAGMA query_only = OFF")
    running.hand_over(4)
    running.threads.stop()
    assert running.loop.rest() == []
    assert reopened(running) == (False, numbers(1))


def test_after_a_failure_to_read_nothing_more_is_committed(running: Running) -> None:
    running.hand_over(1)
    assert running.loop.next() == ("committed", 1)
    rows(running.store, "DROP TABLE bodies")
    running.threads.fetch(Fetch(1, 0, 100, 100, 100_000))
    what, error = running.loop.next()
    assert (what, type(error)) == ("failed", StorageError)
    assert "amqpd store check" in str(error)
    running.hand_over(2)
    running.threads.stop()
    assert running.loop.rest() == []


def test_after_a_failure_to_copy_nothing_more_is_committed(running: Running) -> None:
    running.store._checkpointer._connection.close()
    running.hand_over(1, size=30_000)
    assert running.loop.next() == ("committed", 1)
    what, error = running.loop.next()
    assert (what, type(error)) == ("failed", StorageError)
    running.hand_over(2)
    running.threads.stop()
    assert running.loop.rest() == []
    assert reopened(running) == (False, numbers(1))


def test_a_bug_is_the_end_of_the_store_too(running: Running) -> None:
    running.threads.hand_over(batch(ticket=1, q1=changed(added={1: "no message"})))
    what, error = running.loop.next()
    assert (what, isinstance(error, StorageError)) == ("failed", False)
    running.threads.stop()
    assert reopened(running) == (False, [])


def test_between_batches_and_after_them_the_file_is_tidied(running: Running) -> None:
    running.hand_over_in_turn(range(1, 60), size=3000)
    running.threads.hand_over(batch(QueueRemoved(1), ticket=60))
    assert running.loop.next() == ("committed", 60)
    running.until_tidied(lambda: not running.look("SELECT count(*) FROM stored"))
    running.until_tidied(lambda: not running.look("SELECT count(*) FROM gone"))
    running.until_tidied(lambda: not running.store.needs_checkpoint)


def test_a_store_that_nobody_needs_shrinks(running: Running) -> None:
    left = SMALL.free_bytes_min // 4096
    running.hand_over_in_turn(range(1, 20), size=10_000)
    running.threads.hand_over(batch(QueueRemoved(1), ticket=20))
    assert running.loop.next() == ("committed", 20)
    running.until_tidied(lambda: running.look("PRAGMA freelist_count") == left)
    running.until_tidied(lambda: running.store.file.stat().st_size < 200_000)
